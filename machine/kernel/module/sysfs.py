# SPDX-License-Identifier: GPL-2.0-or-later
"""/sys/module/<name>: state, sections and parameters of a module. kernel/module/sysfs.c, kernel/params.c."""

from __future__ import annotations

import errno
import re
from contextlib import suppress

from klpfs.machine.elf import SHF_ALLOC, SHT_NOTE, Section
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject, KobjectTree
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.module.params import Params
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber
from klpfs.machine.kernel.oops.taint import module_taint_letters
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.wait import ActiveReferences
from klpfs.machine.structs import Struct

_STATES = ("live", "coming", "going")
_UEVENT_ACTION = re.compile(rb"(add|remove|change|move|online|offline|bind|unbind)(?![^ \n\0])")
_UUID = rb"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_UEVENT = re.compile(
    _UEVENT_ACTION.pattern + rb"( " + _UUID + rb"( [0-9A-Za-z]+=[0-9A-Za-z]+)*)?[\n\0]?"
)
"""Documentation/ABI/testing/sysfs-uevent."""
_SECTION_SIZE = 19
"""Bytes of an address and a newline, MODULE_SECT_READ_SIZE."""


class ModuleSysfs:
    """Creates and removes the directories of modules in sysfs."""

    def __init__(self, base: Base, *, params: Params, kobjects: KobjectTree) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._printk = base.printk
        self._params = params
        self._root = kobjects.at(("module",))
        self._kobjects: dict[str, Kobject] = {}

    def subscriber(self) -> ModuleSubscriber:
        """Return the subscriber that creates and removes the directory of a module."""
        return ModuleSubscriber(coming=self.add, freed=self.remove)

    def add(self, module: LoadedModule) -> None:
        """``mod_sysfs_setup``."""
        kobject = Kobject(module.name, self._attributes(module))
        params = [param for param in module.params(self._space) if param.perm]
        if params:
            files = [self._parameter(param, module.params_in_use) for param in params]
            parameters = Kobject("parameters", files)
            self._add(kobject, parameters, module.name)
        kobject.add(Kobject("holders"))
        sections = [self._section(n, a) for n, a in module.section_addresses]
        notes = [_note(section) for section in module.elf.sections if _is_note(section)]
        for group in [Kobject("sections", sections), *([Kobject("notes", notes)] if notes else [])]:
            with suppress(OSError):  # as add_sect_attrs(): a bad section name is no reason to fail
                kobject.add(group)
        self._kobjects[module.name] = self._add(self._root, kobject, module.name)
        for owner in module.uses:
            holders = self._kobjects[owner.name].children["holders"]
            holders.link(module.name, kobject)

    def _add(self, parent: Kobject, kobject: Kobject, module: str) -> Kobject:
        try:
            return parent.add(kobject)
        except OSError as error:
            self._printk(LOGLEVEL_ERR, f"{module}: sysfs: {error.strerror}")
            raise

    async def remove(self, module: LoadedModule) -> None:
        """``mod_sysfs_teardown``. The current task waits until no task reads or writes a parameter of the
        module (``kernfs_drain``)."""
        kobject = self._kobjects.pop(module.name, None)
        if kobject is None:
            return
        for owner in module.uses:
            if owner.name in self._kobjects:
                self._kobjects[owner.name].children["holders"].unlink(module.name)
        kobject.delete()
        await module.params_in_use.drain(self._sched.current)

    def _attributes(self, module: LoadedModule) -> list[KobjAttribute]:
        struct = module.struct

        def coresize() -> str:
            return f"{struct.core_layout.size}\n"

        def initsize() -> str:
            return f"{struct.init_layout.size}\n"

        def initstate() -> str:
            state = struct.state
            return f"{_STATES[state] if state < len(_STATES) else 'unknown'}\n"

        def refcnt() -> str:
            return f"{module.refcount}\n"

        def taint() -> str:
            return f"{module_taint_letters(int(struct.taints))}\n"

        async def uevent(data: bytes) -> None:
            # kobject_synth_uevent(), lib/kobject_uevent.c. There are no listeners for uevents here, so
            # the input is only checked.
            if not _UEVENT.fullmatch(data):
                action = _UEVENT_ACTION.match(data)
                what = (
                    "incorrect uevent action arguments"
                    if action
                    else "unknown uevent action string"
                )
                self._printk(LOGLEVEL_WARNING, f"synth uevent: /module/{module.name}: {what}")
                raise OSError(errno.EINVAL, what)

        attributes = [
            KobjAttribute("coresize", coresize),
            KobjAttribute("initsize", initsize),
            KobjAttribute("initstate", initstate),
            KobjAttribute("refcnt", refcnt),
            KobjAttribute("taint", taint),
            KobjAttribute("uevent", None, uevent),
        ]
        for name in ("version", "srcversion"):
            text = module.modinfo(name)
            if text is not None:
                attributes.append(_constant(name, f"{text}\n", 0o444))
        return attributes

    def _section(self, name: str, address: int) -> KobjAttribute:
        return _constant(name, f"{address:#018x}\n", 0o400, _SECTION_SIZE)

    def _parameter(self, param: Struct, in_use: ActiveReferences) -> KobjAttribute:
        params = self._params

        async def show() -> str:
            with in_use.hold():
                return await params.get(param)

        async def store(data: bytes) -> None:
            value = data.split(b"\0")[0].decode("utf-8", "surrogateescape")
            with in_use.hold():
                await params.set(param, value)

        mode = param.perm
        return KobjAttribute(
            param.name.string(),
            show if mode & 0o444 else None,
            store if mode & 0o222 else None,
            mode & 0o777,
        )


def _constant(name: str, text: str, mode: int, size: int | None = None) -> KobjAttribute:
    return KobjAttribute(name, lambda: text, mode=mode, size=size)


def _is_note(section: Section) -> bool:
    return section.type == SHT_NOTE and bool(section.flags & SHF_ALLOC) and section.size > 0


def _note(section: Section) -> KobjAttribute:
    """``add_notes_attrs``: return the file of a note section, with its content."""
    text = bytes(section.data).decode("utf-8", "surrogateescape")
    return _constant(section.name, text, 0o444, section.size)
