# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches of objects of one size: ``kmem_cache_create`` and related functions, mm/slab_common.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.mm.slab import GFP_ZERO
from klpfs.machine.kernel.service import S32, U32, U64, Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

_SEVENTH_ARGUMENT = 8  # offset from RSP, behind the return address


class KmemCaches:
    """The caches of one kernel. A cache is a struct kmem_cache with a name, a size and a constructor. Its
    objects are allocated like those of kmalloc()."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._space = base.computer.space
        self._sched = base.sched
        self._slab = base.slab

    def _create(self, name: int, size: int, flags: int, constructor: int) -> int:
        room = self._space.types.sizeof("struct kmem_cache")
        cache: Struct = self._space.view("struct kmem_cache", self._slab.alloc(room, "kmem_cache"))
        cache.name, cache.size, cache.object_size = name, size, size
        cache.flags, cache.ctor, cache.refcount = flags, constructor, 1
        return cache.address_

    @service("kmem_cache_create", embedded=False)
    def kmem_cache_create(self, name: Ptr, size: U32, _align: U32, flags: U32, ctor: Ptr) -> int:
        return self._create(name, size, flags, ctor)

    @service("kmem_cache_create_usercopy", embedded=False)
    def kmem_cache_create_usercopy(
        self, name: Ptr, size: U32, _align: U32, flags: U32, _offset: U32, _usersize: U32
    ) -> int:
        ctor = self._space.read_u64(self._computer.cpu["rsp"] + _SEVENTH_ARGUMENT)
        return self._create(name, size, flags, ctor)

    @service("kmem_cache_destroy", embedded=False)
    def kmem_cache_destroy(self, cache: Ptr) -> None:
        self._slab.kfree(cache)

    async def _alloc(self, address: int, flags: int) -> int:
        if not address:
            raise PageFault(0)
        cache = self._space.view("struct kmem_cache", address)
        try:
            made = self._slab.alloc(cache.object_size, cache.name.string() if cache.name else "?")
        except MemoryError:
            return 0
        if cache.ctor and not flags & GFP_ZERO:
            await self._sched.current.call(cache.ctor, made)
        return made

    @service("kmem_cache_alloc", embedded=False)
    async def kmem_cache_alloc(self, cache: Ptr, flags: U32) -> int:
        return await self._alloc(cache, flags)

    @service("kmem_cache_alloc_node", embedded=False)
    async def kmem_cache_alloc_node(self, cache: Ptr, flags: U32, _node: S32) -> int:
        return await self._alloc(cache, flags)

    @service("kmem_cache_alloc_lru", embedded=False)
    async def kmem_cache_alloc_lru(self, cache: Ptr, _lru: Ptr, flags: U32) -> int:
        return await self._alloc(cache, flags)

    @service("kmem_cache_free", embedded=False)
    def kmem_cache_free(self, _cache: Ptr, address: Ptr) -> None:
        self._slab.kfree(address)

    @service("kmem_cache_size", embedded=False)
    def kmem_cache_size(self, cache: Ptr) -> U64:
        return int(self._space.view("struct kmem_cache", cache).object_size)
