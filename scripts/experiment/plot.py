# SPDX-License-Identifier: GPL-2.0-or-later
"""When each task ran old and new functions, as SVG: a panel for each model, with a bar for each
task."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from experiment.run import Change

OLD, NEW, MIXED = "#4878a8", "#e8a33d", "#c44e52"
_LEFT, _WIDTH, _BAR, _GAP, _TITLE = 120, 760, 12, 4, 26


def _rectangle(x: float, y: float, width: float, fill: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{_BAR}" fill="{fill}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _colour(change: Change, task: str, count: int) -> tuple[str, str]:
    """Return the colour and the title of a task's bar between this change and the next.

    Where functions change one by one, no task has changed, and some functions are new for all of
    them.
    """
    if change.tasks.get(task):
        return NEW, "new"
    if change.functions and len(change.functions) < count:
        return MIXED, f"new: {', '.join(change.functions)}"
    return (NEW, "new") if change.functions else (OLD, "old")


def _panel(name: str, changes: list[Change], y: float, count: int) -> tuple[list[str], float]:
    tasks = sorted(changes[0].tasks) if changes else []
    parts = [_text(8, y + 16, name, 'font-weight="bold"')]
    if not changes:
        return [*parts, _text(_LEFT, y + 16, "nothing changed")], y + _TITLE
    start = changes[0].time
    end = max(changes[-1].time, start + 1e-3) + 0.02
    scale = _WIDTH / (end - start)
    parts.append(_text(_LEFT + _WIDTH, y + 16, f"{end - start:.2f} s", 'text-anchor="end"'))
    y += _TITLE
    for task in tasks:
        parts.append(_text(_LEFT - 8, y + _BAR - 2, task, 'text-anchor="end"'))
        for i, change in enumerate(changes):
            until = changes[i + 1].time if i + 1 < len(changes) else end
            if until > change.time:
                colour, side = _colour(change, task, count)
                at = f"{task}, {change.time - start:.3f} to {until - start:.3f} s: {side}"
                x = _LEFT + (change.time - start) * scale
                parts.append(_rectangle(x, y, (until - change.time) * scale, colour, at))
        y += _BAR + _GAP
    return parts, y + _GAP


def svg(panels: Iterable[tuple[str, list[Change]]], *, functions: int = 3) -> str:
    """Return the picture. ``panels``: the name and the changes of each; ``functions``: their number
    in the patch."""
    parts, y = [], 34.0
    for name, changes in panels:
        lines, y = _panel(name, changes, y, functions)
        parts += lines
    legend = []
    for i, (colour, text) in enumerate(
        ((OLD, "old universe"), (NEW, "new universe"), (MIXED, "some functions new"))
    ):
        legend.append(_rectangle(_LEFT + 160 * i, 10, _BAR, colour, text))
        legend.append(_text(_LEFT + 160 * i + 18, 20, text))
    width = _LEFT + _WIDTH + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 8:.0f}" '
            'font-family="sans-serif" font-size="11">',
            f'<rect width="{width}" height="{y + 8:.0f}" fill="white"/>',
            *legend,
            *parts,
            "</svg>\n",
        ]
    )
