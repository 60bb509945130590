# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's modpost does with the compiled modules before their last link.

It reads each module's object for what it defines, needs and says about itself, and writes the second
source of the module: its ``struct module`` and the module information that the build knows.
Follows scripts/mod/modpost.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_EXPORT = "__ksymtab_"


class Object(NamedTuple):
    """A module's object file, as far as modpost looks into it. The names are in symbol table order."""

    name: str
    """Of the module's file, without a suffix."""
    defined: frozenset[str]
    undefined: tuple[str, ...]
    exported: frozenset[str]
    modinfo: tuple[tuple[str, str], ...]

    @property
    def modname(self) -> str:
        """KBUILD_MODNAME: the name that the module has in the kernel."""
        return modname(self.name)


def modname(name: str) -> str:
    """The module's name in the kernel, from that of its file without the suffix."""
    return name.replace("-", "_").replace(",", "_")


def parse_modinfo(section: bytes) -> tuple[tuple[str, str], ...]:
    """The ``tag=value`` strings of a .modinfo section, in their order."""
    strings = (entry.decode(errors="replace") for entry in section.split(b"\0") if entry)
    return tuple((tag, value) for tag, _, value in (string.partition("=") for string in strings))


def read(name: str, path: Path) -> Object:
    """Read the object file of the module ``name``."""
    # Here, because whoever wants to know how modules are compiled imports this too.
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        defined, undefined = [], []
        for symbol in table.iter_symbols():
            if not symbol.name or symbol["st_info"]["type"] == "STT_FILE":
                continue
            if symbol["st_shndx"] != "SHN_UNDEF":
                defined.append(symbol.name)
            elif symbol["st_info"]["bind"] != "STB_WEAK":
                undefined.append(symbol.name)
        modinfo = elf.get_section_by_name(".modinfo")
        return Object(
            name,
            frozenset(defined),
            tuple(undefined),
            frozenset(s.removeprefix(_EXPORT) for s in defined if s.startswith(_EXPORT)),
            parse_modinfo(modinfo.data()) if modinfo is not None else (),
        )


def problems(objects: Iterable[Object]) -> list[str]:
    """What modpost has to say against the modules, a line each."""
    exporters: dict[str, str] = {}
    lines = []
    for module in objects:
        if not any(tag == "license" for tag, _ in module.modinfo):
            lines.append(f"ERROR: modpost: missing MODULE_LICENSE() in {module.name}.o")
        for symbol in sorted(module.exported):
            other = exporters.setdefault(symbol, module.name)
            if other != module.name:
                lines.append(
                    f"ERROR: modpost: {module.name}: '{symbol}' exported twice. "
                    f"Previous export was in {other}.ko"
                )
    return lines


def depends(module: Object, together: Sequence[Object]) -> list[str]:
    """The modules among those built ``together`` that ``module`` takes symbols from."""
    exporters = {symbol: other.modname for other in together for symbol in other.exported}
    needed = (exporters.get(symbol) for symbol in module.undefined)
    return list(dict.fromkeys(name for name in needed if name and name != module.modname))


def source(module: Object, together: Sequence[Object]) -> str:
    """The text of the module's second source file, NAME.mod.c."""
    members = [".name = KBUILD_MODNAME,"]
    if "init_module" in module.defined:
        members.append(".init = init_module,")
    if "cleanup_module" in module.defined:
        members.append(".exit = cleanup_module,")
    members.append(".arch = MODULE_ARCH_INIT,")
    body = "\n".join(f"\t{member}" for member in members)
    return f"""\
#include <linux/module.h>
#include <linux/vermagic.h>

MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(name, KBUILD_MODNAME);

__visible struct module __this_module __section(".gnu.linkonce.this_module") = {{
{body}
}};

MODULE_INFO(depends, "{",".join(depends(module, together))}");
"""
