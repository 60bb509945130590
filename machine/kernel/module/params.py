# SPDX-License-Identifier: GPL-2.0-or-later
"""Module parameters, read and written with the guest's own ``kernel_param_ops``. kernel/params.c."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from klpfs.machine import limits
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.kernel.proc import check
from klpfs.machine.kernel.vsprintf import text
from klpfs.machine.memory import PAGE_SIZE, PageFault
from klpfs.machine.structs import Struct

_FL_NOARG = 1  # KERNEL_PARAM_OPS_FL_NOARG


def next_argument(line: str) -> tuple[str, str | None, str]:
    """``next_arg``, lib/cmdline.c: return name and value of the first ``name=value``, and the rest of the
    line. Quotes protect blanks and are removed. The value is None if there is no ``=``."""
    quoted, equals, i = False, -1, 0
    for i, c in enumerate(line):
        if c in " \t\n" and not quoted:
            break
        if c == "=" and equals < 0:
            equals = i
        if c == '"':
            quoted = not quoted
    else:
        i = len(line)
    argument, rest = line[:i], line[i:].lstrip()
    if equals <= 0:
        return argument.strip('"'), None, rest
    name, value = argument[:equals], argument[equals + 1 :]
    if name.startswith('"'):
        return name[1:], value.removesuffix('"'), rest
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return name, value, rest


class InvalidValue(OSError):
    """A parameter rejects a value. ``value`` is what is left of its text in memory: the parser of arrays
    overwrites the commas."""

    def __init__(self, number: int, value: str) -> None:
        super().__init__(number, "not a value of this parameter")
        self.value = value


class Params:
    """Sets and gets the parameters (``struct kernel_param``) of modules."""

    def __init__(self, base: Base, dyndbg: DynamicDebug) -> None:
        self._computer = base.computer
        self._sched = base.sched
        self._slab = base.slab
        self._printk = base.printk
        self._dyndbg = dyndbg

    def subscriber(self) -> ModuleSubscriber:
        """Return the subscriber that parses the parameters of a module and frees their values."""
        return ModuleSubscriber(coming=self._coming, freed=self._freed)

    async def _coming(self, module: LoadedModule) -> None:
        params = module.params(self._computer.space)
        await self.parse(module.name, module.arguments, params)

    async def _freed(self, module: LoadedModule) -> None:
        try:
            await self.destroy(module.params(self._computer.space))
        except (PageFault, limits.ListTooLong) as error:
            self._printk(LOGLEVEL_ERR, f"{module.name}: cannot free its parameters: {error}")

    async def parse(self, module: str, line: str, params: Iterable[Struct]) -> None:
        """``parse_args``: set the parameters that are named in ``line``.

        Unknown parameters are logged and ignored. Raises InvalidValue after logging an invalid value.
        """
        by_name = {_canonical(param.name.string()): param for param in params}
        line = line.strip()
        while line:
            name, value, line = next_argument(line)
            if name == "--" and value is None:
                self._printk(LOGLEVEL_WARNING, f"{module}: parameters '{line}' after `--' ignored")
                break
            param = by_name.get(_canonical(name))
            if param is None:
                self._unknown_param(module, name, value)
                continue
            try:
                await self.set(param, value)
            except InvalidValue as error:
                what = "too large" if error.errno == errno.ENOSPC else "invalid"
                self._printk(
                    LOGLEVEL_ERR, f"{module}: `{error.value}' {what} for parameter `{name}'"
                )
                raise

    def _unknown_param(self, module: str, name: str, value: str | None) -> None:
        """``unknown_module_param_cb``: handle ``async_probe`` and ``dyndbg``; warn about other names."""
        if name == "async_probe":
            return
        of_module, dot, rest = name.partition(".")
        if (rest if dot else name) == "dyndbg":
            with suppress(OSError):  # the module is loaded even if the query fails
                self._dyndbg.execute("+p" if value is None else value, of_module if dot else module)
            return
        self._printk(LOGLEVEL_WARNING, f"{module}: unknown parameter '{name}' ignored")

    async def set(self, param: Struct, value: str | None) -> None:
        """``param_attr_store``: call the parameter's ``set``. Raises InvalidValue with the errno that it
        returned; EPERM if it has no ``set``."""
        if value is None and not param.ops.flags & _FL_NOARG:
            raise InvalidValue(errno.EINVAL, "")
        if not param.ops.set:
            raise InvalidValue(errno.EPERM, value or "")
        at = 0
        if value is not None:
            data = value.encode("utf-8", "surrogateescape") + b"\0"
            at = self._slab.alloc(len(data), "parameter")
            self._computer.memory.write(at, data)
        try:
            async with self._locked(param):
                check(await self._sched.current.call(param.ops.set, at, param.address_))
        except OSError as error:
            left = self._computer.space.read_string(at) if at else ""
            raise InvalidValue(error.errno or errno.EINVAL, left) from None
        finally:
            self._slab.free(at)

    async def get(self, param: Struct) -> str:
        """``param_attr_show``, ``sysfs_kf_seq_show``: call the parameter's ``get``. Returns its text with the
        newline, which is shorter than a page: a larger count is logged. Raises OSError with the errno that
        it returned; EPERM if it has no ``get``."""
        if not param.ops.get:
            raise OSError(errno.EPERM, "cannot be read")
        page = self._slab.alloc(PAGE_SIZE, "parameter")
        try:
            async with self._locked(param):
                got = await self._sched.current.call(param.ops.get, page, param.address_)
            size = check(got & 0xFFFFFFFF)  # an int
            if size >> 31:
                raise OSError(errno.EIO, "a count below -MAX_ERRNO")
            if size >= PAGE_SIZE:
                shows = self._computer.symbols.lookup("module_attr_show")
                name = self._computer.symbols.sprint_symbol(shows) if shows else "module_attr_show"
                self._printk(LOGLEVEL_WARNING, f"fill_read_buffer: {name} returned bad count")
                size = PAGE_SIZE - 1
            return text(self._computer.memory.read(page, size))
        finally:
            self._slab.free(page)

    @asynccontextmanager
    async def _locked(self, param: Struct) -> AsyncIterator[None]:
        """Hold ``kernel_param_lock`` of the module. Some ``set`` functions check that it is held."""
        call, symbol = self._sched.current.call, self._computer.symbol
        await call(symbol("kernel_param_lock"), int(param.mod))
        try:
            yield
        finally:
            await call(symbol("kernel_param_unlock"), int(param.mod))

    async def destroy(self, params: Iterable[Struct]) -> None:
        """``destroy_params``: free the memory of the values before the module is freed."""
        for param in params:
            if param.ops.free:
                await self._sched.current.call(param.ops.free, int(param.arg))


def _canonical(name: str) -> str:
    """Return a parameter name with underscores for dashes, which are equal (``parameq``)."""
    return name.replace("-", "_")
