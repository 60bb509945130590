# SPDX-License-Identifier: GPL-2.0-or-later
"""The step between the compilation and the last link of modules: scripts/mod/modpost.c.

It reads the symbols and the modinfo of each module's object, and writes the second source of the
module: its ``struct module`` and the modinfo that the build adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_EXPORT = "__ksymtab_"


class Object(NamedTuple):
    """The object file of a module. Symbols are in the order of the symbol table."""

    name: str
    """The name of the module's file without the suffix."""
    defined: frozenset[str]
    undefined: tuple[str, ...]
    exported: frozenset[str]
    modinfo: tuple[tuple[str, str], ...]

    @property
    def modname(self) -> str:
        """The name of the module in the kernel (KBUILD_MODNAME)."""
        return modname(self.name)


def modname(name: str) -> str:
    """Return the name in the kernel of a module whose file is ``name``.ko (KBUILD_MODNAME)."""
    return name.replace("-", "_").replace(",", "_")


def parse_modinfo(section: bytes) -> tuple[tuple[str, str], ...]:
    """Return the ``tag=value`` strings of a .modinfo section, in order."""
    strings = (entry.decode(errors="replace") for entry in section.split(b"\0") if entry)
    return tuple((tag, value) for tag, _, value in (string.partition("=") for string in strings))


def read(name: str, path: Path) -> Object:
    """Read the object file of the module ``name``. Raise OSError."""
    # Imported on first use: most users of kbuild, which imports this file, build nothing.
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
    """Return the errors that modpost reports for modules that are built together, a line each."""
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
    """Return the names of the modules in ``together`` whose symbols ``module`` uses."""
    exporters = {symbol: other.modname for other in together for symbol in other.exported}
    needed = (exporters.get(symbol) for symbol in module.undefined)
    return list(dict.fromkeys(name for name in needed if name and name != module.modname))


def source(module: Object, together: Sequence[Object]) -> str:
    """Return the text of NAME.mod.c, the second source file of ``module``."""
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
