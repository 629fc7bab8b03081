"""Score against size as an SVG, written by hand: no plotting library for one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Mark", "score_plot"]

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 40, 24, 52
_FONT: Final = 'font-family="sans-serif" font-size="12"'
_COLOUR: Final = "#1f77b4"
_TICKS: Final = 6


class Mark(NamedTuple):
    """A file: its size, the score of what is in it, and what stands beside it."""

    nbytes: int
    score: float
    label: str


def score_plot(marks: Sequence[Mark]) -> str:
    """Draw scores over sizes, joined in the order of the sizes.

    Parameters
    ----------
    marks : sequence of Mark
        One at least; those with scores that are not finite are left out.
    """
    marks = sorted(mark for mark in marks if math.isfinite(mark.score))
    sizes = _Axis([0.0, *(mark.nbytes / 1000 for mark in marks)], _LEFT, _WIDTH - _RIGHT)
    scores = _Axis([mark.score for mark in marks], _HEIGHT - _BOTTOM, _TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for tick in sizes.ticks:
        x = sizes(tick)
        lines += [
            _line(x, _TOP, x, _HEIGHT - _BOTTOM),
            _text(x, _HEIGHT - _BOTTOM + 18, f"{tick:g}", "middle"),
        ]
    for tick in scores.ticks:
        y = scores(tick)
        lines += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(_LEFT - 8, y + 4, f"{tick:g}", "end")]
    lines.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "kB, the whole file", "middle"))
    lines.append(_text(_LEFT, _TOP - 8, "score", "end"))
    points = [(sizes(mark.nbytes / 1000), scores(mark.score), mark.label) for mark in marks]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    lines.append(f'<polyline points="{joined}" fill="none" stroke="{_COLOUR}"/>')
    for x, y, label in points:
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOUR}"/>')
        lines.append(_text(x + 6, y + 14, label, "start"))
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """Numbers to places, over a range whose ends are round."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        low, high = min(values, default=0.0), max(values, default=1.0)
        width = (high - low or abs(high) or 1.0) / _TICKS
        power = 10.0 ** math.floor(math.log10(width))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))
        first, last = math.floor(low / step), math.ceil(high / step)
        last += last == first
        self.ticks = [round(index * step, 12) for index in range(first, last + 1)]
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self._start + share * (self._stop - self._start)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'
