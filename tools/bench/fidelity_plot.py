"""Size against fidelity as an SVG, written by hand: no plotting library for one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["Point", "svg"]

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 170, 24, 52
_FONT: Final = 'font-family="sans-serif" font-size="12"'
_UPRIGHT: Final = 'text-anchor="middle" transform="rotate(-90 18 '
_COLOURS: Final = ("#1f77b4", "#d62728", "#7f7f7f", "#2ca02c", "#9467bd", "#8c564b")


class Point(NamedTuple):
    """A model's size in megabytes, and its mean cosine."""

    megabytes: float
    cosine: float


def svg(families: Mapping[str, Sequence[Point]], curves: Sequence[str]) -> str:
    """Draw one minus the cosine, on a logarithmic scale, over the size.

    Parameters
    ----------
    families : mapping of str to points
    curves : sequence of str
        Families whose points are joined.
    """
    points = [point for family in families.values() for point in family]
    right = math.ceil(max(point.megabytes for point in points) / 2) * 2
    low = math.floor(math.log10(min(1 - point.cosine for point in points)))
    high = math.ceil(math.log10(max(1 - point.cosine for point in points)))

    def x(megabytes: float) -> float:
        return _LEFT + megabytes / right * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _TOP + (high - math.log10(loss)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for megabytes in range(0, right + 1, 2):
        lines += [
            _line(x(megabytes), _TOP, x(megabytes), _HEIGHT - _BOTTOM),
            _text(x(megabytes), _HEIGHT - _BOTTOM + 18, str(megabytes), "middle"),
        ]
    for exponent in range(low, high + 1):
        height = y(10.0**exponent)
        label = f"{10.0**exponent:.{max(0, -exponent)}f}"
        lines += [
            _line(_LEFT, height, _WIDTH - _RIGHT, height),
            _text(_LEFT - 8, height + 4, label, "end"),
        ]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    lines += [
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "whole file, MB", "middle"),
        f'<text x="18" y="{middle}" {_UPRIGHT}{middle})">1 − mean cosine</text>',
    ]
    for index, (name, family) in enumerate(families.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = [(x(point.megabytes), y(1 - point.cosine)) for point in sorted(family)]
        if name in curves:
            path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{d:.1f}" r="3.5" fill="{colour}"/>' for a, d in places]
        top = _TOP + 14 + 20 * index
        lines.append(f'<circle cx="{_WIDTH - _RIGHT + 18}" cy="{top - 4}" r="4" fill="{colour}"/>')
        lines.append(_text(_WIDTH - _RIGHT + 30, top, name, "start"))
    return "\n".join([*lines, "</svg>", ""])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222222">{text}</text>'
