# SPDX-License-Identifier: GPL-2.0-or-later
"""Python functions that replace functions of the kernel.

A method marked with `service` is called by a trap at the entry of the kernel function of that name. Its
annotations say how to read the argument registers. Its return value goes to RAX, and an OSError becomes
``-errno``. A plain method runs inside the trap and cannot wait. An ``async`` method runs on the guest task
that called the function, and that task waits until the method returns.
"""

from __future__ import annotations

import inspect
import struct
import typing
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypeVar

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import TRAP
from klpfs.machine.image import Symbol
from klpfs.machine.instructions import CALL_SIZE, jump_to
from klpfs.machine.memory import PAGE_SIZE

S32 = Annotated[int, "<i"]
U32 = Annotated[int, "<I"]
S64 = Annotated[int, "<q"]
U64 = Annotated[int, "<Q"]
Ptr = U64
"""A guest address."""
Bool = Annotated[int, "<B"]

_F = TypeVar("_F", bound=Callable[..., Any])
_Provider = TypeVar("_Provider")
_ATTRIBUTE = "_kernel_functions"
_PROLOGUE_OFFSET = 16
"""Offset of a prologue in its page, behind the trap."""


Prologue = Callable[[Computer, int, int], bytes]
"""A function that returns guest code which calls a trap. Its arguments are the computer, the address of the
code, and the address of the trap."""


class Marked(NamedTuple):
    """A kernel function that a method replaces."""

    name: str
    prologue: Prologue | None
    embedded: bool
    """True if the embedded kernel has a stub for it."""


def service(
    *names: str, prologue: Prologue | None = None, embedded: bool = True
) -> Callable[[_F], _F]:
    """Mark a method as the replacement of the kernel functions ``names``.

    With a ``prologue``, the kernel functions run that guest code first. The method gets the arguments that
    the prologue passes to the trap. ``embedded`` is False for functions that the embedded kernel
    (machine/guest/services.S) does not have, or implements in C.
    """

    def mark(method: _F) -> _F:
        marks = [Marked(name, prologue, embedded) for name in names]
        setattr(method, _ATTRIBUTE, (*marks, *getattr(method, _ATTRIBUTE, ())))
        return method

    return mark


def marked(provider: type) -> Iterator[tuple[Marked, str]]:
    """Iterate over the services of a class, and the names of their methods."""
    for attribute, function in inspect.getmembers(provider, inspect.isfunction):
        for mark in getattr(function, _ATTRIBUTE, ()):
            yield mark, attribute


AsyncService = Callable[[], Awaitable[int | None]]


class Services:
    """The services of one machine."""

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._sites = frozenset(computer.image.ftrace_sites)
        self.bound: set[str] = set()
        """Names of the kernel functions that Python replaces."""
        self.async_services: dict[int, AsyncService] = {}
        """The ``async`` services by the address of their trap. Each reads its arguments when it is called,
        and returns an awaitable for the result."""

    def offer(self, provider: _Provider) -> _Provider:
        """Bind each service of ``provider`` whose kernel function is in the image. Returns ``provider``.

        Names that begin with an element of ``provider.native``, if it has that attribute, are not bound:
        the kernel's own function runs. In an image with stubs, only the stubs are bound.
        """
        native: tuple[str, ...] = getattr(provider, "native", ())
        stubs = self._computer.image.stubs
        for mark, attribute in marked(type(provider)):
            address = self._function(mark.name)
            if address is None or mark.name.startswith(native) or stubs and address not in stubs:
                continue
            self._bind(mark, address, getattr(provider, attribute))
        return provider

    def _function(self, name: str) -> int | None:
        """Return the address of the kernel function ``name``. An exported function comes first: a static
        function may have the same name."""
        export = self._computer.image.exports.get(name)
        return export.addr if export is not None else self._computer.symbols.lookup(name)

    def _bind(self, mark: Marked, function: int, method: Callable[..., Any]) -> None:
        computer = self._computer
        address = function
        if function in self._sites:  # keep the ftrace site, so that the function can be traced
            address += len(TRAP)
        if mark.prologue is not None:
            address = self._add_prologue(mark.name, address, mark.prologue)
        read_arguments = _argument_reader(computer, method)
        if inspect.iscoroutinefunction(method):

            def start() -> Awaitable[int | None]:
                return _run_async(method, read_arguments())

            self.async_services[address] = start
            computer.cpu.set_trap(address, lambda: False)
        else:

            def serve() -> bool:
                try:
                    result = method(*read_arguments())
                except OSError as error:
                    result = -(error.errno or 0)
                if result is not None:
                    computer.cpu["rax"] = result
                return True

            computer.cpu.set_trap(address, serve)
        computer.memory.write(address, TRAP)
        computer.cpu.code_changed(address, len(TRAP))
        self.bound.add(mark.name)

    def _add_prologue(self, name: str, function: int, prologue: Prologue) -> int:
        """Write a jump to the prologue to ``function``. Returns the address of the trap that it calls."""
        computer = self._computer
        trap = computer.map_pages(computer.modules_area, PAGE_SIZE, writable=False, executable=True)
        at = trap + _PROLOGUE_OFFSET
        code = prologue(computer, at, trap)
        computer.memory.write(at, code)
        computer.symbols.add_generated(Symbol(name, at, len(code), "t"))
        computer.memory.write(function, jump_to(function, at))
        computer.cpu.code_changed(function, CALL_SIZE)
        return trap


async def _run_async(
    method: Callable[..., Awaitable[Any]], arguments: tuple[int, ...]
) -> int | None:
    try:
        result: int | None = await method(*arguments)
    except OSError as error:
        return -(error.errno or 0)
    return result


def _argument_reader(
    computer: Computer, method: Callable[..., Any]
) -> Callable[[], tuple[int, ...]]:
    """Return a function that reads the arguments of a C function with the parameter types that ``method``
    is annotated with. It ignores the upper half of registers with 32-bit arguments, which is undefined."""
    hints = typing.get_type_hints(method, include_extras=True)
    formats = [hints[name].__metadata__[0] for name in inspect.signature(method).parameters]
    registers = struct.Struct("<6Q")
    cut = struct.Struct("<" + "".join(f[1] + f"{8 - struct.calcsize(f)}x" for f in formats))
    size, count = cut.size, len(formats)
    if all(f == "<Q" for f in formats):
        return lambda: computer.cpu.arguments(count)

    def read() -> tuple[int, ...]:
        values = computer.cpu.arguments(count)
        packed = registers.pack(*values, *(0,) * (6 - count))
        return cut.unpack(packed[:size])

    return read
