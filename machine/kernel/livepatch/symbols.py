# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the functions that a patch names. kernel/livepatch/core.c."""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.common import Common


class Symbols:
    """Looks up symbols of vmlinux and of modules."""

    def __init__(self, common: Common) -> None:
        self._symbols = common.base.computer.symbols
        self._messages = common.messages
        self._abi = common.abi

    def klp_find_object_symbol(self, objname: str | None, name: str, sympos: int) -> int:
        """Return the address of the ``sympos``-th symbol ``name`` of an object (None: vmlinux); with 0 it
        must be the only one. Raises OSError(EINVAL), after a log line.

        ``klp_find_callback``, which the kernel calls for each symbol, is ``all_named`` here.
        """
        addresses = self._symbols.all_named(name, objname)
        if not addresses:
            self._messages.pr_err(f"symbol '{name}' not found in symbol table")
        elif len(addresses) > 1 and not sympos:
            self._messages.pr_err(
                self._abi.ambiguity.format(
                    name=name, object=objname or "(null)", count=len(addresses)
                )
            )
        elif sympos > len(addresses):
            self._messages.pr_err(
                f"symbol position {sympos} for symbol '{name}' in object "
                f"'{objname or 'vmlinux'}' not found"
            )
        else:
            return addresses[max(sympos, 1) - 1]
        raise OSError(errno.EINVAL, f"cannot resolve {name}")

    def lookup_size(self, address: int, what: str) -> int:
        """Return the size in bytes of the function at ``address`` (``kallsyms_lookup_size_offset``). Raises
        OSError(ENOENT), after a log line about ``what``."""
        found = self._symbols.lookup_address(address)
        if found is None:
            self._messages.pr_err(f"kallsyms size lookup failed for {what}")
            raise OSError(errno.ENOENT, "no size")
        return found[0].size
