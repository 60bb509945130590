# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of a module's file against a kernel, before the module is loaded."""

from __future__ import annotations

from klpfs.checking.report import Report, Verdict
from klpfs.machine.elf import SHN_UNDEF, STB_WEAK, ModuleImage
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.module.load import IGNORED_SECTIONS
from klpfs.machine.kernel.module.version import ModVersions


def check_vermagic(kernel: Kernel, elf: ModuleImage, report: Report) -> None:
    """Compare the version magic of the module and of the kernel."""
    ours, theirs = kernel.image.vermagic, elf.modinfo.get("vermagic") or ""
    if not _versions(elf, []).same_magic(ours, theirs):
        detail = f"the module is built for '{theirs.strip()}', the kernel is '{ours.strip()}'"
        report.add("vermagic", Verdict.BAD, detail)
    elif theirs.split()[:1] != ours.split()[:1]:
        report.add(
            "vermagic", Verdict.UNKNOWN,
            f"the module is built for {theirs.split()[0]}, the kernel is {ours.split()[0]}: it may "
            "load, as it has symbol versions, but the functions that it replaces may have changed",
        )  # fmt: skip
    else:
        report.add("vermagic", Verdict.GOOD, theirs.strip())


def check_imports(kernel: Kernel, elf: ModuleImage, report: Report) -> None:
    """Check that the module's undefined symbols are exported, with the versions that it expects.

    Note those that klpfs implements in Python.
    """
    messages: list[str] = []
    versions = _versions(elf, messages)
    loaded = {name: export for module in kernel.modules for name, export in module.exports.items()}
    imports = [symbol for symbol in elf.symbols if symbol.shndx == SHN_UNDEF and symbol.name]
    missing = [
        symbol.name
        for symbol in imports
        if symbol.name not in kernel.exports
        and symbol.name not in loaded
        and symbol.bind != STB_WEAK
    ]
    agreeing = [
        versions.check_version(symbol.name, kernel.exports[symbol.name])
        for symbol in imports
        if symbol.name in kernel.exports
    ]
    if missing:
        report.add("symbols", Verdict.BAD, f"not exported: {', '.join(sorted(missing))}")
    else:
        report.add("symbols", Verdict.GOOD, f"{len(imports)} imported, all exported")
    if not all(agreeing):
        report.add("modversions", Verdict.BAD, "; ".join(messages))
    elif versions.present:
        report.add("modversions", Verdict.GOOD, f"{len(agreeing)} agree")
    implemented = sorted({symbol.name for symbol in imports} & kernel.services.bound)
    if implemented:
        detail = f"klpfs implements {', '.join(implemented)} instead of the kernel"
        report.add("replacements", Verdict.NOTE, detail)


def check_sections(elf: ModuleImage, report: Report) -> None:
    """Note the sections that only a booted kernel processes."""
    ignored = {section.name for section in elf.sections if section.size} & IGNORED_SECTIONS
    if ignored:
        detail = f"ignored, for subsystems that do not run in klpfs: {', '.join(sorted(ignored))}"
        report.add("sections", Verdict.NOTE, detail)


def _versions(elf: ModuleImage, messages: list[str]) -> ModVersions:
    """Return the module's symbol versions; disagreements are appended to ``messages``."""
    return ModVersions(elf, ignore=False, warn=messages.append, force=messages.append)
