# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images: the same things of each, wherever it comes from."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class ImageError(Exception):
    """There is no kernel to be had; the text is one clear sentence."""


class Segment(NamedTuple):
    """A part of the image to load: ``data`` at ``vaddr``, zeroes behind it up to ``memsz`` bytes."""

    vaddr: int
    data: bytes
    memsz: int
    writable: bool
    executable: bool


class Symbol(NamedTuple):
    """A symbol; ``kind`` is the letter that kallsyms shows. ``size`` 0: unknown."""

    name: str
    addr: int
    size: int
    kind: str


class Export(NamedTuple):
    """What modules may link against. ``crc``: its modversion, if the kernel has those. ``namespace``:
    the one that a module has to import for it (MODULE_IMPORT_NS), empty for none."""

    addr: int
    gpl_only: bool
    crc: int | None
    namespace: str = ""


@dataclass
class Image:
    """A kernel image. ``unwinder`` is ``frame_pointer`` or ``orc``."""

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
    """Functions to call at boot, in this order."""
    per_cpu: bytes = b""
    """What each CPU gets a copy of, linked at address 0; none if per-CPU variables are where they are."""
    build_id: str = ""
    stubs: frozenset[int] = field(default_factory=frozenset)
    """Addresses of functions without code of their own, which need a service to stand in."""
    abi: str = "latest"
    """Which API of live patching it has: a name in `klpfs.machine.kernel.livepatch.abi`."""
    booted: bool = True
    """Whether it is as a boot leaves a kernel: its subsystems are set up, as far as it has them."""
    init: range = range(0)
    """What a booted kernel has freed. It is loaded all the same, as its code may be needed: static_cpu_has()
    goes through .altinstr_aux until alternatives are applied. No ftrace site is in it."""


_KERNEL_SYMBOL = struct.Struct("<iii")
_U64 = (1 << 64) - 1
_NAME_CHUNK = 64
_NAME_MAX = 1024


def read_exports(
    read: Callable[[int, int], bytes], start: int, end: int, gpl_only: bool, crcs: int = 0
) -> dict[str, Export]:
    """The ``struct kernel_symbol``s in ``[start, end)``, whose references are relative to their own
    place (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS). ``crcs`` is where their CRCs are, 0 if nowhere;
    ``read`` gives what is at an address, as many bytes as it is asked for or less."""

    def text(at: int) -> str:
        found = b""
        while b"\0" not in found and len(found) < _NAME_MAX:
            here = (at + len(found)) & _U64
            found += read(here, _NAME_CHUNK - here % _NAME_CHUNK)  # never into the next page
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
