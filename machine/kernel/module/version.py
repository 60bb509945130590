# SPDX-License-Identifier: GPL-2.0-or-later
"""Does a module mean the same by a symbol as the kernel? CONFIG_MODVERSIONS, kernel/module/version.c.

A checksum of all types that a symbol's declaration reaches is kept beside each export (``__kcrctab``), and in
the module (``__versions``) for each symbol that it uses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from klpfs.machine.elf import ModuleImage
from klpfs.machine.image import Export

_ENTRY = struct.Struct("<Q56s")  # struct modversion_info

Say = Callable[[str], None]


class ModVersions:
    """What one module expects of the symbols that it uses."""

    def __init__(self, elf: ModuleImage, *, ignore: bool, say: Say, force: Say) -> None:
        """``ignore``: as if the module had none (``modprobe --force-modversion``). ``say`` logs a
        warning; ``force`` taints the kernel for a module that is not checked, and says why."""
        section = None if ignore else elf.find_any("__versions")
        self._name = elf.name
        self._say, self._force = say, force
        self._crcs: dict[str, int] | None = None
        if section is not None:
            data = bytes(section.data)
            self._crcs = {}
            for crc, name in _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]):
                symbol = name.split(b"\0")[0].decode("utf-8", "surrogateescape")
                self._crcs.setdefault(symbol, crc)

    @property
    def present(self) -> bool:
        """Whether the module has checksums; then the release in its vermagic does not count."""
        return self._crcs is not None

    def same_magic(self, ours: str, theirs: str) -> bool:
        """Whether two vermagics agree."""
        if self.present:
            ours, theirs = ours.partition(" ")[2], theirs.partition(" ")[2]
        return ours == theirs

    def agree(self, symbol: str, export: Export) -> bool:
        """``check_version``: False, after a line in the log, if the module means another symbol."""
        if export.crc is None:
            return True
        if self._crcs is None:
            self._force(f"{self._name}: {symbol}: kernel tainted.")
            return True
        crc = self._crcs.get(symbol)
        if crc is None:
            self._say(f"{self._name}: no symbol version for {symbol}")
        elif crc != export.crc:
            self._say(f"{self._name}: disagrees about version of symbol {symbol}")
        return crc == export.crc
