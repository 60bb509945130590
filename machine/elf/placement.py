# SPDX-License-Identifier: GPL-2.0-or-later
"""The layout of a module in memory: ``layout_sections``, ``layout_symtab`` in kernel/module/."""

from __future__ import annotations

import errno
from typing import NamedTuple

from klpfs.machine.elf.errors import ElfError, refuse
from klpfs.machine.elf.format import SHF_ALLOC, SHF_EXECINSTR, SHF_RO_AFTER_INIT, SHF_WRITE, SYM
from klpfs.machine.elf.module import ModuleImage
from klpfs.machine.memory import MODULES_END, MODULES_VADDR, page_align

_MOD_KALLSYMS_SIZE = 32  # struct mod_kallsyms: three pointers and a count


class Part(NamedTuple):
    """One of the two pieces of memory of a module (``struct module_layout``), in bytes.

    The order is text, read-only data, data that is read-only after init, other data. Each size
    counts from the start of the part and is a multiple of the page size.
    """

    size: int = 0
    text_size: int = 0
    ro_size: int = 0
    ro_after_init_size: int = 0


class Place(NamedTuple):
    """The place of a section: its offset in bytes in the init part or the core part."""

    init: bool
    offset: int


class Layout(NamedTuple):
    """The layout of a module. ``places`` is by section index."""

    core: Part
    init: Part
    places: dict[int, Place]


def layout(image: ModuleImage, *, kallsyms: bool = True) -> Layout:
    """Place the sections of a module.

    With ``kallsyms`` the sizes include the symbols that the kernel keeps behind the sections.

    Raise ElfError: ENOEXEC for a section that is writable and executable
    (``module_enforce_rwx_sections``) or that has an invalid alignment, ENOMEM for a module that is
    larger than the module area.
    """
    for section in image.sections:
        if section.flags & (both := SHF_WRITE | SHF_EXECINSTR) == both:
            refuse(
                f"{image.name}: section {section.name} (index {section.index}) has invalid "
                "WRITE|EXEC flags"
            )
        if section.flags & SHF_ALLOC and section.addralign & (section.addralign - 1):
            refuse(
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
        if not (init and wanted & SHF_RO_AFTER_INIT):  # the init part is freed after init
            size = page_align(size)
        ends.append(size)
    text, ro, ro_after_init, size = ends
    return Part(size, text, ro, ro if init else ro_after_init)


def _layout_symtab(image: ModuleImage, core: Part, init: Part) -> tuple[Part, Part]:
    symtab = image.sections[image.symtab]
    strtab = image.sections[symtab.link]
    core_symbols = [symbol for i, symbol in enumerate(image.symbols) if image.is_core(i)]
    names = sum(len(symbol.name.encode("utf-8", "surrogateescape")) + 1 for symbol in core_symbols)
    size = _align(core.size, symtab.addralign) + len(core_symbols) * (SYM.size + 1) + names
    core = core._replace(size=page_align(size))
    size = _align(init.size, symtab.addralign) + symtab.size
    size = _align(_align(size, strtab.addralign) + strtab.size, 8)
    size += _MOD_KALLSYMS_SIZE + len(image.symbols)
    return core, init._replace(size=page_align(size))


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to if to else value
