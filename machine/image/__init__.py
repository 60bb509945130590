# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images: the data that every image provides, wherever it comes from."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from klpfs.machine.host_names import RELEASE_MAX, is_host_name


class ImageError(Exception):
    """A kernel image cannot be used. The text is a sentence for the user."""


class Segment(NamedTuple):
    """A part of the image to load: ``data`` at ``vaddr``, then zeroes up to ``memsz`` bytes."""

    vaddr: int
    data: bytes
    memsz: int
    writable: bool
    executable: bool


class Symbol(NamedTuple):
    """A symbol. ``kind`` is its letter in /proc/kallsyms; ``size`` is in bytes, 0 if unknown."""

    name: str
    addr: int
    size: int
    kind: str


class Export(NamedTuple):
    """A symbol that modules can link against.

    ``crc`` is its modversion, None if the kernel has none. ``namespace`` is the symbol namespace
    that a module has to import to use it (MODULE_IMPORT_NS), empty for none.
    """

    addr: int
    gpl_only: bool
    crc: int | None
    namespace: str = ""


@dataclass
class Image:
    """A kernel image. ``unwinder`` is ``frame_pointer`` or ``orc``.

    Raise ImageError if ``release`` cannot be the name of a directory, as in /lib/modules.
    """

    release: str
    vermagic: str
    banner: str
    segments: list[Segment]
    symbols: list[Symbol]
    exports: dict[str, Export]
    ftrace_sites: list[int]
    btf: bytes
    unwinder: str = "frame_pointer"
    initcalls: list[int] = field(default_factory=list)
    """The addresses of the functions to call at boot, in order."""
    per_cpu: bytes = b""
    """The initial content of the per-CPU variables, linked at address 0. It is empty if they are
    linked at their final addresses."""
    build_id: str = ""
    stubs: frozenset[int] = field(default_factory=frozenset)
    """The addresses of functions without code, which need a service in Python."""
    abi: str = "latest"
    """The name of its livepatch API, see `klpfs.machine.kernel.livepatch.abi`."""
    booted: bool = True
    """True if its subsystems are initialized, as after a boot."""
    init: range = range(0)
    """The addresses from ``__init_begin`` to ``__init_end``, which a booted kernel has freed. They
    are loaded all the same, as code in them may be needed: static_cpu_has() goes through
    .altinstr_aux until alternatives are applied. No ftrace site is in them. It is empty if nothing
    is freed."""

    def __post_init__(self) -> None:
        if not is_host_name(self.release, RELEASE_MAX):
            raise ImageError(f"its release {self.release!r} is not a valid directory name")


_KERNEL_SYMBOL = struct.Struct("<iii")
_U64 = (1 << 64) - 1
_NAME_CHUNK = 64
_NAME_MAX = 1024


def read_exports(
    read: Callable[[int, int], bytes], start: int, end: int, gpl_only: bool, crcs: int = 0
) -> dict[str, Export]:
    """Return the exports described by the ``struct kernel_symbol``s in ``[start, end)``, by name.

    Their references are relative to their own addresses (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS).
    ``read(address, size)`` returns at most ``size`` bytes of memory. ``crcs`` is the address of
    their CRCs, 0 for none. Exceptions of ``read`` are passed on.
    """

    def text(at: int) -> str:
        found = b""
        while b"\0" not in found and len(found) < _NAME_MAX:
            here = (at + len(found)) & _U64
            found += read(here, _NAME_CHUNK - here % _NAME_CHUNK)  # a page border is never crossed
        return found.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    exports = {}
    for i, at in enumerate(range(start, end - _KERNEL_SYMBOL.size + 1, _KERNEL_SYMBOL.size)):
        value, name, namespace = _KERNEL_SYMBOL.unpack(read(at, _KERNEL_SYMBOL.size))
        exports[text(at + 4 + name)] = Export(
            (at + value) & _U64,
            gpl_only,
            int.from_bytes(read(crcs + 4 * i, 4), "little") if crcs else None,
            text(at + 8 + namespace) if namespace else "",
        )
    return exports
