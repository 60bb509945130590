# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbol versions of modules: CONFIG_MODVERSIONS, kernel/module/version.c.

A version is a checksum of all types that the declaration of a symbol depends on. The kernel has one for each
export (``__kcrctab``), and a module one for each symbol that it uses (``__versions``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from klpfs.machine.elf import ModuleImage
from klpfs.machine.image import Export

_ENTRY = struct.Struct("<Q56s")  # struct modversion_info

Report = Callable[[str], None]


class ModVersions:
    """The versions of the symbols that one module uses."""

    def __init__(self, elf: ModuleImage, *, ignore: bool, warn: Report, force: Report) -> None:
        """``ignore``: ignore the versions (``modprobe --force-modversion``). ``warn`` logs a warning.
        ``force`` taints the kernel for a module without versions and logs the reason
        (``try_to_force_load``)."""
        section = None if ignore else elf.find_any("__versions")
        self._name = elf.name
        self._warn, self._force = warn, force
        self._crcs: dict[str, int] | None = None
        if section is not None:
            data = bytes(section.data)
            self._crcs = {}
            for crc, name in _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]):
                symbol = name.split(b"\0")[0].decode("utf-8", "surrogateescape")
                self._crcs.setdefault(symbol, crc)

    @property
    def present(self) -> bool:
        """True if the module has versions. Then the release in its vermagic is not compared."""
        return self._crcs is not None

    def same_magic(self, ours: str, theirs: str) -> bool:
        """``same_magic``: return whether two vermagic strings match."""
        if self.present:
            ours, theirs = ours.partition(" ")[2], theirs.partition(" ")[2]
        return ours == theirs

    def check_version(self, symbol: str, export: Export) -> bool:
        """``check_version``: return False, after logging it, if the module needs another version."""
        if export.crc is None:
            return True
        if self._crcs is None:
            self._force(f"{self._name}: {symbol}: kernel tainted.")
            return True
        crc = self._crcs.get(symbol)
        if crc is None:
            self._warn(f"{self._name}: no symbol version for {symbol}")
        elif crc != export.crc:
            self._warn(f"{self._name}: disagrees about version of symbol {symbol}")
        return crc == export.crc
