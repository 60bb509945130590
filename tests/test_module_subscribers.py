# SPDX-License-Identifier: GPL-2.0-or-later
"""The one list of what happens as modules come and go: its order, and what is undone when one refuses."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest

from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.module.subscribers import (
    Hook,
    ModuleSubscriber,
    ModuleSubscribers,
    Stage,
)

MODULE = cast(LoadedModule, object())


class Story:
    """Subscribers that record their calls."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.subscribers = ModuleSubscribers()

    def _hook(self, text: str, error: BaseException | None = None) -> Hook:
        def sync(_module: Any) -> None:
            self.told.append(text)
            if error is not None:
                raise error

        async def waits(module: Any) -> None:
            sync(module)

        return waits if len(self.told) % 2 else sync

    def add(self, stage: Stage, name: str, **errors: BaseException) -> None:
        events = ("coming", "live", "going", "freed")
        hooks = {event: self._hook(f"{name} {event}", errors.get(event)) for event in events}
        self.subscribers.add(stage, ModuleSubscriber(**hooks))

    def since(self) -> list[str]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def story() -> Story:
    return Story()


async def test_order_is_that_of_the_stages_and_the_reverse(story: Story) -> None:
    story.add(Stage.SYSFS, "sysfs")
    story.add(Stage.SYMBOLS, "symbols")
    story.add(Stage.LIVEPATCH, "first")
    story.add(Stage.LIVEPATCH, "second")
    await story.subscribers.coming(MODULE)
    order = ["symbols", "first", "second", "sysfs"]
    assert story.since() == [f"{name} coming" for name in order]
    for event in ("live", "going", "freed"):
        await getattr(story.subscribers, event)(MODULE)
        assert story.since() == [f"{name} {event}" for name in reversed(order)]


async def test_a_refusal_undoes_what_earlier_subscribers_did(story: Story) -> None:
    story.add(Stage.SYMBOLS, "symbols")
    story.add(Stage.LIVEPATCH, "livepatch")
    story.add(Stage.NOTIFIERS, "notifiers", coming=OSError(errno.EINVAL, "no"))
    story.add(Stage.SYSFS, "sysfs")
    with pytest.raises(OSError, match="no"):
        await story.subscribers.coming(MODULE)
    assert story.since() == [
        "symbols coming", "livepatch coming", "notifiers coming", "livepatch going", "symbols going",
    ]  # fmt: skip
    await story.subscribers.freed(MODULE)
    assert story.since() == ["notifiers freed", "livepatch freed", "symbols freed"]


async def test_a_module_is_freed_by_all_even_if_one_fails(story: Story) -> None:
    story.add(Stage.SYMBOLS, "symbols")
    story.add(Stage.PARAMETERS, "parameters", freed=OSError(errno.EIO, "lost"))
    story.add(Stage.SYSFS, "sysfs")
    await story.subscribers.coming(MODULE)
    story.since()
    with pytest.raises(OSError, match="lost"):
        await story.subscribers.freed(MODULE)
    assert story.since() == ["sysfs freed", "parameters freed", "symbols freed"]
    await story.subscribers.freed(MODULE)
    assert story.since() == []


async def test_a_module_that_never_came_is_not_freed(story: Story) -> None:
    story.add(Stage.SYMBOLS, "symbols")
    await story.subscribers.freed(MODULE)
    assert story.since() == []


async def test_the_loader_has_a_subscriber_for_every_stage(story: Story) -> None:
    from klp_guest import booted

    async with booted() as guest:
        subscribers = guest.kernel.module_loader.subscribers
        assert {stage for stage, _ in subscribers._subscribers} == set(Stage)
