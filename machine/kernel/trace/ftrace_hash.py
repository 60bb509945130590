# SPDX-License-Identifier: GPL-2.0-or-later
"""The filters of an ftrace_ops: ``struct ftrace_hash``, in guest memory. kernel/trace/ftrace.c.

An ``ftrace_ops_hash`` has two hashes with addresses of call sites: ``filter_hash`` has the sites that are
traced, or is empty if all are; ``notrace_hash`` has the sites that are excluded.
"""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

_HASH_MAX_BITS = 12
_GOLDEN_RATIO_64 = 0x61C8864680B583EB


class FtraceHashes:
    """Reads and replaces the hashes of an ``ftrace_ops_hash``."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._slab = base.slab

    def read(self, ops_hash: Struct, *, notrace: bool = False) -> set[int]:
        """Return the addresses in a hash. Raises PageFault if it is corrupted."""
        found = ops_hash.notrace_hash if notrace else ops_hash.filter_hash
        if not found:
            return set()
        if found.size_bits > _HASH_MAX_BITS:
            raise PageFault(int(found))  # not an ftrace_hash
        ips = set()
        for i in range(1 << found.size_bits):
            bucket = found.buckets[i].address_
            for entry in self._space.hlist_entries(bucket, "struct ftrace_func_entry", "hlist"):
                ips.add(entry.ip)
        return ips

    def replace(self, ops_hash: Struct, ips: set[int], *, notrace: bool = False) -> None:
        """Replace a hash, and free the old one. An empty set is stored as NULL."""
        member = "notrace_hash" if notrace else "filter_hash"
        old = int(getattr(ops_hash, member))
        setattr(ops_hash, member, self._new_hash(ips) if ips else 0)
        self._free_hash(old)

    def _new_hash(self, ips: set[int]) -> Struct:
        """Allocate an ``ftrace_hash`` with the size that ``dup_hash`` would choose."""
        space, owner = self._space, "ftrace_hash"
        hash_: Struct = space.view(
            "struct ftrace_hash", self._slab.alloc(space.types.sizeof("struct ftrace_hash"), owner)
        )
        bits = min(max(len(ips).bit_length() - 1, 0), _HASH_MAX_BITS)
        buckets = self._slab.alloc(8 << bits, owner)
        hash_.size_bits, hash_.buckets, hash_.count = bits, buckets, len(ips)
        entry_size = space.types.sizeof("struct ftrace_func_entry")
        for ip in ips:
            entry = space.view("struct ftrace_func_entry", self._slab.alloc(entry_size, owner))
            entry.ip = ip
            key = (ip * _GOLDEN_RATIO_64 % (1 << 64)) >> (64 - bits) if bits else 0
            space.hlist_add_head(entry.member_address_("hlist"), buckets + 8 * key)
        return hash_

    def _free_hash(self, address: int) -> None:
        if not address or self._slab_does_not_own(address):
            return
        hash_ = self._space.view("struct ftrace_hash", address)
        if hash_.size_bits > _HASH_MAX_BITS:
            raise PageFault(address)
        for i in range(1 << hash_.size_bits):
            bucket = hash_.buckets[i].address_
            for entry in list(
                self._space.hlist_entries(bucket, "struct ftrace_func_entry", "hlist")
            ):
                self._slab.free(entry.address_)
        self._slab.free(int(hash_.buckets))
        self._slab.free(address)

    def _slab_does_not_own(self, address: int) -> bool:
        return not self._slab.ksize(address)  # the image's static EMPTY_HASH
