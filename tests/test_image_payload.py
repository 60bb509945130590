# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmlinux in a kernel's file."""

from __future__ import annotations

import io
import lzma
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmlinux_maker import COMPRESSIONS, Sec, bzimage, elf, setup

from klpfs.machine.image import ImageError, payload
from klpfs.machine.image.payload import open_vmlinux
from klpfs.machine.image.vmlinux import Vmlinux

TEXT = b"some text, and more of it; " * 400
VMLINUX = elf([Sec(".text", 0xFFFFFFFF81000000, TEXT)])
PACKED = {name: bzimage(VMLINUX, name) for name in COMPRESSIONS}


def unpacked(data: bytes) -> bytes:
    return open_vmlinux(io.BytesIO(data)).read()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression(compression: str) -> None:
    assert unpacked(PACKED[compression]) == VMLINUX


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_vmlinux_without_a_setup_header(compression: str) -> None:
    """Some distributions ship a vmlinux.xz or a vmlinux beside the bzImage."""
    file = io.BytesIO(COMPRESSIONS[compression](VMLINUX))
    assert [section.data for section in Vmlinux(open_vmlinux(file)).sections] == [TEXT]


def test_many_blocks_and_frames_of_lz4() -> None:
    """A block has at most 8 MiB. ``lz4`` of two files writes two frames."""
    large = VMLINUX + bytes(9 << 20)
    assert unpacked(bzimage(large, "lz4")) == large
    twice = COMPRESSIONS["lz4"](VMLINUX) + COMPRESSIONS["lz4"](TEXT)
    size = struct.pack("<I", len(VMLINUX + TEXT))
    assert unpacked(setup(twice + size)) == VMLINUX + TEXT


def test_it_says_what_it_unpacks() -> None:
    said: list[str] = []
    open_vmlinux(io.BytesIO(PACKED["zstd"]), said.append)
    assert said == ["unpacking 0 MiB of zstd"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is neither a bzImage nor a vmlinux"),
        (b"#!/bin/sh\nexit 0\n", "it is neither a bzImage nor a vmlinux"),
        (bytes(4096), "it is neither a bzImage nor a vmlinux"),
        (b"MZ" + bytes(54) + b"ARM\x64" + bytes(99), "it is an arm64 kernel"),
        (b"MZ\0\0zimg" + bytes(99), "it is an EFI zboot kernel, which x86-64 does not use"),
        (PACKED["xz"][:0x240], "its setup header is truncated"),
        (PACKED["xz"][:-200], "it is truncated: its payload ends at "),
        (setup(VMLINUX, 0x207), "its boot protocol 2.07 is older than Linux 2.6.26"),
        (setup(b""), "its setup header has no payload"),
        (setup(b"what?"), "its payload begins with 77 68 61 74, which is not a known compression"),
        (setup(b"\x89LZO\0\r\n"), "it is compressed with LZO, which is not supported"),
        (
            setup(COMPRESSIONS["xz"](VMLINUX) + struct.pack("<I", len(VMLINUX) + 1)),
            f"its xz data unpacks to {len(VMLINUX)} bytes instead of {len(VMLINUX) + 1}",
        ),
    ],
)
def test_files_that_are_not_kernels(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=re.escape(reason)):
        unpacked(data)


@pytest.mark.parametrize("compression", set(COMPRESSIONS) - {"none"})
def test_packed_data_that_ends_too_early(compression: str) -> None:
    with pytest.raises(ImageError, match=f"its {compression} data "):
        unpacked(setup(COMPRESSIONS[compression](VMLINUX)[:-20]))


@pytest.mark.parametrize("compression", set(COMPRESSIONS) - {"none"})
def test_bombs(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "UNPACKED_MAX", 9 << 20)
    bomb = bzimage(bytes(18 << 20), compression)
    with pytest.raises(ImageError, match=f"its {compression} data unpacks to more than 9437184"):
        unpacked(bomb)


def test_a_dictionary_larger_than_any_kernel() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 26}]
    data = bytearray(lzma.compress(VMLINUX, check=lzma.CHECK_NONE, filters=filters))
    assert unpacked(bytes(data) + struct.pack("<I", 0)) == VMLINUX
    alone = b"\x5d" + struct.pack("<I", 0xFF000000) + b"\xff" * 8 + bytes(100)
    with pytest.raises(ImageError, match="its lzma data is damaged"):
        unpacked(setup(alone))


def test_a_file_that_is_far_too_large() -> None:
    class Endless(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            return 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None and size >= 0
            return bytes(size)

    with pytest.raises(ImageError, match="larger than 268435456 bytes"):
        open_vmlinux(Endless())


@settings(max_examples=300, deadline=None)
@given(
    compression=st.sampled_from(sorted(COMPRESSIONS)),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=5)), max_size=3
    ),
    cut=st.integers(0, 1 << 14) | st.just(0),
)
def test_damaged_files(compression: str, changes: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(PACKED[compression])
    for at, junk in changes:
        at %= len(data)
        data[at : at + len(junk)] = junk
    del data[len(data) - cut % len(data) :]
    try:
        Vmlinux(open_vmlinux(io.BytesIO(bytes(data))))
    except ImageError as error:
        assert str(error)


# -- the vmlinux --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (elf([], machine=183), "it is for arm64, not for x86-64"),
        (elf([], machine=3, elf_class=1), "it is for 32-bit x86, not for x86-64"),
        (elf([], machine=4711), "it is for machine 4711, not for x86-64"),
        (elf([])[:-1], "it is truncated: it should have"),
        (b"\x7fELF", "it is truncated: it should have at least 20 bytes, and it has 4"),
        (setup(COMPRESSIONS["gzip"](b"no kernel at all")), "its content is not an ELF file"),
        (
            VMLINUX[:40] + bytes(8) + VMLINUX[48:60] + bytes(4) + VMLINUX[64:],
            "it has no section table",
        ),
    ],
)
def test_files_that_are_not_an_x86_64_vmlinux(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=re.escape(reason)):
        Vmlinux(open_vmlinux(io.BytesIO(data)))


def test_reading_by_address() -> None:
    vmlinux = Vmlinux(
        io.BytesIO(
            elf([Sec(".b", 0x3000, 16), Sec(".a", 0x1000, b"text\0more"), Sec(".c", 0, b"")])
        )
    )
    assert [section.name for section in vmlinux.sections] == [".a", ".b"]
    assert vmlinux.read(0x1005, 100) == b"more"
    assert vmlinux.text(0x1000) == "text"
    assert vmlinux.read(0x3004, 4) == bytes(4)  # zeroes that are not in the file
    assert vmlinux.read_range(0x1001, 0x1005) == b"ext\0"
    for address in (0xFFF, 0x1009, 0x3010):
        with pytest.raises(ImageError, match=f"it refers to address {address:#x}"):
            vmlinux.read(address, 1)
    for start, end in ((0x1005, 0x100A), (0x1005, 0x1000), (0x1000, 0x3000)):
        with pytest.raises(ImageError, match="does not end in the section"):
            vmlinux.read_range(start, end)
