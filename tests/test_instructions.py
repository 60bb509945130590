# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions written into kernel text."""

from __future__ import annotations

import pytest

from klpfs.machine.instructions import CALL_SIZE, call_to, jump_to, target_of

SITE = 0xFFFFFFFF81000000


@pytest.mark.parametrize("target", [SITE, SITE + 0x1000, SITE - 0x7FFF_0000, SITE + 0x7FFF_0000])
def test_calls_and_jumps_reach_their_targets(target: int) -> None:
    assert target_of(SITE, call_to(SITE, target)) == target
    assert target_of(SITE, jump_to(SITE, target)) == target
    assert target_of(SITE, b"\x0f\x1f\x44\x00\x00") is None


def test_a_target_that_is_out_of_reach() -> None:
    """The distance is truncated; a module may request any target."""
    assert len(call_to(SITE, 0x1234)) == CALL_SIZE
    assert len(jump_to(SITE, 0xDEAD000000000100)) == CALL_SIZE
