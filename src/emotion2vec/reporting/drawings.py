"""Pictures for the page, as HTML and SVG that follow its colours; no library draws them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.reporting.tables import show

COLORS = 8
"""How many the style has: --c0 to --c7."""


class Bar(NamedTuple):
    """One line of a forest plot."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    is_baseline: bool


def forest(bars: Sequence[Bar], score: str, chance: float | None) -> str:
    """A line a bar: name, interval and dot on one axis for all, value; chance as a dashed line."""
    ends = [x for bar in bars for x in (bar.value, *(bar.interval or ())) if x is not None]
    ends += [chance] if chance is not None else []
    low, high = axis(ends)

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    parts = []
    for bar in bars:
        control = " control" if bar.is_baseline else ""
        marks = [] if chance is None else [f'<i class="chance" style="left:{place(chance)}"></i>']
        if bar.interval is not None:
            width = f"{100 * (bar.interval[1] - bar.interval[0]) / (high - low):.2f}%"
            left = place(bar.interval[0])
            marks.append(f'<i class="ci" style="left:{left};width:{width}"></i>')
        if bar.value is not None:
            marks.append(f'<i class="dot" style="left:{place(bar.value)}"></i>')
        parts.append(
            f'<span class="{control}">{html.escape(bar.name)}</span>'
            f'<span class="track{control}">{"".join(marks)}</span>'
            f'<span class="{control}">{show(score, bar.value)}</span>'
        )
    ends_text = f"<span>{show(score, low)}</span><span>{show(score, high)}</span>"
    return (
        f'<div class="forest">{"".join(parts)}<span></span><span class="axis">{ends_text}</span>'
        "<span></span></div>"
    )


def axis(values: Sequence[float]) -> tuple[float, float]:
    """From and to of an axis in tenths that holds the values.

    >>> axis([0.12, 0.57])
    (0.1, 0.6)
    """
    low = math.floor(min(values, default=0) * 10 + 1e-9) / 10
    high = math.ceil(max(values, default=1) * 10 - 1e-9) / 10
    return low, high if high > low else low + 0.1


class Shade(NamedTuple):
    """A field of a heat map."""

    text: str
    strength: float
    """in [0, 1]"""
    small: str = ""
    title: str = ""


def heat(
    header: Sequence[str],
    lines: Mapping[str, Sequence[Shade | None]],
    *,
    corner: str = "",
    tilted: bool = True,
) -> str:
    """A table whose fields are the darker, the stronger they are; None is an empty field."""
    tilt = '<span class="tilt">{}</span>' if tilted else "{}"
    heads = "".join(f"<th>{tilt.format(html.escape(name))}</th>" for name in header)
    rows = []
    for name, shades in lines.items():
        fields = "".join(map(_field, shades))
        rows.append(f"<tr><th>{html.escape(name)}</th>{fields}</tr>")
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th>{html.escape(corner)}</th>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _field(shade: Shade | None) -> str:
    if shade is None:
        return "<td>–</td>"
    strength = min(1.0, max(0.0, shade.strength))
    hot = ' class="hot"' if strength > 0.72 else ""
    title = f' title="{html.escape(shade.title)}"' if shade.title else ""
    small = f"<small>{html.escape(shade.small)}</small>" if shade.small else ""
    return f'<td{hot}{title} style="--v:{strength:.3f}">{html.escape(shade.text)}{small}</td>'


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """A confusion matrix: of each true class (line) the percentage that got each answer."""
    counts = np.asarray(matrix, dtype=float)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    lines = {
        label: [
            Shade(f"{100 * share:.0f}", float(share), title=f"{count:.0f} answers")
            for share, count in zip(shares[i], counts[i], strict=True)
        ]
        for i, label in enumerate(labels)
    }
    return heat(labels, lines, corner="true")


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 270, 44, 12, 10, 54

Curve = Sequence[tuple[float, tuple[float, float] | None] | None]
"""For each place of the axis a value and its interval, or None."""


def line_chart(
    places: Sequence[str],
    curves: Mapping[str, Curve],
    score: str,
    label: str,
    *,
    joined: bool = True,
) -> str:
    """Curves over named places, with their intervals as bars; colours go by order.

    Args:
        places: the axis, from left to right
        curves: by name, as many points as places
        score: whose values they are
        label: of the axis
        joined: whether lines go from point to point; not where places have no order
    """
    points = [point for curve in curves.values() for point in curve if point]
    low, high = axis([x for value, interval in points for x in (value, *(interval or ()))])
    span = (_WIDTH - _LEFT - _RIGHT) / max(1, len(places))
    inner = _HEIGHT - _TOP - _BOTTOM

    def y(value: float) -> float:
        return _TOP + inner * (high - value) / (high - low)

    parts = []
    step = 0.1 if high - low < 0.55 else 0.2
    for tick in np.arange(low, high + 1e-9, step):
        line = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line class="grid-line" {line}/>')
        text = show(score, float(tick))
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    every = -(-len(places) // 13)  # as many names as fit
    for i, place in enumerate(places):
        if i % every == 0:
            x, below = _LEFT + span * (i + 0.5), _HEIGHT - _BOTTOM + 16
            name = html.escape(place)
            parts.append(f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{name}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    under = (
        f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">{html.escape(label)}</text>'
    )
    for number, (name, curve) in enumerate(curves.items()):
        shift = span * 0.5 * ((number + 0.5) / len(curves) - 0.5)  # so that bars do not overlap
        color = f"var(--c{number % COLORS})"
        parts += _marks(name, curve, color, span, shift, y, score)
        if joined:
            xs = [_LEFT + span * (i + 0.5) + shift for i in range(len(curve))]
            ends = [
                f"{x:.1f},{y(point[0]):.1f}" for x, point in zip(xs, curve, strict=True) if point
            ]
            line = f'fill="none" stroke="{color}" stroke-width="1.6"'
            parts.append(f'<polyline points="{" ".join(ends)}" {line}/>')
    title = f"<title>{html.escape(label)}</title>"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{title}{"".join(parts)}{under}</svg>'


def _marks(
    name: str, curve: Curve, color: str, span: float, shift: float, y: Any, score: str
) -> list[str]:
    """Return a dot and the bar of its interval for each point."""
    parts = []
    for i, point in enumerate(curve):
        if point is None:
            continue
        value, interval = point
        x = _LEFT + span * (i + 0.5) + shift
        if interval is not None:
            ends = f'y1="{y(interval[0]):.1f}" y2="{y(interval[1]):.1f}"'
            bar = f'x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{color}"'
            parts.append(f'<line {bar} stroke-width="3" opacity=".3"/>')
        title = f"<title>{html.escape(name)}: {show(score, value)}</title>"
        dot = f'cx="{x:.1f}" cy="{y(value):.1f}" r="3.2" fill="{color}"'
        parts.append(f"<circle {dot}>{title}</circle>")
    return parts


def scatter(points: NDArray[Any], labels: Sequence[str], names: Sequence[str], title: str) -> str:
    """Points in the plane (N, 2), coloured by label in the order of `names`."""
    size, margin = 320, 8
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = margin + (points - low) / np.maximum(high - low, 1e-9) * (size - 2 * margin)
    number = {name: i % COLORS for i, name in enumerate(names)}
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{size - y:.1f}" r="3" opacity=".75" '
        f'fill="var(--c{number.get(label, 0)})"><title>{html.escape(label)}</title></circle>'
        for (x, y), label in zip(scaled, labels, strict=True)
    )
    frame = f'<rect class="frame" x=".5" y=".5" width="{size - 1}" height="{size - 1}"/>'
    return (
        f'<svg viewBox="0 0 {size} {size}" role="img"><title>{html.escape(title)}</title>'
        f"{frame}{dots}</svg>"
    )


def legend(names: Sequence[str]) -> str:
    """Names with their colours, by order as in `line_chart` and `scatter`."""
    items = "".join(
        f'<span><i style="background:var(--c{i % COLORS})"></i>{html.escape(name)}</span>'
        for i, name in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'
