# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel functions that Python stands in for: each has a stub in the embedded kernel, or says that it has
none, and each stub has a service."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache

import pytest

import klpfs.machine.kernel
from klpfs.machine.image import Image, embedded
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.service import Marked, marked
from klpfs.modules import abi as abis

NO_SERVICES = {"_stext", "guest_return"}
"""Symbols among the stubs: where the text begins, and where the scheduler has a trap of its own."""
ABIS = (*abis.NAMES, abis.NONE)


@cache
def image(abi: str) -> Image:
    return embedded.load(abi=abi)


def stubs(abi: str) -> set[str]:
    symbols = {symbol.name for symbol in image(abi).symbols if symbol.addr in image(abi).stubs}
    return symbols - NO_SERVICES


@cache
def services() -> list[Marked]:
    """All services of all classes, whether a kernel has an instance of the class or not."""
    return [mark for provider in _classes() for mark, _ in marked(provider)]


def _classes() -> Iterator[type]:
    package = klpfs.machine.kernel
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ == module.name:
                yield found


def test_every_service_has_a_stub_or_says_that_it_has_none() -> None:
    everywhere = set().union(*map(stubs, ABIS))
    assert {mark.name for mark in services() if mark.embedded} - everywhere == set()
    assert {mark.name for mark in services() if not mark.embedded} & everywhere == set()


@pytest.mark.parametrize("abi", ABIS)
def test_every_stub_has_a_service_that_a_kernel_offers(abi: str) -> None:
    """Two things may be missing: a method that is marked, and `Services.offer` of its class."""
    assert stubs(abi) - {mark.name for mark in services()} == set()
    kernel = Kernel(image(abi), VirtualClock(), memory_size=64 << 20)
    try:
        assert kernel.services.bound == stubs(abi)
    finally:
        kernel.close()


def test_no_function_is_served_twice_by_a_class() -> None:
    for provider in _classes():
        names = [mark.name for mark, _ in marked(provider)]
        assert len(names) == len(set(names)), provider
