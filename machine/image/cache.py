# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of distribution images: $XDG_CACHE_HOME/klpfs/distribution-<build id>-<key>.

The key is a hash of the kernel's file and of the code that reads it, so that an entry never
changes and never is out of date. The build id is there for the user. The content has checksums.
An entry that cannot be read counts as missing.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from klpfs.machine.image import Export, Image, ImageError, Segment, Symbol, cache_dir

_PART_MAX = 512 << 20
"""The size in bytes above which a part is taken for damaged."""
_LENGTH = struct.Struct("<I")
_NO_CRC = -1


def key(file: BinaryIO) -> str:
    """Return the key of the kernel in ``file``. Raise OSError."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    file.seek(0)
    while data := file.read(1 << 22):
        digest.update(data)
    return digest.hexdigest()


def get(key: str) -> Image | None:
    """Return the image in the cache under ``key``, or None."""
    for path in cache_dir.path().glob(f"distribution-*-{key}"):
        collecting = gc.isenabled()
        gc.disable()  # a hundred thousand objects are made, and none becomes garbage
        try:
            image = _decode(path.read_bytes())
        except (OSError, zstandard.ZstdError, ValueError, TypeError, KeyError, struct.error,
                ImageError):  # fmt: skip
            continue
        finally:
            if collecting:
                gc.enable()
        cache_dir.mark_used(path)
        return image
    return None


def put(key: str, image: Image) -> None:
    """Write an image to the cache, without the sizes of symbols. Raise OSError."""
    directory = cache_dir.path()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"distribution-{image.build_id or 'none'}-{key}"
    handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=directory)
    try:
        with open(handle, "wb") as file:
            file.write(_encode(image))
        os.replace(temporary, path)
        cache_dir.remove_unused()
    except BaseException:
        os.unlink(temporary)
        raise


# -- the format: parts of a length and a zstd frame each; the first part is JSON -----------------


def _encode(image: Image) -> bytes:
    exports = image.exports.values()
    header = {
        "release": image.release,
        "vermagic": image.vermagic,
        "banner": image.banner,
        "abi": image.abi,
        "booted": image.booted,
        "unwinder": image.unwinder,
        "build_id": image.build_id,
        "init": [image.init.start, image.init.stop],
        "initcalls": image.initcalls,
        "stubs": sorted(image.stubs),
        "segments": [[s.vaddr, s.memsz, s.writable, s.executable] for s in image.segments],
    }
    parts = (
        json.dumps(header).encode(),
        _text(symbol.name for symbol in image.symbols),
        "".join([symbol.kind for symbol in image.symbols]).encode(),
        _numbers("Q", [symbol.addr for symbol in image.symbols]),
        _text(image.exports),
        _numbers("Q", [export.addr for export in exports]),
        _numbers("?", [export.gpl_only for export in exports]),
        _numbers("q", [_NO_CRC if export.crc is None else export.crc for export in exports]),
        _text(export.namespace for export in exports),
        _numbers("Q", image.ftrace_sites),
        image.btf,
        image.per_cpu,
        *(segment.data for segment in image.segments),
    )
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    frames = [compressor.compress(part) for part in parts]
    return b"".join([piece for frame in frames for piece in (_LENGTH.pack(len(frame)), frame)])


def _parts(data: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        frame = data[at : at + length]
        if not 0 <= zstandard.frame_content_size(frame) <= _PART_MAX:
            raise ValueError("damaged")
        yield decompressor.decompress(frame)
        at += length


def _decode(data: bytes) -> Image:
    """Raise ValueError, KeyError, struct.error or zstandard.ZstdError for damaged data."""
    encoded, names, kinds, addresses, exports, *others = _parts(data)
    export_addresses, gpl_only, crcs, namespaces, sites, btf, per_cpu, *loaded = others
    header: dict[str, Any] = json.loads(encoded)
    # tuple.__new__ makes a NamedTuple in half the time that its own constructor takes.
    make: Callable[..., Any] = tuple.__new__
    symbols = zip(_strings(names), _read("Q", addresses), repeat(0), kinds.decode(), strict=False)
    described = zip(
        _read("Q", export_addresses),
        _read("?", gpl_only),
        (None if crc == _NO_CRC else crc for crc in _read("q", crcs)),
        _strings(namespaces),
        strict=True,
    )
    segments = zip(header.pop("segments"), loaded, strict=True)
    return Image(
        symbols=list(map(make, repeat(Symbol), symbols)),
        exports=dict(zip(_strings(exports), map(make, repeat(Export), described), strict=True)),
        ftrace_sites=list(_read("Q", sites)),
        btf=btf,
        per_cpu=per_cpu,
        segments=[Segment(vaddr, part, *others) for (vaddr, *others), part in segments],
        init=range(*header.pop("init")),
        stubs=frozenset(header.pop("stubs")),
        **header,
    )


def _text(strings: Iterable[str]) -> bytes:
    return "\0".join(strings).encode("utf-8", "surrogateescape")


def _strings(data: bytes) -> list[str]:
    return data.decode("utf-8", "surrogateescape").split("\0")


def _numbers(kind: str, values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def _read(kind: str, data: bytes) -> tuple[Any, ...]:
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + kind)}{kind}", data)
