# SPDX-License-Identifier: GPL-2.0-or-later
"""ftrace: the call sites of traced functions. kernel/trace/ftrace.c, arch/x86/kernel/ftrace.c.

A site is five bytes at the entry of a function. It holds

- a nop, if no ``ftrace_ops`` covers the function;
- a call to the trampoline of the ops, if one does (`klpfs.machine.kernel.trace.trampoline`);
- a call to the image's ``ftrace_caller`` or ``ftrace_regs_caller``, if several do. It calls
  ``ftrace_ops_list_func``, which walks the list of ops.

The ops, their filters and their list are structs in guest memory, which guest code reads.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

import trio

from klpfs.machine.instructions import NOP5, call_to, target_of
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.glob import glob
from klpfs.machine.kernel.service import S32, U64, Ptr, service
from klpfs.machine.kernel.trace.ftrace_hash import FtraceHashes
from klpfs.machine.kernel.trace.trampoline import Trampolines
from klpfs.machine.structs import Struct

ENABLED = 1 << 0
DYNAMIC = 1 << 1
SAVE_REGS = 1 << 2
INITIALIZED = 1 << 6
DELETED = 1 << 7
ALLOC_TRAMP = 1 << 11
IPMODIFY = 1 << 12
PERMANENT = 1 << 16
"""``ftrace_ops.flags``, include/linux/ftrace.h."""

_FILTER_MAX = 512
_MCOUNT_MAX_OFFSET = 4
"""Largest offset of a site from the beginning of its function, in bytes: the size of an endbr64."""
_INVALID = "__ftrace_invalid_address__"


@dataclass(slots=True)
class Site:
    """A call site (``struct dyn_ftrace``), and the addresses of the ftrace_ops that cover it."""

    ip: int
    ops: list[int] = field(default_factory=list)


class Ftrace:
    """The call sites of one machine."""

    def __init__(self, base: Base) -> None:
        self._computer = computer = base.computer
        self._space = computer.space
        self._text = base.text
        self._hashes = FtraceHashes(base)
        self._trampolines = Trampolines(base)
        self._sites: dict[int, Site] = {}
        self._order: list[int] | None = None
        self._claimed: dict[int, int] = {}
        self._ops: list[int] = []  # registered, newest first, as on ftrace_ops_list
        self._lock = trio.Lock()
        self.enabled = 1
        """``kernel.ftrace_enabled``: 0 means off, all other values mean on."""
        for caller, call in (
            ("ftrace_caller", "ftrace_call"),
            ("ftrace_regs_caller", "ftrace_regs_call"),
        ):
            assert computer.symbol(caller)
            site = computer.symbol(call)
            self._text.poke_early(site, call_to(site, computer.symbol("ftrace_ops_list_func")))
        self._list_head = computer.symbol("ftrace_ops_list")
        self._list_end = computer.symbol("ftrace_list_end")
        self._space.write_u64(self._list_head, self._list_end)
        self.add_sites(computer.image.ftrace_sites)

    # -- sites ------------------------------------------------------------------------------------

    def add_sites(self, ips: Iterable[int]) -> None:
        """``ftrace_process_locs``: add the call sites of the kernel or of a module that is being loaded.
        Each becomes a nop, or a call if there is an ops without a filter, which covers all functions."""
        everywhere = [ops for ops in self._ops if not self.hash(ops)]
        sites = [Site(ip, list(everywhere)) for ip in ips]
        self._sites.update((site.ip, site) for site in sites)
        self._text.poke_all_early([(site.ip, self._instruction(site)) for site in sites])
        self._order = None

    def remove_sites(self, start: int, end: int) -> None:
        """``ftrace_release_mod``: remove the sites in ``[start, end)``, of a module that is being freed."""
        for ip in [ip for ip in self._sites if start <= ip < end]:
            del self._sites[ip]
        self._claimed = {a: ip for a, ip in self._claimed.items() if not start <= ip < end}
        self._order = None

    def claim(self, address: int) -> bool:
        """Remove the site of the function at ``address`` until `give_back`, so that the caller can write to
        the beginning of the function. Returns False if the function is traced. Returns True also for a
        function without a site."""
        ip = self.location(address)
        if ip and self._sites[ip].ops:
            return False
        if ip:
            del self._sites[ip]
            self._order = None
            self._claimed[address] = ip
        return True

    def give_back(self, address: int) -> None:
        """Add the site that `claim` has removed. The beginning of the function must be restored."""
        ip = self._claimed.pop(address, 0)
        if ip:
            self.add_sites([ip])

    def sites(self) -> Iterator[Site]:
        """Iterate over all sites, sorted by address (``available_filter_functions``)."""
        for ip in self._sorted():
            yield self._sites[ip]

    def enabled_sites(self) -> Iterator[Site]:
        """Iterate over the sites that call an ops now (``enabled_functions``)."""
        return (site for site in self.sites() if site.ops and self.enabled)

    @property
    def addresses(self) -> Set[int]:
        """Addresses of all sites."""
        return self._sites.keys()

    def _sorted(self) -> list[int]:
        if self._order is None:
            self._order = sorted(self._sites)
        return self._order

    def location(self, address: int) -> int:
        """``ftrace_location``: return the address of the site at ``address``, or of the function that begins
        there; 0 if there is none."""
        if address in self._sites:
            return address
        found = self._computer.symbols.lookup_address(address)
        if found is None or found[1]:
            return 0
        order = self._sorted()
        i = bisect_left(order, address)
        if i < len(order) and order[i] < address + max(found[0].size, 1):
            return order[i]
        return 0

    # -- filters ----------------------------------------------------------------------------------

    def _view(self, ops: int) -> Struct:
        """Return a view of an ftrace_ops, initialised as by ``ftrace_ops_init``."""
        view: Struct = self._space.view("struct ftrace_ops", ops)
        if not view.flags & INITIALIZED:
            view.func_hash = view.member_address_("local_hash")
            view.flags |= INITIALIZED
        return view

    def hash(self, ops: int, *, notrace: bool = False) -> set[int]:
        """Return the addresses in the ``filter_hash`` of ``ops``, where an empty set means all functions, or
        in its ``notrace_hash``, the sites that are excluded. Raises PageFault if it is corrupted."""
        return self._hashes.read(self._view(ops).func_hash, notrace=notrace)

    def _store_hash(self, ops: int, ips: set[int], *, notrace: bool) -> None:
        self._hashes.replace(self._view(ops).func_hash, ips, notrace=notrace)

    async def set_filter_ip(
        self, ops: int, ip: int, *, remove: bool = False, reset: bool = False
    ) -> None:
        """``ftrace_set_filter_ip``: add a site to the filter of ``ops``, or remove it. ``reset`` empties
        the filter first.

        Raises OSError: EINVAL (no such site), ENOENT (not in the filter), EBUSY (another IPMODIFY ops
        covers the site). A checkpoint if ``ops`` is registered.
        """
        site = self.location(ip)
        if not site:
            raise OSError(errno.EINVAL, f"no ftrace site at {ip:#x}")
        ips = set() if reset else self.hash(ops)
        if remove and site not in ips:
            raise OSError(errno.ENOENT, "not in the filter")
        await self.set_hash(ops, ips - {site} if remove else ips | {site})

    async def set_hash(self, ops: int, ips: set[int], *, notrace: bool = False) -> None:
        """``ftrace_hash_move_and_update_ops``: replace a hash of ``ops``. Raises OSError(EBUSY) if another
        IPMODIFY ops covers one of the sites. A checkpoint if ``ops`` is registered."""
        if ops not in self._ops:
            self._store_hash(ops, ips, notrace=notrace)
            return
        before = self._covered(ops)
        if not notrace:
            self._check_ipmodify(ops, ips - before)
        self._store_hash(ops, ips, notrace=notrace)
        after = self._covered(ops)
        self._cover(ops, after - before)
        self._uncover(ops, before - after)
        await self._update(before ^ after)

    def _covered(self, ops: int) -> set[int]:
        """Return the sites that ``ops`` covers. Without a filter, these are all sites with a valid name."""
        ips, excluded = self.hash(ops), self.hash(ops, notrace=True)
        if not ips:
            name = self.function
            ips = {s.ip for s in self._sites.values() if not name(s)[0].startswith(_INVALID)}
        return ips - excluded

    def _check_ipmodify(self, ops: int, ips: Iterable[int]) -> None:
        """``__ftrace_hash_update_ipmodify``: check that no site gets a second IPMODIFY ops. Raises
        OSError(EBUSY)."""
        if not self._view(ops).flags & IPMODIFY:
            return
        for ip in ips:
            for other in self._sites[ip].ops:
                if other != ops and self._view(other).flags & IPMODIFY:
                    raise OSError(errno.EBUSY, f"{ip:#x} has another IPMODIFY ops")

    # -- registering ------------------------------------------------------------------------------

    async def register(self, ops: int) -> None:
        """``register_ftrace_function``. Raises OSError: EBUSY (registered already, a site has another
        IPMODIFY ops, or PERMANENT while ftrace is off), EINVAL (deleted, or IPMODIFY without a filter),
        ENOMEM. A checkpoint."""
        view = self._view(ops)
        if view.flags & DELETED:
            raise OSError(errno.EINVAL, "ftrace_ops is deleted")
        if view.flags & ENABLED or ops in self._ops:
            raise OSError(errno.EBUSY, "ftrace_ops is registered")
        if not self.enabled and view.flags & PERMANENT:
            raise OSError(errno.EBUSY, "ftrace is disabled")
        if view.flags & IPMODIFY and not self.hash(ops):
            raise OSError(errno.EINVAL, "IPMODIFY needs a filter")
        covered = self._covered(ops)
        self._check_ipmodify(ops, covered)
        view.trampoline = self._trampolines.create(view, with_regs=bool(view.flags & SAVE_REGS))
        view.next = self._space.read_u64(self._list_head)
        self._space.write_u64(self._list_head, ops)
        self._ops.insert(0, ops)
        view.flags |= ENABLED | ALLOC_TRAMP
        self._cover(ops, covered)
        await self._update(covered)

    async def unregister(self, ops: int) -> None:
        """``unregister_ftrace_function``. When this returns, no task runs the trampoline of ``ops`` any more.
        Raises OSError(EBUSY) if it is not registered. A checkpoint."""
        if ops not in self._ops:
            raise OSError(errno.EBUSY, "ftrace_ops is not registered")
        view = self._view(ops)
        i = self._ops.index(ops)
        before = self._view(self._ops[i - 1]).member_address_("next") if i else self._list_head
        self._space.write_u64(before, int(view.next))
        del self._ops[i]
        view.flags &= ~ENABLED
        covered = self._covered(ops)
        self._uncover(ops, covered)
        await self._update(covered)
        await self._trampolines.free(view)

    async def set_enabled(self, value: int) -> None:
        """``ftrace_enable_sysctl``: enable or disable all call sites. Raises OSError(EBUSY) if a PERMANENT
        ops is registered. A checkpoint if a site changes."""
        before, self.enabled = self.enabled, value
        if bool(before) == bool(value):
            return
        if not value and any(self._view(ops).flags & PERMANENT for ops in self._ops):
            self.enabled = 1
            raise OSError(errno.EBUSY, "a live patch needs ftrace")
        await self._update(self._sites)

    def _cover(self, ops: int, ips: Iterable[int]) -> None:
        for ip in ips:
            if ip in self._sites:
                self._sites[ip].ops.insert(0, ops)

    def _uncover(self, ops: int, ips: Iterable[int]) -> None:
        for ip in ips:
            if ip in self._sites and ops in self._sites[ip].ops:
                self._sites[ip].ops.remove(ops)

    async def _update(self, ips: Iterable[int]) -> None:
        """Write to these sites what the ops that cover them require. A checkpoint if a site changes."""
        async with self._lock:
            sites = [self._sites[ip] for ip in ips if ip in self._sites]
            wanted = [(site.ip, self._instruction(site)) for site in sites]
            changes = [(ip, code) for ip, code in wanted if self._text.read(ip) != code]
            if changes:
                await self._text.poke_bp(changes)

    def _instruction(self, site: Site) -> bytes:
        """Return the instruction for a site: a nop or a call."""
        if not site.ops or not self.enabled:
            return NOP5
        if len(site.ops) == 1:
            return call_to(site.ip, int(self._view(site.ops[0]).trampoline))
        with_regs = any(self._view(ops).flags & SAVE_REGS for ops in site.ops)
        return call_to(
            site.ip, self._computer.symbol("ftrace_regs_caller" if with_regs else "ftrace_caller")
        )

    # -- output -----------------------------------------------------------------------------------

    def sprint_symbol(self, address: int) -> str:
        """Like `SymbolTable.sprint_symbol`, but name the trampolines too, which have no symbols."""
        symbols = self._computer.symbols
        for site in self.enabled_sites():
            for ops in site.ops:
                view = self._space.view("struct ftrace_ops", ops)
                start = int(view.trampoline)
                if start <= address < start + view.trampoline_size:
                    handler = symbols.sprint_symbol_no_offset(int(view.func))
                    return f"ftrace_trampoline of {handler}"
        return symbols.sprint_symbol(address)

    def describe(self, site: Site) -> str:
        """Return the line of a site in ``enabled_functions`` (``t_show``), without the newline."""
        symbols = self._computer.symbols
        views = [self._view(ops) for ops in site.ops]
        regs = any(view.flags & SAVE_REGS for view in views)
        ipmodify = any(view.flags & IPMODIFY for view in views)
        line = f"{self.name(site)} ({len(views)}){' R' if regs else '  '}{' I' if ipmodify else '  '}  "
        if len(views) == 1:
            trampoline, func = int(views[0].trampoline), int(views[0].func)
            line += f"\ttramp: {symbols.sprint_symbol(trampoline)} ({symbols.sprint_symbol(func)})"
            line += f" ->{symbols.sprint_symbol(func)}"
        else:
            target = target_of(site.ip, self._text.read(site.ip))
            if target is not None:
                line += f" ->{symbols.sprint_symbol(self._computer.symbol('ftrace_ops_list_func'))}"
        return line

    def name(self, site: Site) -> str:
        """Return the name of a site's function and its module, as in ``available_filter_functions``."""
        name, module = self.function(site)
        return f"{name} [{module}]" if module else name

    def function(self, site: Site) -> tuple[str, str | None]:
        """Return the name of a site's function, and its module or None. A weak function that was replaced is
        still in the text but has no symbol: it gets a made-up name (``test_for_valid_rec``)."""
        found = self._computer.symbols.lookup_address(site.ip)
        if found is None:
            return f"{site.ip:#x}", None
        symbol, offset, module = found
        name = symbol.name if offset <= _MCOUNT_MAX_OFFSET else f"{_INVALID}_{offset}"
        return name, module

    # -- for modules ------------------------------------------------------------------------------

    @service("register_ftrace_function")
    async def register_ftrace_function(self, ops: Ptr) -> int:
        await self.register(ops)
        return 0

    @service("unregister_ftrace_function")
    async def unregister_ftrace_function(self, ops: Ptr) -> int:
        await self.unregister(ops)
        return 0

    @service("ftrace_set_filter_ip")
    async def ftrace_set_filter_ip(self, ops: Ptr, ip: U64, remove: S32, reset: S32) -> int:
        await self.set_filter_ip(ops, ip, remove=bool(remove), reset=bool(reset))
        return 0

    @service("ftrace_set_filter")
    async def ftrace_set_filter(self, ops: Ptr, text: Ptr, length: S32, reset: S32) -> int:
        pattern = self._space.read_string(text, min(max(length, 0), _FILTER_MAX)) if text else ""
        ips = self._matching(pattern)
        if pattern and not ips:
            raise OSError(errno.EINVAL, f"no function matches {pattern}")
        await self.set_hash(ops, ips if reset else self.hash(ops) | ips)
        return 0

    @service("ftrace_free_filter")
    def ftrace_free_filter(self, ops: Ptr) -> None:
        if ops not in self._ops:
            self._store_hash(ops, set(), notrace=False)

    @service("ftrace_location")
    def ftrace_location(self, address: Ptr) -> int:
        return self.location(address)

    def _matching(self, pattern: str) -> set[int]:
        matches = glob(pattern).fullmatch
        return {
            site.ip
            for site in self._sites.values()
            if (found := self._computer.symbols.lookup_address(site.ip)) and matches(found[0].name)
        }
