# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmlinux in a kernel's file: Documentation/arch/x86/boot.rst, scripts/Makefile.lib.

The setup header of a bzImage gives the place of its payload: the compressed vmlinux, followed by
its unpacked size as 32 bits. gzip data has that size by itself, so it is not added there.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import lz4.block
import zstandard

from klpfs.machine.image import ImageError

FILE_MAX = 256 << 20
"""The maximum size of a compressed kernel in bytes."""
UNPACKED_MAX = 512 << 20
"""The maximum size of an unpacked kernel in bytes."""

_CHUNK = 1 << 20

_BOOT_FLAG, _BOOT_MAGIC = 0x1FE, 0xAA55
_HEADER, _HEADER_MAGIC = 0x202, b"HdrS"
_SETUP_SECTS = 0x1F1
_VERSION, _VERSION_WITH_PAYLOAD = 0x206, 0x208
_PAYLOAD = struct.Struct("<II")  # offset and length
_PAYLOAD_AT = 0x248
_SECTOR = 512
_HEAD = _PAYLOAD_AT + _PAYLOAD.size

_ELF = b"\x7fELF"
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20
"""The maximum unpacked size of a block of the legacy format in bytes."""

_OTHER_KERNELS = (
    (0x38, b"ARM\x64", "an arm64 kernel"),
    (0x38, b"RSC\x05", "a riscv kernel"),
    (0x38, b"\xcd\x23\x82\x81", "a loongarch kernel"),
    (0x24, b"\x18\x28\x6f\x01", "a 32-bit arm kernel"),
    (4, b"zimg", "an EFI zboot kernel, which x86-64 does not use"),
)


class _Decompressor(Protocol):
    """The decompressors of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def open_vmlinux(file: BinaryIO, progress: Callable[[str], None] | None = None) -> BinaryIO:
    """Return the vmlinux of a kernel: ``file`` itself, or one unpacked in memory.

    ``file`` may be a vmlinux, a compressed vmlinux or a bzImage. ``progress`` is called before
    data is unpacked. Raise ImageError or OSError.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if head.startswith(_ELF):
        return file
    data = head + file.read(FILE_MAX - len(head) + 1)
    if len(data) > FILE_MAX:
        raise ImageError(f"it is neither a bzImage nor a vmlinux, and larger than {FILE_MAX} bytes")
    payload, sized = (_payload(data), True) if _is_bzimage(data) else (data, False)
    return io.BytesIO(_unpack(payload, sized, progress or (lambda step: None)))


def _is_bzimage(data: bytes) -> bool:
    return (
        data[_BOOT_FLAG : _BOOT_FLAG + 2] == _BOOT_MAGIC.to_bytes(2, "little")
        and data[_HEADER : _HEADER + 4] == _HEADER_MAGIC
    )


def _payload(data: bytes) -> bytes:
    """Return the payload of a bzImage. Raise ImageError."""
    if len(data) < _HEAD:
        raise ImageError("its setup header is truncated")
    version = int.from_bytes(data[_VERSION : _VERSION + 2], "little")
    if version < _VERSION_WITH_PAYLOAD:
        raise ImageError(
            f"its boot protocol {version >> 8}.{version & 255:02} is older than Linux 2.6.26"
        )
    offset, length = _PAYLOAD.unpack_from(data, _PAYLOAD_AT)
    start = ((data[_SETUP_SECTS] or 4) + 1) * _SECTOR + offset
    if not length:
        raise ImageError("its setup header has no payload")
    if start + length > len(data):
        raise ImageError(
            f"it is truncated: its payload ends at {start + length}, and it has {len(data)} bytes"
        )
    return data[start : start + length]


def _unpack(payload: bytes, sized: bool, report: Callable[[str], None]) -> bytes:
    """Return unpacked data. ``sized`` is true if the unpacked size can follow the payload."""
    found = next((known for known in _FORMATS if payload.startswith(known.magic)), None)
    if found is None:
        if payload.startswith(_ELF):  # CONFIG_KERNEL_UNCOMPRESSED
            return payload
        if payload.startswith(b"\x89LZO"):
            raise ImageError("it is compressed with LZO, which is not supported")
        if sized:
            raise ImageError(
                f"its payload begins with {payload[:4].hex(' ')}, which is not a known compression"
            )
        for at, magic, what in _OTHER_KERNELS:
            if payload[at : at + len(magic)] == magic:
                raise ImageError(f"it is {what}")
        raise ImageError("it is neither a bzImage nor a vmlinux")
    report(f"unpacking {len(payload) >> 20} MiB of {found.name}")
    name, wanted = found.name, None
    if sized and found.sized:
        wanted = int.from_bytes(payload[-4:], "little")
        payload = payload[:-4]
    unpacked, size = [], 0
    try:
        for piece in found.pieces(payload):
            unpacked.append(piece)
            size += len(piece)
            if size > UNPACKED_MAX:
                raise ImageError(f"its {name} data unpacks to more than {UNPACKED_MAX} bytes")
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise ImageError(f"its {name} data is damaged ({error})") from error
    except (zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
        raise ImageError(f"its {name} data is damaged ({error})") from error
    if wanted is not None and wanted != size:
        raise ImageError(f"its {name} data unpacks to {size} bytes instead of {wanted}")
    return b"".join(unpacked)


def _pieces(decompressor: _Decompressor, data: bytes) -> Iterator[bytes]:
    """Yield unpacked data in small pieces, so that the caller can stop when they get too large."""
    yield decompressor.decompress(data, _CHUNK)
    while not decompressor.eof:
        if decompressor.needs_input:
            raise EOFError("it is truncated")
        yield decompressor.decompress(b"", _CHUNK)


def _gzip(data: bytes) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    while not decompressor.eof:
        piece = decompressor.decompress(data, _CHUNK)
        data = decompressor.unconsumed_tail
        if not piece and not decompressor.eof:
            raise EOFError("it is truncated")
        yield piece


def _xz(data: bytes) -> Iterator[bytes]:
    return _pieces(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=UNPACKED_MAX), data)


def _lzma(data: bytes) -> Iterator[bytes]:
    return _pieces(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=UNPACKED_MAX), data)


def _bzip2(data: bytes) -> Iterator[bytes]:
    return _pieces(bz2.BZ2Decompressor(), data)


def _zstd(data: bytes) -> Iterator[bytes]:
    # zstd --ultra -22 has a window of 128 MiB.
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
    while piece := reader.read(_CHUNK):
        yield piece


def _lz4(data: bytes) -> Iterator[bytes]:
    """Unpack frames of the legacy format: a magic number, then blocks with their packed sizes."""
    at = 0
    while at < len(data):
        if data[at : at + 4] == _LZ4_LEGACY:
            at += 4
            continue
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + size > len(data):
            raise EOFError("it is truncated")
        yield lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=_LZ4_BLOCK)
        at += 4 + size


class _Format(NamedTuple):
    """A compression. ``sized`` is true if the kernel's build appends the unpacked size."""

    magic: bytes
    name: str
    sized: bool
    pieces: Callable[[bytes], Iterator[bytes]]


_FORMATS = (
    _Format(b"\x1f\x8b", "gzip", False, _gzip),
    _Format(b"\xfd7zXZ\0", "xz", True, _xz),
    _Format(b"BZh", "bzip2", True, _bzip2),
    _Format(b"\x5d\0\0", "lzma", True, _lzma),
    _Format(_LZ4_LEGACY, "lz4", True, _lz4),
    _Format(b"\x28\xb5\x2f\xfd", "zstd", True, _zstd),
)
