# SPDX-License-Identifier: GPL-2.0-or-later
"""The relocation of a module's sections: arch/x86/kernel/module.c."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from klpfs.machine.elf.errors import KERN_WARNING, refuse
from klpfs.machine.elf.format import (
    R_X86_64_32,
    R_X86_64_32S,
    R_X86_64_64,
    R_X86_64_NONE,
    R_X86_64_PC32,
    R_X86_64_PC64,
    R_X86_64_PLT32,
)
from klpfs.machine.elf.module import Relocation

_U64 = (1 << 64) - 1

Read = Callable[[int, int], bytes]
"""A function that returns so many bytes at an address."""
Write = Callable[[int, bytes], None]
"""A function that stores bytes at an address."""

# For each type: the number of bytes written, and whether the value is relative to the place.
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
    """Relocate a section of module ``name`` (``apply_relocate_add``).

    The section has ``size`` bytes at ``base``. ``values`` are the addresses of the symbols, by
    symbol index. Raise ElfError for a relocation that cannot be applied. Those before it stay
    applied, as in the kernel.
    """
    for type, at, width, value in _resolved(name, relocations, values, base, size):
        if any(read(at, width)):
            refuse(
                "module: x86/modules: Skipping invalid relocation target, existing value is "
                f"nonzero for type {type}, loc (____ptrval____), val {value:x}"
            )
        write(at, (value & (1 << width * 8) - 1).to_bytes(width, "little"))
        if (type == R_X86_64_32 and value >> 32) or (
            type == R_X86_64_32S and 0x7FFFFFFF < value < 0xFFFFFFFF80000000
        ):
            refuse(
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
    """Undo `apply_relocations`, so that the relocations can be applied again.

    This is ``clear_relocate_add``, which x86 has since 6.3. Raise ElfError if something else was
    written to a place since.
    """
    for type, at, width, value in _resolved(name, relocations, values, base, size):
        if read(at, width) != (value & (1 << width * 8) - 1).to_bytes(width, "little"):
            refuse(
                "module: x86/modules: Invalid relocation target, existing value does not match "
                f"expected value for type {type}, loc (____ptrval____), val {value:x}",
                level=KERN_WARNING,
            )
        write(at, bytes(width))


def _resolved(
    name: str, relocations: Iterable[Relocation], values: Sequence[int], base: int, size: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, address, width in bytes and 64-bit value of each relocation but R_X86_64_NONE."""
    for offset, type, symbol, addend in relocations:
        if type == R_X86_64_NONE:
            continue
        if type not in _RELOCATIONS:
            refuse(f"module: {name}: Unknown rela relocation: {type}")
        width, relative = _RELOCATIONS[type]
        if symbol >= len(values) or offset + width > size:
            refuse(f"module: {name}: relocation of type {type} outside of its section")
        at = base + offset
        yield type, at, width, (values[symbol] + addend - (at if relative else 0)) & _U64
