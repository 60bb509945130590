# SPDX-License-Identifier: GPL-2.0-or-later
"""Small kernel files: symbol tables, ELF, compression, setup header."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import lz4.block
import zstandard

TEXT = 0xFFFFFFFF81000000
PAGE = 4096


class Sym(NamedTuple):
    name: str
    addr: int
    kind: str = "t"


# -- kallsyms, as scripts/kallsyms.c writes it --------------------------------------------------------


class Layout(NamedTuple):
    """``addresses``: ``absolute``, ``relative``, ``percpu`` or ``place``."""

    name: str
    addresses: str
    addresses_first: bool
    seqs: bool


LAYOUTS = (
    Layout("5.10, absolute", "absolute", True, False),
    Layout("5.10", "percpu", True, False),
    Layout("6.1, absolute", "absolute", True, True),
    Layout("6.1", "percpu", True, True),
    Layout("6.4", "percpu", False, True),
    Layout("6.4, absolute", "absolute", False, True),
    Layout("6.15", "relative", False, True),
    Layout("7.0", "place", False, True),
)


def kallsyms(symbols: Sequence[Sym], layout: Layout, at: int) -> bytes:
    """Return the tables of ``symbols``, in ascending order, for the address ``at``, a multiple of 8."""
    texts = [(symbol.kind + symbol.name).encode() for symbol in symbols]
    tokens = _tokens(texts)
    names, markers = b"", []
    for i, text in enumerate(texts):
        if i % 256 == 0:
            markers.append(len(names))
        packed = _compress(text, tokens)
        length = len(packed)
        size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
        names += size + packed
    index = [sum(len(token) + 1 for token in tokens[:i]) for i in range(256)]
    by_name = sorted(range(len(symbols)), key=lambda i: (symbols[i].name, i))
    parts = [
        struct.pack("<I", len(symbols)),
        names,
        struct.pack(f"<{len(markers)}I", *markers),
        b"".join(i.to_bytes(3, "big") for i in by_name),
        b"".join(token + b"\0" for token in tokens),
        struct.pack("<256H", *index),
    ]
    if not layout.seqs or not layout.addresses_first:
        seqs = parts.pop(3)
    if layout.addresses_first:
        return _joined(*_addresses(symbols, layout, at), *parts)
    before = _joined(*parts)
    return _joined(before, *_addresses(symbols, layout, at + len(before)), seqs)


def _joined(*parts: bytes) -> bytes:
    return b"".join(part + bytes(-len(part) % 8) for part in parts)


def _tokens(texts: Sequence[bytes]) -> list[bytes]:
    """Return 256 tokens: the characters in use, the digits, the most frequent sequences."""
    used = set(b"".join(texts)) | set(b"0123456789")
    pairs = Counter(
        text[i : i + n] for text in texts for n in (2, 3) for i in range(len(text) - n + 1)
    )
    best = iter([pair for pair, _ in pairs.most_common(256)])
    return [bytes([code]) if code in used else next(best, b"") for code in range(256)]


def _compress(text: bytes, tokens: Sequence[bytes]) -> bytes:
    codes = {token: code for code, token in enumerate(tokens) if token}
    packed, at = bytearray(), 0
    while at < len(text):
        token = next(text[at : at + n] for n in (3, 2, 1) if text[at : at + n] in codes)
        packed.append(codes[token])
        at += len(token)
    return bytes(packed)


def _addresses(symbols: Sequence[Sym], layout: Layout, at: int) -> tuple[bytes, ...]:
    values = [symbol.addr for symbol in symbols]
    if layout.addresses == "absolute":
        return (struct.pack(f"<{len(values)}Q", *values),)
    if layout.addresses == "place":
        offsets = [value - (at + 4 * i) for i, value in enumerate(values)]
        return (struct.pack(f"<{len(values)}i", *offsets),)
    base = min(value for value in values if value >= TEXT)
    offsets = [
        value - base
        if layout.addresses == "relative"
        else value
        if value < base
        else base - 1 - value
        for value in values
    ]
    return struct.pack(f"<{len(values)}i", *offsets), struct.pack("<Q", base)


# -- ELF ----------------------------------------------------------------------------------------------

SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
_PROGBITS, _STRTAB, _NOBITS = 1, 3, 8


class Sec(NamedTuple):
    """A section. ``data`` is its content, or its size if it is SHT_NOBITS."""

    name: str
    addr: int
    data: bytes | int
    flags: int = 0


def elf(sections: Sequence[Sec], machine: int = 62, elf_class: int = 2) -> bytes:
    """Return a vmlinux without program headers."""
    names = b"\0" + b"".join(section.name.encode() + b"\0" for section in sections) + b".shstrtab\0"
    content, headers, name_at = bytearray(64), [bytes(64)], 1
    for section in (*sections, Sec(".shstrtab", 0, names)):
        data = section.data if isinstance(section.data, bytes) else b""
        kind = _PROGBITS if section.data == data else _NOBITS
        size = len(data) if kind == _PROGBITS else section.data
        flags = section.flags | SHF_ALLOC if section.name != ".shstrtab" else 0
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ", name_at, kind, flags, section.addr, len(content), size, 0, 0, 1, 0
            )
        )
        name_at += len(section.name) + 1
        content += data
    header = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", elf_class, 1, 1, 2, machine, 1, TEXT, 0, len(content),
        0, 64, 56, 0, 64, len(headers), len(headers) - 1,
    )  # fmt: skip
    content[:64] = header
    return bytes(content + b"".join(headers))


# -- a kernel -----------------------------------------------------------------------------------------

RELEASE = "6.1.0-test"
BANNER = f"Linux version {RELEASE} (me@here) (gcc) #1 SMP\n"
VERMAGIC = f"{RELEASE} SMP preempt mod_unload modversions "
BUILD_ID = bytes(range(20))
PER_CPU = bytes(range(256)) * 16


@dataclass
class Kernel:
    """The parts of a kernel that klpfs reads. Set attributes, then call `vmlinux`."""

    layout: Layout = LAYOUTS[3]
    btf: bytes | None = b"\x9f\xeb types"
    functions: list[str] = field(
        default_factory=lambda: ["cmdline_proc_show", "klp_enable_patch", "_printk"]
    )
    exports: dict[str, tuple[bool, int, str]] = field(
        default_factory=lambda: {
            "_printk": (False, 0x92997ED8, ""), "klp_enable_patch": (True, 0xFFFFFFFE, "KLP"),
        }
    )  # fmt: skip
    """The exports by name: GPL only, CRC, namespace."""
    crcs: bool = True
    leave_out: frozenset[str] = frozenset()
    """The symbols to leave out of its table."""
    more: list[Sym] = field(default_factory=list)
    machine: int = 62

    def vmlinux(self) -> bytes:
        text = {name: TEXT + 64 * i for i, name in enumerate(self.functions)}
        rodata, data, init = TEXT + 0x10000, TEXT + 0x80000, TEXT + 0x90000
        symbols = [Sym("_text", TEXT, "T"), Sym("_stext", TEXT, "T")]
        symbols += [Sym(name, at, "T") for name, at in text.items()]
        symbols += [Sym("_etext", TEXT + 0x1010, "T"), Sym("__end_rodata", data, "D")]
        symbols += [Sym("__per_cpu_start", 0, "A"), Sym("a_per_cpu_variable", 0x40, "A")]
        symbols += [Sym("__per_cpu_end", len(PER_CPU), "A"), Sym("__per_cpu_load", init, "D")]
        symbols += [Sym("__init_begin", init, "D"), Sym("__init_end", init + 0x4000, "R")]
        symbols += [Sym("_end", init + 0x8000, "B"), *self.more]
        sections = [
            Sec(".text", TEXT, b"\xcc" * 0x1010, SHF_EXECINSTR),
            Sec(".data", data, b"data", SHF_WRITE),
            Sec(".data..percpu", 0, PER_CPU, SHF_WRITE),
            Sec(".init.text", init + 0x1000, b"\x90" * 0x800, SHF_EXECINSTR),
            Sec(".altinstr_aux", init + 0x1800, b"\x90" * 0x10, SHF_EXECINSTR),
            Sec(".init.data", init + 0x2000, self._mcount_loc(text, init, symbols), SHF_WRITE),
            Sec(".bss", init + 0x4000, 0x2000, SHF_WRITE),
            Sec(".init.scratch", init + 0x8000, bytes(64), SHF_WRITE),
        ]
        strings = {name: i for i, name in enumerate(("linux_banner", "vermagic"))}
        texts = b"".join(text.encode().ljust(256, b"\0") for text in (BANNER, VERMAGIC))
        symbols += [Sym(name, rodata + 256 * i, "R") for name, i in strings.items()]
        tables = rodata + 0x40000
        for suffix, gpl_only in (("", False), ("_gpl", True)):
            chosen = {n: e for n, e in self.exports.items() if e[0] == gpl_only}
            data_at = tables + (0x4000 if gpl_only else 0)
            sections += self._ksymtab(suffix, chosen, text, data_at, symbols)
        note = struct.pack("<III", 4, 5, 6) + b"Xen\0" + b"12345\0\0\0"
        note += struct.pack("<III", 4, len(BUILD_ID), 3) + b"GNU\0" + BUILD_ID
        sections.append(Sec(".notes", tables + 0x9000, note))
        if self.btf is not None:
            sections.append(Sec(".BTF", tables + 0xA000, self.btf))
        kept = [symbol for symbol in symbols if symbol.name not in self.leave_out]
        ordered = sorted(kept, key=lambda symbol: symbol.addr)
        table = kallsyms(ordered, self.layout, rodata + len(texts))
        sections.append(Sec(".rodata", rodata, texts + table, SHF_WRITE))
        self.symbols = ordered
        self.text = text
        return elf(sections, self.machine)

    @staticmethod
    def _mcount_loc(text: dict[str, int], init: int, symbols: list[Sym]) -> bytes:
        sites = [*reversed(text.values()), init + 0x1100, 0]
        start = init + 0x2000
        symbols.append(Sym("__start_mcount_loc", start, "D"))
        symbols.append(Sym("__stop_mcount_loc", start + 8 * len(sites), "D"))
        return struct.pack(f"<{len(sites)}Q", *sites) + b"more"

    def _ksymtab(
        self,
        suffix: str,
        exports: dict[str, tuple[bool, int, str]],
        text: dict[str, int],
        at: int,
        symbols: list[Sym],
    ) -> list[Sec]:
        strings_at, crcs_at = at + 0x2000, at + 0x1000
        strings, entries = bytearray(b"\0"), b""
        for i, (name, (_, _, namespace)) in enumerate(exports.items()):
            place, name_at = at + 12 * i, strings_at + len(strings)
            strings += name.encode() + b"\0"
            namespace_at = strings_at + len(strings) if namespace else strings_at
            strings += namespace.encode() + b"\0" if namespace else b""
            entries += struct.pack(
                "<iii", text[name] - place, name_at - place - 4, namespace_at - place - 8
            )
        crcs = b"".join(struct.pack("<I", crc) for _, crc, _ in exports.values()) * self.crcs
        for table, start, size in (("ksymtab", at, len(entries)), ("kcrctab", crcs_at, len(crcs))):
            symbols.append(Sym(f"__start___{table}{suffix}", start, "R"))
            symbols.append(Sym(f"__stop___{table}{suffix}", start + size, "R"))
        return [
            Sec(f"__ksymtab{suffix}", at, entries),
            Sec(f"__kcrctab{suffix}", crcs_at, crcs),
            Sec(f"__ksymtab_strings{suffix}", strings_at, bytes(strings)),
        ]


# -- compression and the setup header -------------------------------------------------------------------


def _lz4(data: bytes) -> bytes:
    """``lz4 -l``"""
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return packed


_XZ_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, filters=_XZ_FILTERS),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=1),
    "bzip2": bz2.compress,
    "lz4": _lz4,
    "zstd": zstandard.ZstdCompressor(level=3, write_content_size=False).compress,
    "none": bytes,
}


def bzimage(vmlinux: bytes, compression: str = "xz", version: int = 0x20F) -> bytes:
    """Return a bzImage, as the kernel's build makes it."""
    payload = COMPRESSIONS[compression](vmlinux)
    if compression not in ("gzip", "none"):
        payload += struct.pack("<I", len(vmlinux))
    return setup(payload, version)


def setup(payload: bytes, version: int = 0x20F) -> bytes:
    """Return a bzImage with any payload."""
    sectors, offset = 3, 716
    header = bytearray((sectors + 1) * 512)
    header[:2] = b"MZ"
    header[0x1F1] = sectors
    header[0x1FE:0x200] = b"\x55\xaa"
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<II", header, 0x248, offset, len(payload))
    return bytes(header) + bytes(offset) + payload + bytes(100)
