# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of a distribution's kernel, from its vmlinuz or vmlinux alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import repeat
from operator import itemgetter
from pathlib import Path

from klpfs.machine.image import (
    Export,
    Image,
    ImageError,
    Segment,
    Symbol,
    cache,
    kallsyms,
    read_exports,
)
from klpfs.machine.image.payload import open_vmlinux
from klpfs.machine.image.vmlinux import Section, Vmlinux
from klpfs.machine.memory import PAGE_SIZE, START_KERNEL_MAP

_EXPORT_TABLES = (("", False), ("_gpl", True))
_PER_CPU = ".data..percpu"
_INITCALLS = (
    "seq_file_init",
    "proc_cmdline_init", "proc_devices_init", "proc_filesystems_init", "proc_loadavg_init",
    "proc_meminfo_init", "proc_stat_init", "proc_uptime_init", "proc_version_init",
)  # fmt: skip
"""The initcalls that create files of /proc and need no other subsystem."""
_TABLE_MAX = 16 << 20
"""The maximum size in bytes of a table of symbols or addresses."""
_IMAGE_MAX = 1 << 30
"""KERNEL_IMAGE_SIZE, in bytes."""


def load(path: Path, progress: Callable[[str], None] | None = None) -> Image:
    """Return the image of the kernel in the file ``path``, from the cache if it is there.

    ``progress`` is called with a description of each longer step. Raise ImageError if the file
    cannot be read, or is not an x86-64 kernel with livepatch and BTF.
    """
    report = progress or (lambda step: None)
    try:
        with path.open("rb") as file:
            key = cache.key(file)
            image = cache.get(key)
            if image is not None:
                return image
            vmlinux = Vmlinux(open_vmlinux(file, report))
        report("reading symbols and exports")
        image = read(vmlinux)
    except ImageError as error:
        raise ImageError(f"{path} cannot be used as a kernel: {error}") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        cache.put(key, image)
    except OSError as error:
        report(f"the kernel cannot be cached ({error.strerror or error})")
    return image


def read(vmlinux: Vmlinux) -> Image:
    """Return the image of a distribution's kernel. Raise ImageError."""
    return _Reader(vmlinux).image()


class _Reader:
    """Reads the parts of an image from a vmlinux, at the addresses of the kernel's own symbols."""

    def __init__(self, vmlinux: Vmlinux) -> None:
        self._vmlinux = vmlinux
        table = _symbol_table(vmlinux)
        self._symbols = list(
            map(
                Symbol._make,
                zip(table.names, table.addresses, repeat(0), table.kinds, strict=False),
            )
        )
        self._at = dict(zip(reversed(table.names), reversed(table.addresses), strict=True))

    def _symbol(self, name: str) -> int:
        """Return the address of a symbol, the first of several. Raise ImageError."""
        try:
            return self._at[name]
        except KeyError:
            raise ImageError(f"it has no symbol {name}") from None

    def _between(self, start: str, end: str) -> bytes:
        first, last = self._symbol(start), self._symbol(end)
        if last - first > _TABLE_MAX:
            raise ImageError(f"its table at the symbol {start} is too large")
        return self._vmlinux.read_range(first, last)

    def image(self) -> Image:
        if "klp_enable_patch" not in self._at:
            raise ImageError("it has no live patching (CONFIG_LIVEPATCH)")
        btf = self._vmlinux.section(".BTF")
        if btf is None:
            raise ImageError("it has no type information (CONFIG_DEBUG_INFO_BTF)")
        banner = self._vmlinux.text(self._symbol("linux_banner"))
        words = banner.split()
        if words[:2] != ["Linux", "version"] or len(words) < 3:
            raise ImageError("its banner is not that of a Linux kernel")
        return Image(
            release=words[2],
            vermagic=self._vmlinux.text(self._symbol("vermagic")),
            banner=banner,
            segments=self._segments(),
            symbols=self._symbols,
            exports=self._exports(),
            ftrace_sites=self._ftrace_sites(),
            btf=btf.data,
            abi=self._abi(),
            booted=False,
            unwinder="orc" if "__start_orc_unwind" in self._at else "frame_pointer",
            build_id=self._vmlinux.build_id(),
            initcalls=[self._at[name] for name in _INITCALLS if name in self._at],
            per_cpu=self._per_cpu(),
            init=self._init(),
        )

    def _abi(self) -> str:
        """Return the name of its livepatch API. Kernels with BTF have that of 5.1 or later."""
        if "stack_order_kobj_attr" in self._at:
            return "latest"
        return "6.1" if "patched_kobj_attr" in self._at else "5.1"

    def _init(self) -> range:
        return range(self._symbol("__init_begin"), self._symbol("__init_end"))

    def _per_cpu(self) -> bytes:
        """Return the per-CPU variables if they are linked at address 0, as before Linux 6.15."""
        section = self._vmlinux.section(_PER_CPU)
        return section.data if section and section.addr == 0 else b""

    def _exports(self) -> dict[str, Export]:
        exports: dict[str, Export] = {}
        for suffix, gpl_only in _EXPORT_TABLES:
            start, end = f"__start___ksymtab{suffix}", f"__stop___ksymtab{suffix}"
            crcs = f"__start___kcrctab{suffix}"
            size, crcs_size = (
                len(self._between(start, end)),
                len(self._between(crcs, f"__stop___kcrctab{suffix}")),
            )
            if crcs_size and crcs_size * 3 != size:
                raise ImageError("its exported symbols and their CRCs differ in number")
            exports |= read_exports(
                self._vmlinux.read,
                self._symbol(start),
                self._symbol(end),
                gpl_only,
                self._symbol(crcs) if crcs_size else 0,
            )
        return exports

    def _ftrace_sites(self) -> list[int]:
        """Return the addresses in __mcount_loc, sorted.

        Those in init memory are left out, as ``ftrace_free_init_mem`` does, and the zeroes that the
        build of 6.15 and later leaves for weak functions that were replaced.
        """
        data = self._between("__start_mcount_loc", "__stop_mcount_loc")
        init = self._init()
        sites = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) & -8])
        return sorted(site for site in sites if site and site not in init)

    # -- memory -----------------------------------------------------------------------------------

    def _segments(self) -> list[Segment]:
        """Return the content of the sections up to ``_end``, as runs of pages with equal rights.

        The rights are those of a booted kernel (``mark_rodata_ro``): pages from ``_etext`` to
        ``__end_rodata`` are neither writable nor executable; other pages with code in them are not
        writable.
        """
        start, end = self._symbol("_text"), self._symbol("_end")
        if not START_KERNEL_MAP <= start <= end <= START_KERNEL_MAP + _IMAGE_MAX:
            raise ImageError(
                f"it is linked at {start:#x}, which is not in the address range of kernels"
            )
        read_only = range(self._symbol("_etext"), self._symbol("__end_rodata"))
        placed = [(at, section) for at, section in self._placed() if at < end]
        rights: dict[int, tuple[bool, bool]] = {}
        for at, section in placed:
            if at < start or at + section.size > end:
                raise ImageError(f"its section {section.name} is not between _text and _end")
            for page in range(at & -PAGE_SIZE, at + section.size, PAGE_SIZE):
                executable = section.executable or rights.get(page, (False, False))[1]
                rights[page] = not executable and page not in read_only, executable
            start = at + section.size
        return [_segment(pages, *rights[pages.start], placed) for pages in _runs(rights)]

    def _placed(self) -> list[tuple[int, Section]]:
        """Return the sections with their load addresses, in the order of the addresses."""
        placed = [
            (section.addr if section.name != _PER_CPU else self._symbol("__per_cpu_load"), section)
            for section in self._vmlinux.sections
        ]
        return sorted(placed, key=itemgetter(0))


def _runs(rights: dict[int, tuple[bool, bool]]) -> Iterator[range]:
    """Yield runs of adjacent pages with equal rights. ``rights`` is by page address, in order."""
    start = end = 0
    for page, right in rights.items():
        if page != end or right != rights[start]:
            if end:
                yield range(start, end)
            start = page
        end = page + PAGE_SIZE
    yield range(start, end)


def _segment(
    pages: range, writable: bool, executable: bool, placed: list[tuple[int, Section]]
) -> Segment:
    """Return a segment with the content that the sections have in ``pages``."""
    data = bytearray()
    for at, section in placed:
        first, last = max(at, pages.start), min(at + section.size, pages.stop)
        if section.data and first < last:
            data.extend(bytes(first - pages.start - len(data)))
            data += section.data[first - at : last - at]
    return Segment(pages.start, bytes(data), len(pages), writable, executable)


def _symbol_table(vmlinux: Vmlinux) -> kallsyms.Table:
    section = vmlinux.section(".rodata")
    if section is None or section.addr < START_KERNEL_MAP:
        raise ImageError("it is an ELF file, but not a kernel")
    table = kallsyms.find(section.data, section.addr)
    if table is None:
        raise ImageError("it has no symbol table (CONFIG_KALLSYMS)")
    return table
