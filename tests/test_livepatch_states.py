# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch core as a state machine (hypothesis).

After any operations in any order, the right versions run, the function stacks are in the order of the
patches, and nothing is leaked.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from klp_guest import Call, Guest, booted, patch_source

T = TypeVar("T")
TARGET = "klp_target"
ORIGINALS = {"one": 1, "two": 2, "three": 3, "four": 4}


class Kind(NamedTuple):
    """A patch, by the return values of its functions.

    A patch of nap() has to wait for the tasks that sleep in the original; the others need not wait.
    """

    functions: dict[str, int]
    replace: bool = False
    consistency: str = "hybrid"


KINDS = {
    "klp_a": Kind({"one": 11, "two": 12}, consistency="refcount"),
    "klp_b": Kind({"one": 21, "three": 23}, consistency="3.20"),
    "klp_c": Kind({"one": 31, "nap": 99}),
    "klp_d": Kind({"two": 42, "four": 44}, replace=True, consistency="kpatch"),
    "klp_e": Kind({"three": 53, "nap": 98}, replace=True),
}
patches = st.sampled_from(sorted(KINDS))


class Portal:
    """A kernel in its own trio run, in a thread, as rules are not async."""

    def __init__(self) -> None:
        started: queue.Queue[tuple[trio.lowlevel.TrioToken, Guest, trio.Event]] = queue.Queue()

        async def main() -> None:
            async with booted() as guest:
                end = trio.Event()
                started.put((trio.lowlevel.current_trio_token(), guest, end))
                await end.wait()

        self._thread = threading.Thread(target=trio.run, args=(main,))
        self._thread.start()
        self._token, self.guest, self._end = started.get(timeout=60)

    def __call__(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        return trio.from_thread.run(function, *arguments, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join()


class Livepatching(RuleBasedStateMachine):
    """The model: the installed patches, the oldest first, and the one whose transition is stalled.

    After each step two seconds pass, so that only a sleeper can stall a transition.
    """

    modules: dict[str, Path]

    def __init__(self) -> None:
        super().__init__()
        self.portal = Portal()
        self.guest = self.portal.guest
        self.installed: list[str] = []
        self.stalled: str | None = None
        self.loaded: set[str] = set()
        self.kept: set[str] = set()  # forced: their modules are never unloaded
        self.sleepers: list[Call] = []
        self.has_target = True
        self.portal(self.guest.insmod, self.modules[TARGET])
        self.before = self.guest.owners()

    # -- steps ------------------------------------------------------------------------------------

    def do(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> int:
        """Return the errno of a step."""

        async def step() -> int:
            try:
                await function(*arguments)
            except OSError as error:
                return error.errno or 0
            finally:
                await self.guest.advance(2)
            return 0

        return self.portal(step)

    def write(self, patch: str, file: str, value: int) -> int:
        return self.do(self.guest.write, f"{patch}/{file}", value)

    def finished(self, patch: str) -> None:
        """Record that the transition to the patched state is complete."""
        self.stalled = None
        if KINDS[patch].replace:
            self.installed = [patch]

    def nap_is_original(self, *, below: str) -> bool:
        lower = self.installed[: self.installed.index(below)]
        return not any("nap" in KINDS[patch].functions for patch in lower)

    @rule(patch=patches)
    def load(self, patch: str) -> None:
        result = self.do(self.guest.insmod, self.modules[patch])
        if patch in self.loaded:
            assert result == errno.EEXIST
        elif self.stalled:
            assert result == errno.EBUSY
        else:
            assert result == 0
            self.loaded.add(patch)
            self.installed.append(patch)
            is_held_up = "nap" in KINDS[patch].functions and self.nap_is_original(below=patch)
            if is_held_up and self.sleepers:
                self.stalled = patch
            else:
                self.finished(patch)

    @precondition(lambda self: self.installed)
    @rule(data=st.data(), value=st.integers(0, 1))
    def write_enabled(self, data: st.DataObject, value: int) -> None:
        patch = data.draw(st.sampled_from(self.installed))
        result = self.write(patch, "enabled", value)
        if value:
            assert result == errno.EINVAL  # all of them are enabled
        elif self.stalled not in (None, patch):
            assert result == errno.EBUSY
        else:  # disabled or reversed: no task is in the new nap()
            assert result == 0
            self.installed.remove(patch)
            self.stalled = None

    @precondition(lambda self: self.installed)
    @rule(data=st.data())
    def force(self, data: st.DataObject) -> None:
        patch = data.draw(st.sampled_from(self.installed))
        result = self.write(patch, "force", 1)
        if patch != self.stalled:
            assert result == errno.EINVAL
            return
        assert result == 0
        if KINDS[patch].replace:
            self.kept |= set(self.installed) - {patch}
        self.finished(patch)

    @rule(patch=patches)
    def unload(self, patch: str) -> None:
        result = self.do(self.guest.rmmod, patch)
        if patch not in self.loaded:
            assert result == errno.ENOENT
        elif patch in self.installed or patch in self.kept:
            assert result == errno.EWOULDBLOCK
        else:
            assert result == 0
            self.loaded.remove(patch)

    @precondition(lambda self: self.has_target)
    @rule()
    def sleep(self) -> None:
        call = self.portal(self.guest.start, "nap")
        versions = [v for p in self.installed if (v := KINDS[p].functions.get("nap"))]
        if self.installed and KINDS[self.installed[-1]].replace:  # it may be stalled
            versions = [v for v in [KINDS[self.installed[-1]].functions.get("nap")] if v]
        if versions:
            assert call.returned == versions[-1]
        else:
            assert call.returned is None
            self.sleepers.append(call)

    @precondition(lambda self: self.sleepers)
    @rule()
    def wake(self) -> None:
        self.guest.set("wake", 1)
        self.do(self.guest.advance, 0)
        self.guest.set("wake", 0)
        assert all(call.returned is not None for call in self.sleepers)
        self.sleepers = []
        if self.stalled:
            self.finished(self.stalled)

    @precondition(lambda self: not self.sleepers)
    @rule()
    def target_goes_or_comes(self) -> None:
        if self.has_target:
            assert self.do(self.guest.rmmod, TARGET) == 0
        else:
            assert self.do(self.guest.insmod, self.modules[TARGET]) == 0
        self.has_target = not self.has_target

    # -- invariants -------------------------------------------------------------------------------

    def version(self, function: str) -> int:
        """Return the version that a process gets that enters the kernel now."""
        active = self.installed
        if active and KINDS[active[-1]].replace:
            active = active[-1:]
        for patch in reversed(active):
            if function in KINDS[patch].functions:
                return KINDS[patch].functions[function]
        return ORIGINALS[function]

    @invariant()
    def the_right_versions_run(self) -> None:
        assert self.guest.installed() == self.installed
        if self.has_target:
            expected = [self.version(name) for name in ORIGINALS]
            assert self.portal(self.guest.versions, *ORIGINALS) == expected

    @invariant()
    def everything_fits_together(self) -> None:
        self.guest.check()
        for i, patch in enumerate(self.installed):
            assert self.portal(self.guest.read, f"{patch}/stack_order") == str(i + 1)
            in_transition = self.portal(self.guest.read, f"{patch}/transition")
            assert in_transition == str(int(patch == self.stalled))

    @invariant()
    def stacks_are_in_the_order_of_the_patches(self) -> None:
        order = [patch.address_ for patch in self.guest.patches()]
        owner = {f.address_: order.index(p.address_) for p, _, f in self.guest.functions()}
        functions = self.guest.kernel.livepatch.functions
        for ops in self.guest.space.list_entries(
            self.guest.symbol("klp_ops", None), "struct klp_ops", "node"
        ):
            ranks = [owner[func.address_] for func in functions.func_stack(ops)]
            assert ranks == sorted(ranks, reverse=True)

    def teardown(self) -> None:
        try:
            if self.sleepers:
                self.wake()
            if not self.has_target:
                self.target_goes_or_comes()
            for patch in list(self.installed):
                assert self.write(patch, "enabled", 0) == 0
            for patch in self.loaded - self.kept:
                assert self.do(self.guest.rmmod, patch) == 0
            assert self.portal(self.guest.versions, *ORIGINALS) == list(ORIGINALS.values())
            if not self.kept:
                assert self.guest.owners() == self.before
        finally:
            self.portal.close()


def _source(kind: Kind) -> str:
    functions = {TARGET: kind.functions}
    return patch_source(functions, replace=kind.replace, consistency=kind.consistency)


@pytest.mark.timeout(600)
def test_livepatching(ko: Callable[..., Path]) -> None:
    """$KLPFS_EXAMPLES is the number of sequences to try."""
    Livepatching.modules = {TARGET: ko(TARGET)} | {
        name: ko(name, _source(kind)) for name, kind in KINDS.items()
    }
    run_state_machine_as_test(
        Livepatching,
        settings=settings(
            max_examples=int(os.environ.get("KLPFS_EXAMPLES", "25")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[phase for phase in Phase if phase is not Phase.explain],
        ),
    )
