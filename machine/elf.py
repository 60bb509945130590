# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocatable x86-64 kernel modules: reading them, placing their sections, applying relocations.

What is refused, with which errno and which line in the log, is kernel/module/main.c's business, and
arch/x86/kernel/module.c's for relocations. Where the kernel trusts the file and would read or write
out of bounds, it is refused here with ENOEXEC.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, NoReturn

from klpfs.machine import limits
from klpfs.machine.memory import MODULES_END, MODULES_VADDR, page_align

_EHDR = struct.Struct("<4s12xHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_U64 = (1 << 64) - 1

ET_REL, EM_X86_64 = 1, 62
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOTE, SHT_NOBITS, SHT_REL = 7, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHF_RELA_LIVEPATCH, SHF_RO_AFTER_INIT = 0x00100000, 0x00200000
SHN_UNDEF, SHN_LORESERVE, SHN_LIVEPATCH, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFF20, 0xFFF1, 0xFFF2
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = range(5)

R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 0, 1, 2, 4
R_X86_64_32, R_X86_64_32S, R_X86_64_PC64 = 10, 11, 24

_KERN_ERR, _KERN_WARNING = 3, 4
_KSYM_NAME_LEN = 512
_MODULE_NAME = slice(24, 24 + 56)  # struct module: state, list, then char name[MODULE_NAME_LEN]
_MOD_KALLSYMS_SIZE = 32  # struct mod_kallsyms: three pointers and a count


class ElfError(Exception):
    """A module that the kernel refuses.

    ``errno`` is what the system call returns, ``lines`` is what the log says (printk level
    ``level``), without a line end; ``str()`` gives them as one.
    """

    def __init__(self, errno: int, *lines: str, level: int = _KERN_ERR) -> None:
        super().__init__(errno, *lines)
        self.errno = errno
        self.lines = lines
        self.level = level

    def __str__(self) -> str:
        return "; ".join(self.lines)


def _refuse(*lines: str, level: int = _KERN_ERR) -> NoReturn:
    raise ElfError(errno.ENOEXEC, *lines, level=level)


@dataclass(frozen=True, slots=True)
class Section:
    """A section. ``flags`` are as the loader leaves them: .modinfo and __versions are read and not
    kept, so they are not SHF_ALLOC; .data..ro_after_init and __jump_table are
    SHF_RO_AFTER_INIT. ``data`` is empty for SHT_NOBITS."""

    index: int
    name: str
    type: int
    flags: int
    addralign: int
    size: int
    link: int
    info: int
    entsize: int
    data: memoryview

    @property
    def is_init(self) -> bool:
        """Whether it goes when the module is initialized (``module_init_section``)."""
        return self.name.startswith(".init")


class ElfSymbol(NamedTuple):
    """A symbol as the file has it: ``value`` is an offset into section ``shndx``."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    shndx: int


class Relocation(NamedTuple):
    """``offset`` is in the target section, ``symbol`` an index into the symbol table."""

    offset: int
    type: int
    symbol: int
    addend: int


class Modinfo:
    """The ``tag=value`` strings of .modinfo, in their order; a tag may come many times."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self.items: tuple[tuple[str, str], ...] = tuple(items)

    def get(self, tag: str) -> str | None:
        """The first value of a tag (``get_modinfo``)."""
        return next(self.all(tag), None)

    def all(self, tag: str) -> Iterator[str]:
        """Every value of a tag."""
        return (value for name, value in self.items if name == tag)

    @classmethod
    def parse(cls, data: bytes) -> Modinfo:
        """Strings without ``=`` have no tag, and are left out."""
        strings = (part.partition(b"=") for part in data.split(b"\0"))
        return cls((_decode(tag), _decode(value)) for tag, equals, value in strings if equals)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class _Header(NamedTuple):
    """``Elf64_Shdr``"""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


@dataclass(frozen=True)
class ModuleImage:
    """A module's file, checked.

    ``sections`` has the file's indexes, 0 the empty one. The other numbers are such indexes, and 0
    for what the module has not: ``versions``, ``percpu`` (which only SMP has).
    """

    name: str
    sections: tuple[Section, ...]
    modinfo: Modinfo
    symtab: int
    this_module: int
    versions: int
    percpu: int

    @classmethod
    def parse(cls, data: bytes, *, smp: bool = False) -> ModuleImage:
        """Read a .ko file. Raises ElfError.

        The checks are those of ``elf_validity_check`` and ``setup_load_info``, in their order. With
        ``smp``, .data..percpu is set apart for the per-CPU allocator, else it is data like other.
        """
        headers, names = _validity_check(data)

        def view(header: _Header) -> memoryview:
            if header.type in (SHT_NULL, SHT_NOBITS):
                return memoryview(b"")
            return memoryview(data)[header.offset : header.offset + header.size]

        sections = [
            Section(
                i, _name(names, h.name) or "", h.type, h.flags, h.addralign, h.size, h.link, h.info,
                h.entsize, view(h),
            )
            for i, h in enumerate(headers)
        ]  # fmt: skip

        def find(name: str) -> int:
            wanted = (s.index for s in sections[1:] if s.flags & SHF_ALLOC and s.name == name)
            return next(wanted, 0)

        info = find(".modinfo")
        if sections[info].size > limits.MODINFO:
            raise ElfError(errno.ENOMEM, f"Module has {sections[info].size} bytes of .modinfo")
        modinfo = Modinfo.parse(bytes(sections[info].data))
        info_name = modinfo.get("name")
        symtab = next((s.index for s in sections[1:] if s.type == SHT_SYMTAB), 0)
        unknown = info_name or "(missing .modinfo section or name field)"
        if not symtab:
            _refuse(f"{unknown}: module has no symbols (stripped?)", level=_KERN_WARNING)
        this_module = find(".gnu.linkonce.this_module")
        if not this_module:
            _refuse(f"{unknown}: No module found in object", level=_KERN_WARNING)
        # What kbuild makes has the same name in both places. In memory, that of struct module counts.
        struct_name = bytes(sections[this_module].data[_MODULE_NAME]).split(b"\0", 1)[0]
        name = _decode(struct_name) or info_name or ""
        versions, percpu = find("__versions"), find(".data..percpu") if smp else 0
        for index in (info, versions, percpu):
            sections[index] = replace(sections[index], flags=sections[index].flags & ~SHF_ALLOC)
        for index in (find(".data..ro_after_init"), find("__jump_table")):
            if index:
                flags = sections[index].flags | SHF_RO_AFTER_INIT
                sections[index] = replace(sections[index], flags=flags)
        if sum(s.size for s in sections if s.type in (SHT_REL, SHT_RELA)) > len(data):
            _refuse(f"{name}: relocation sections overlap")
        return cls(name, tuple(sections), modinfo, symtab, this_module, versions, percpu)

    def find(self, name: str) -> Section | None:
        """The first loaded section of that name (``find_sec``)."""
        return next((s for s in self.sections[1:] if s.flags & SHF_ALLOC and s.name == name), None)

    def find_any(self, name: str) -> Section | None:
        """The first section of that name, loaded or not (``find_any_sec``)."""
        return next((s for s in self.sections[1:] if s.name == name), None)

    @property
    def is_livepatch(self) -> bool:
        """Whether the module says that it is a live patch."""
        return self.modinfo.get("livepatch") is not None

    @cached_property
    def symbols(self) -> tuple[ElfSymbol, ...]:
        """The symbol table; 0 is the empty symbol. Raises ElfError."""
        table = self.sections[self.symtab]
        strings = bytes(self.sections[table.link].data)
        whole = len(table.data) // _SYM.size * _SYM.size
        if whole > limits.SYMBOLS * _SYM.size:
            raise ElfError(errno.ENOMEM, f"{self.name}: too many symbols")
        symbols = []
        for i, (name_off, info, _, shndx, value, size) in enumerate(
            _SYM.iter_unpack(table.data[:whole])
        ):
            name = _name(strings, name_off) if name_off else ""
            if name is None:
                _refuse(f"{self.name}: Invalid ELF symbol name in module (symbol {i})")
            symbols.append(ElfSymbol(name, value, size, info >> 4, info & 15, shndx))
        return tuple(symbols)

    def kind(self, symbol: ElfSymbol) -> str:
        """The letter that /proc/kallsyms shows for a symbol (``elf_type``)."""
        if symbol.bind == STB_WEAK:
            return "v" if symbol.type == STT_OBJECT else "w"
        if symbol.shndx == SHN_UNDEF:
            return "U"
        if symbol.shndx == SHN_ABS or (symbol.shndx == self.percpu and self.percpu):
            return "a"
        if symbol.shndx >= len(self.sections):
            return "?"
        section = self.sections[symbol.shndx]
        if section.flags & SHF_EXECINSTR:
            return "t"
        if section.type == SHT_NOBITS:
            return "b"
        if section.flags & SHF_ALLOC:
            return "d" if section.flags & SHF_WRITE else "r"
        return "n" if section.name.startswith(".debug") else "?"

    def is_core(self, index: int) -> bool:
        """Whether a symbol outlives the module's init part (``add_kallsyms``): those of sections
        that stay, and all of a live patch."""
        if index == 0 or self.is_livepatch:
            return True
        symbol = self.symbols[index]
        if not symbol.name or symbol.shndx == SHN_UNDEF or symbol.shndx >= len(self.sections):
            return False
        section = self.sections[symbol.shndx]
        if symbol.shndx == self.percpu:
            return True
        return bool(section.flags & SHF_ALLOC) and not section.is_init

    def relocation_sections(self) -> Iterator[Section]:
        """The sections that ``apply_relocations`` looks at, with live patch ones
        (``flags & SHF_RELA_LIVEPATCH``); ``info`` is the section they are for. Raises ElfError for
        SHT_REL, when it comes to one."""
        for section in self.sections[1:]:
            if section.info >= len(self.sections):
                continue
            if not self.sections[section.info].flags & SHF_ALLOC:
                continue
            if section.flags & SHF_RELA_LIVEPATCH or section.type == SHT_RELA:
                yield section
            elif section.type == SHT_REL:
                _refuse(f"module {self.name}: REL relocation unsupported")

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """What is in a section of relocations."""
        whole = len(section.data) // _RELA.size * _RELA.size
        for offset, info, addend in _RELA.iter_unpack(section.data[:whole]):
            yield Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)


def _name(table: bytes, offset: int) -> str | None:
    """A string in a string table, None when it is not all there."""
    end = table.find(b"\0", offset, offset + _KSYM_NAME_LEN)
    return _decode(table[offset:end]) if end >= 0 else None


def _validity_check(data: bytes) -> tuple[list[_Header], bytes]:
    """``elf_validity_check``; returns the section headers and the section names."""
    length = len(data)
    if length < _EHDR.size:
        _refuse(f"Invalid ELF header len {length}")
    magic, e_type, machine, _, _, _, shoff, _, _, _, _, shentsize, shnum, shstrndx = (
        _EHDR.unpack_from(data)
    )
    if magic != b"\x7fELF":
        _refuse("Invalid ELF header magic: != \x7fELF")
    if e_type != ET_REL:
        _refuse(f"Invalid ELF header type: {e_type} != {ET_REL}")
    if machine != EM_X86_64:
        _refuse(f"Invalid architecture in ELF header: {machine}")
    if shentsize != _SHDR.size:
        _refuse("Invalid ELF section header size")
    if shoff >= length or shnum * _SHDR.size > length - shoff:
        _refuse("Invalid ELF section header overflow")
    if shstrndx == SHN_UNDEF or shstrndx >= shnum:
        _refuse(
            f"Invalid ELF section name index: {shstrndx} || e_shstrndx ({shstrndx}) >= "
            f"e_shnum ({shnum})"
        )
    table = memoryview(data)[shoff : shoff + shnum * _SHDR.size]
    headers = [_Header(*fields) for fields in _SHDR.iter_unpack(table)]

    def within(header: _Header) -> bool:
        return header.offset + header.size <= length

    strings = headers[shstrndx]
    if not within(strings):
        _refuse(f"Invalid ELF section hdr(type {strings.type})")
    if not strings.size:
        _refuse("empty section name table")
    names = data[strings.offset : strings.offset + strings.size]
    if names[-1]:
        _refuse("ELF Spec violation: section name table isn't null terminated")
    first = headers[0]
    if first.type != SHT_NULL or first.size or first.addr:
        _refuse(
            f"ELF Spec violation: section 0 type({_int(first.type)})!=SH_NULL or non-zero len or "
            "addr"
        )
    for i, header in enumerate(headers[1:], 1):
        if header.type in (SHT_NULL, SHT_NOBITS):
            continue
        if header.type == SHT_SYMTAB and (header.link == SHN_UNDEF or header.link >= shnum):
            link = _int(header.link)
            _refuse(
                f"Invalid ELF sh_link!=SHN_UNDEF({link}) or (sh_link({link}) >= "
                f"hdr->e_shnum({shnum})"
            )
        if not within(header):
            _refuse(f"Invalid ELF section in module (section {i} type {header.type})")
        if header.flags & SHF_ALLOC and header.name >= strings.size:
            _refuse(f"Invalid ELF section name in module (section {i} type {header.type})")
    return headers, names


def _int(value: int) -> int:
    """A 32-bit number as ``%d`` prints it."""
    return value - (1 << 32) if value >> 31 else value


# -- layout ---------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One of the two pieces of memory of a module (``struct module_layout``), in bytes.

    Each size counts from the start and is a multiple of the page size: text, then read-only data,
    then data that is read-only after init, then the rest.
    """

    size: int = 0
    text_size: int = 0
    ro_size: int = 0
    ro_after_init_size: int = 0


class Place(NamedTuple):
    """Where a section goes: so many bytes into the core part, or the init part."""

    init: bool
    offset: int


class Layout(NamedTuple):
    """Where everything goes. ``places`` is by section index."""

    core: Part
    init: Part
    places: dict[int, Place]


def layout(image: ModuleImage, *, kallsyms: bool = True) -> Layout:
    """Place the sections as ``layout_sections`` does; with ``kallsyms`` also the symbols that the
    kernel keeps behind them (``layout_symtab``), so that the sizes are the kernel's.

    Raises ElfError: ENOEXEC for a section that is writable and executable
    (``module_enforce_rwx_sections``), ENOMEM for more than fits into the module area.
    """
    for section in image.sections:
        if section.flags & (both := SHF_WRITE | SHF_EXECINSTR) == both:
            _refuse(
                f"{image.name}: section {section.name} (index {section.index}) has invalid "
                "WRITE|EXEC flags"
            )
        if section.flags & SHF_ALLOC and section.addralign & (section.addralign - 1):
            _refuse(
                f"{image.name}: section {section.name} (index {section.index}) has invalid "
                f"alignment {section.addralign}"
            )
    places: dict[int, Place] = {}
    core = _layout_part(image, False, places)
    init = _layout_part(image, True, places)
    if kallsyms:
        core, init = _layout_symtab(image, core, init)
    for part in (core, init):
        if part.size > MODULES_END - MODULES_VADDR:
            raise ElfError(
                errno.ENOMEM, f"{image.name}: vmalloc error: size {part.size}, exceeds total pages"
            )
    return Layout(core, init, places)


def _layout_part(image: ModuleImage, init: bool, places: dict[int, Place]) -> Part:
    masks = (
        (SHF_EXECINSTR | SHF_ALLOC, 0),
        (SHF_ALLOC, SHF_WRITE),
        (SHF_RO_AFTER_INIT | SHF_ALLOC, 0),
        (SHF_WRITE | SHF_ALLOC, 0),
    )
    size, ends = 0, []
    for wanted, unwanted in masks:
        for section in image.sections:
            if (
                section.flags & wanted != wanted
                or section.flags & unwanted
                or section.index in places
                or section.is_init != init
            ):
                continue
            offset = _align(size, section.addralign)
            places[section.index] = Place(init, offset)
            size = offset + section.size
        if not (init and wanted & SHF_RO_AFTER_INIT):  # all of it goes after init
            size = page_align(size)
        ends.append(size)
    text, ro, ro_after_init, size = ends
    return Part(size, text, ro, ro if init else ro_after_init)


def _layout_symtab(image: ModuleImage, core: Part, init: Part) -> tuple[Part, Part]:
    symtab = image.sections[image.symtab]
    strtab = image.sections[symtab.link]
    kept = [i for i in range(len(image.symbols)) if image.is_core(i)]
    names = sum(len(image.symbols[i].name.encode("utf-8", "surrogateescape")) + 1 for i in kept)
    size = _align(core.size, symtab.addralign) + len(kept) * (_SYM.size + 1) + names
    core = core._replace(size=page_align(size))
    size = _align(init.size, symtab.addralign) + symtab.size
    size = _align(_align(size, strtab.addralign) + strtab.size, 8)
    size += _MOD_KALLSYMS_SIZE + len(image.symbols)
    return core, init._replace(size=page_align(size))


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to if to else value


# -- relocations ----------------------------------------------------------------------------------

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]

# By type: how many bytes are written, and whether relative to their place.
_RELOCATIONS = {
    R_X86_64_64: (8, False),
    R_X86_64_32: (4, False),
    R_X86_64_32S: (4, False),
    R_X86_64_PC32: (4, True),
    R_X86_64_PLT32: (4, True),
    R_X86_64_PC64: (8, True),
}


def apply_relocations(
    name: str,
    relocations: Iterable[Relocation],
    values: Sequence[int],
    base: int,
    size: int,
    read: Read,
    write: Write,
) -> None:
    """Relocate one section of module ``name``, which is at ``base`` and ``size`` bytes long.

    ``values`` are the final values of the symbols by their index. What was written before a
    relocation that cannot be applied stays, as in the kernel. Raises ElfError.
    """
    for type, at, width, value in _resolved(name, relocations, values, base, size):
        if any(read(at, width)):
            _refuse(
                "module: x86/modules: Skipping invalid relocation target, existing value is "
                f"nonzero for type {type}, loc (____ptrval____), val {value:x}"
            )
        write(at, (value & (1 << width * 8) - 1).to_bytes(width, "little"))
        if (type == R_X86_64_32 and value >> 32) or (
            type == R_X86_64_32S and 0x7FFFFFFF < value < 0xFFFFFFFF80000000
        ):
            _refuse(
                f"module: overflow in relocation type {type} val {value:x}",
                f"module: `{name}' likely not compiled with -mcmodel=kernel",
            )


def clear_relocations(
    name: str,
    relocations: Iterable[Relocation],
    values: Sequence[int],
    base: int,
    size: int,
    read: Read,
    write: Write,
) -> None:
    """Take back what `apply_relocations` wrote, so that it can be applied again
    (``clear_relocate_add``, which x86 has since 6.3). Raises ElfError."""
    for type, at, width, value in _resolved(name, relocations, values, base, size):
        if read(at, width) != (value & (1 << width * 8) - 1).to_bytes(width, "little"):
            _refuse(
                "module: x86/modules: Invalid relocation target, existing value does not match "
                f"expected value for type {type}, loc (____ptrval____), val {value:x}",
                level=_KERN_WARNING,
            )
        write(at, bytes(width))


def _resolved(
    name: str, relocations: Iterable[Relocation], values: Sequence[int], base: int, size: int
) -> Iterator[tuple[int, int, int, int]]:
    """Type, address, width in bytes and 64-bit value of each relocation that writes something."""
    for offset, type, symbol, addend in relocations:
        if type == R_X86_64_NONE:
            continue
        if type not in _RELOCATIONS:
            _refuse(f"module: {name}: Unknown rela relocation: {type}")
        width, relative = _RELOCATIONS[type]
        if symbol >= len(values) or offset + width > size:
            _refuse(f"module: {name}: relocation of type {type} outside of its section")
        at = base + offset
        yield type, at, width, (values[symbol] + addend - (at if relative else 0)) & _U64
