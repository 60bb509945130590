# SPDX-License-Identifier: GPL-2.0-or-later
"""A short, repeatable run of scripts/fuzz."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klpfs.machine.btf import BtfError, Types
from klpfs.machine.elf import ElfError, ModuleImage

MODULES = ("livepatch-sample", "klp_target", "klp_callbacks", "caller", "sleeper-patch")
CAP = 512 << 20
"""The number of bytes by which this process may grow."""

Ko = Callable[..., Path]
bounded = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def modules(ko: Ko) -> list[bytes]:
    return [ko(name).read_bytes() for name in MODULES]


@pytest.mark.parametrize("name", fuzzing.TARGETS)
async def test_broken_inputs(name: str, modules: list[bytes]) -> None:
    target = fuzzing.TARGETS[name]()
    mutator = fuzzing.Mutator(target.corpus(modules), target.regions, seed=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted = 0
    async with target.open():
        assert any([await target.try_one(data) for data in target.corpus(modules)])
        for _ in range(target.inputs):
            accepted += await target.try_one(mutator.next())
    assert accepted < target.inputs
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < CAP // 1024


@given(st.binary(max_size=300))
@bounded
def test_bytes_that_are_no_module(data: bytes) -> None:
    for text in (data, b"\x7fELF" + data, b"\x7fELF\2\1\1" + bytes(9) + b"\1\0\x3e\0" + data):
        with pytest.raises(ElfError) as caught:
            ModuleImage.parse(text)
        assert caught.value.errno == errno.ENOEXEC and caught.value.lines


@given(st.binary(max_size=200))
@bounded
def test_bytes_that_are_no_btf(data: bytes) -> None:
    for text in (data, b"\x9f\xeb\1\0\x18\0\0\0" + data):
        try:
            assert "struct nothing" not in Types(text)
        except BtfError as error:
            assert str(error)
