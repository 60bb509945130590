# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of a module file: ELF format, versions, modinfo and signature. A module may taint the kernel.
kernel/module/main.c, kernel/module/signing.c."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from klpfs.machine.elf import ModuleImage
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.errors import elf_errors_logged
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.module.version import ModVersions
from klpfs.machine.kernel.oops.taint import Taint
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_NOTICE, LOGLEVEL_WARNING

IGNORE_MODVERSIONS, IGNORE_VERMAGIC = 1, 2
"""Flags of finit_module(2), include/uapi/linux/module.h."""

_MAKES_LOCKDEP_UNRELIABLE = {Taint.FORCED_MODULE, Taint.PROPRIETARY_MODULE}


@dataclass(frozen=True, kw_only=True)
class LivepatchSupport:
    """What the module loader needs to know about live patching in this kernel."""

    enabled: bool = True
    """True if the kernel has live patching (CONFIG_LIVEPATCH)."""
    marked: bool = True
    """True if a live patch says in its modinfo that it is one (since 4.7)."""


class ModuleChecks:
    """Checks the files of modules for one kernel. ``smp`` is `ModulePerCpu.smp`."""

    def __init__(self, base: Base, *, livepatch: LivepatchSupport, smp: bool) -> None:
        self._computer = base.computer
        self._printk = base.printk
        self._tainted = base.tainted
        self._livepatch = livepatch
        self._smp = smp

    def read(self, data: bytes, arguments: str, flags: int) -> LoadedModule:
        """``elf_validity_check``, ``check_modinfo``: check the ELF format, vermagic and modinfo of a file.
        Raises OSError after logging the reason."""
        with elf_errors_logged(self._printk):
            module = LoadedModule(ModuleImage.parse(data, smp=self._smp), arguments)
        self._check_versions(module, flags)
        self._check_vermagic(module, flags)
        if module.modinfo("intree") is None:
            self._taint(
                module,
                Taint.OOT_MODULE,
                f"{module.name}: loading out-of-tree module taints kernel.",
            )
        if module.modinfo("staging") is not None:
            self._taint(
                module,
                Taint.CRAP,
                f"{module.name}: module is from the staging directory, the quality is unknown, you "
                "have been warned.",
            )
        if module.elf.is_livepatch and self._livepatch.marked:
            self._check_livepatch(module)
        if not module.is_gpl:
            licence = module.modinfo("license") or "unspecified"
            self._taint(
                module,
                Taint.PROPRIETARY_MODULE,
                f"{module.name}: module license '{licence}' taints kernel.",
            )
        return module

    def _taint(
        self, module: LoadedModule, flag: Taint, message: str, level: int = LOGLEVEL_WARNING
    ) -> None:
        """``add_taint_module``. The message is logged only if the kernel does not have this taint yet."""
        if not self._tainted.mask >> flag & 1:
            self._printk(level, message)
        self._tainted.add(flag, lockdep_ok=flag not in _MAKES_LOCKDEP_UNRELIABLE)
        module.taints |= 1 << flag

    def _check_livepatch(self, module: LoadedModule) -> None:
        """``check_modinfo_livepatch``."""
        if not self._livepatch.enabled:
            self._printk(
                LOGLEVEL_ERR,
                f"{module.name}: module is marked as livepatch module, but livepatch support is "
                "disabled",
            )
            raise OSError(errno.ENOEXEC, "no livepatch support")
        module.taints |= 1 << Taint.LIVEPATCH
        self._tainted.add(Taint.LIVEPATCH)
        message = f"{module.name}: tainting kernel with TAINT_LIVEPATCH"
        self._printk.once("check_modinfo_livepatch", LOGLEVEL_NOTICE, message)

    def _check_versions(self, module: LoadedModule, flags: int) -> None:
        """``check_modstruct_version``: check that the module was built with the structs of this kernel.
        Raises OSError(ENOEXEC)."""
        module.versions = ModVersions(
            module.elf,
            ignore=bool(flags & IGNORE_MODVERSIONS),
            warn=lambda line: self._printk(LOGLEVEL_WARNING, line),
            force=lambda line: self._taint(module, Taint.FORCED_MODULE, line),
        )
        export = self._computer.image.exports.get("module_layout")
        if export is not None and not module.versions.check_version("module_layout", export):
            raise OSError(errno.ENOEXEC, "module_layout")

    def _check_vermagic(self, module: LoadedModule, flags: int) -> None:
        """``check_modinfo``: compare the vermagic with that of the kernel. Raises OSError(ENOEXEC)."""
        wanted = self._computer.image.vermagic
        magic = None if flags & IGNORE_VERMAGIC else module.modinfo("vermagic")
        if magic is None:
            self._taint(
                module, Taint.FORCED_MODULE, f"{module.name}: bad vermagic: kernel tainted."
            )
        elif not module.versions.same_magic(wanted, magic):
            self._printk(
                LOGLEVEL_ERR, f"{module.name}: version magic '{magic}' should be '{wanted}'"
            )
            raise OSError(errno.ENOEXEC, "version magic")

    def module_sig_check(self, module: LoadedModule) -> None:
        """``module_sig_check``. No signature can be verified, because there are no keys here: each module
        taints a kernel that supports signatures."""
        if self._computer.adapter.find("module.sig_ok") is not None:
            self._taint(
                module,
                Taint.UNSIGNED_MODULE,
                f"{module.name}: module verification failed: signature and/or required key missing "
                "- tainting kernel",
                LOGLEVEL_NOTICE,
            )
