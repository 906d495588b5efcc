"""The timeline as HTML: a waveform coloured by segment, bands that are buttons, a time axis.

Places are in percent of the recording, so that the browser fits it to any width. The script of
`looks` makes the buttons play. N columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from emotion2vec.plots import NO_LABEL, label_colors
from emotion2vec.recognize import UNKNOWN
from emotion2vec.segments import Segment
from emotion2vec.timeline import Timeline

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200)
"""Seconds between marks of an axis."""

_FEW, _MANY = 6, 36
"""Marks on the whole axis, and on one that is looked at closely."""


def track_html(
    timeline: Timeline, outline: NDArray[np.float32], colors: Mapping[str, str], *, name: str
) -> str:
    """One model's timeline: its name, the waveform, a button for each segment.

    Args:
        timeline: of the recording
        outline: (N,) largest absolute samples, evenly over the recording
        colors: of labels, as `colors_of` gives
        name: of the model
    """
    buttons = "".join(
        _button(segment, timeline.duration, colors, first=not number)
        for number, segment in enumerate(timeline.segments)
    )
    return (
        f'<div class="e2v-track"><div class="e2v-name">{escape(name)}</div>'
        f'<div class="e2v-lane" role="group" aria-label="{escape(name)}: segments in time; arrow '
        f'keys move, Enter plays">{waveform_svg(outline, timeline, colors)}{buttons}'
        '<div class="e2v-playhead"></div></div></div>'
    )


def waveform_svg(
    outline: NDArray[np.float32], timeline: Timeline, colors: Mapping[str, str]
) -> str:
    """The waveform: grey, and in the colour of the label within each segment.

    >>> picture = waveform_svg(np.ones(4, np.float32), Timeline("a", 2.0, (), (), 0.5), {})
    >>> picture.count("<path"), 'viewBox="0 0 4 100"' in picture
    (1, True)
    """
    columns = len(outline)
    heights = 48 * outline / max(float(outline.max(initial=0.0)), 1e-3)
    places = (np.arange(columns) + 0.5) / max(columns, 1) * timeline.duration
    paths = [f'<path class="e2v-quiet" d="{_shape(heights, 0)}"/>']
    for s in timeline.segments:
        first, last = np.searchsorted(places, [s.start, s.end])
        if last > first:
            shape = _shape(heights[first:last], int(first))
            paths.append(f'<path fill="{color_of(s.label, colors)}" d="{shape}"/>')
    return (
        f'<svg class="e2v-wave" viewBox="0 0 {columns} 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(paths)}</svg>'
    )


def axis_html(duration: float) -> str:
    """The time axis under the tracks; its finer marks show when it is looked at closely."""
    few, many = marks(duration, _FEW), marks(duration, _MANY)
    parts = []
    for seconds in sorted({*few, *many}):
        fine = "" if seconds in few else ' class="e2v-fine"'
        left = 100 * seconds / duration
        parts.append(f'<span{fine} style="left:{left:.3f}%">{_mark(seconds, duration)}</span>')
    return f'<div class="e2v-axis" aria-hidden="true">{"".join(parts)}</div>'


def legend_html(timelines: Sequence[Timeline], colors: Mapping[str, str]) -> str:
    """The labels that occur, with colour and name."""
    found = {s.label.casefold(): s.label for t in timelines for s in t.segments}
    items = "".join(
        f'<li><i style="background:{color_of(label, colors)}"></i>{escape(label)}</li>'
        for label in sorted(found.values())
    )
    return f'<ul class="e2v-legend" aria-label="colours">{items}</ul>' if items else ""


def colors_of(labels: Sequence[Sequence[str]]) -> dict[str, str]:
    """The colour of each label of some models, in lower case; what they share has one colour.

    "unknown" has none, whether a model abstains or was taught that label.

    >>> colors_of([("sad", "happy", "unknown"), ("Happy", "calm")])
    {'sad': '#0072B2', 'happy': '#E69F00', 'calm': '#009E73'}
    """
    names = dict.fromkeys(label.casefold() for of_one in labels for label in of_one)
    return label_colors([name for name in names if name != UNKNOWN])


def color_of(label: str, colors: Mapping[str, str]) -> str:
    """The colour of a label; grey for what is none."""
    return colors.get(label.casefold(), NO_LABEL)


def ink_on(color: str) -> str:
    """Black or white, what is read better on a colour.

    Source: relative luminance and contrast of WCAG 2.2.

    >>> ink_on("#0072B2"), ink_on("#E69F00")
    ('#fff', '#000')
    """
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"


def marks(duration: float, about: int) -> list[float]:
    """Round times from 0 to the end of a recording, at most so many and the first.

    >>> marks(2.6, 6)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    step = next((step for step in _STEPS if duration / step <= about), _STEPS[-1])
    return [round(step * i, 3) for i in range(int(duration / step) + 1)]


def clock(seconds: float) -> str:
    """A time as one reads it: minutes, seconds, tenths.

    >>> clock(2.54), clock(75)
    ('0:02.5', '1:15.0')
    """
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02}.{tenths % 10}"


def percent(share: float) -> str:
    """A share in whole percent; what is small is not nothing.

    >>> percent(0.784), percent(0.003), percent(0)
    ('78 %', '<1 %', '0 %')
    """
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _mark(seconds: float, duration: float) -> str:
    if duration < 60:
        return f"{seconds:g} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _button(segment: Segment, duration: float, colors: Mapping[str, str], *, first: bool) -> str:
    """A segment over the whole height of its track; one of a track is reached by the tab key."""
    start, end = 100 * segment.start / duration, 100 * min(segment.end, duration) / duration
    color = color_of(segment.label, colors)
    said = escape(
        f"{clock(segment.start)} to {clock(segment.end)}: {segment.label}, "
        f"{percent(segment.score)}; play"
    )
    return (
        f'<button type="button" class="e2v-segment" data-start="{segment.start:.3f}" '
        f'data-end="{segment.end:.3f}" tabindex="{0 if first else -1}" aria-label="{said}" '
        f'title="{said}" style="left:{start:.3f}%;width:{max(end - start, 0.05):.3f}%;'
        f'--color:{color};--ink:{ink_on(color)}"><span>{escape(segment.label)}</span></button>'
    )


def _shape(heights: NDArray[np.float32], first: int) -> str:
    """A mirrored outline around the middle of a picture 100 high, from column `first` on."""
    x = np.arange(first, first + len(heights)) + 0.5
    x = np.concatenate([[first], x, [first + len(heights)]])
    heights = np.concatenate([heights[:1], heights, heights[-1:]]).clip(0.6)
    top = [f"{at:g} {50 - height:.1f}" for at, height in zip(x, heights, strict=True)]
    bottom = [f"{at:g} {50 + height:.1f}" for at, height in zip(x, heights, strict=True)]
    return f"M{'L'.join([*top, *reversed(bottom)])}Z"
