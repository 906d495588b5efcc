"""Pictures: arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers, then two more.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C564B", "#555555")

NO_LABEL = _COLORS[-1]
"""The colour of what has no label, such as "unknown"."""

_FEW = 40
"""Points that are drawn one by one; a curve of more is smoothed."""


def confusion_figure(matrices: dict[str, NDArray[np.int64]], labels: Sequence[str]) -> Figure:
    """Confusion matrices side by side: share of each true class (row), in percent.

    Args:
        matrices: counts (classes, classes) by title, rows are the truth
        labels: name of each class
    """
    figure, axes = _panels(len(matrices), size=1.6 + 0.55 * len(labels))
    for axis, (title, counts) in zip(axes, matrices.items(), strict=True):
        share = 100 * counts / counts.sum(axis=1, keepdims=True).clip(1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(share):
            color = "white" if value > 55 else "black"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axis.set_yticks(range(len(labels)), labels)
        axis.set(title=title, xlabel="answered", ylabel="true")
    return figure


def map_figure(
    panels: dict[str, NDArray[np.floating[Any]]], labels: Sequence[str], *, seed: int = 0
) -> Figure:
    """Maps of vectors in the plane, coloured by label: UMAP where installed, else t-SNE.

    Args:
        panels: vectors (N, D) by title
        labels: one label a vector
        seed: of the projection
    """
    figure, axes = _panels(len(panels), size=4.6)
    names = sorted(set(labels))
    for axis, (title, vectors) in zip(axes, panels.items(), strict=True):
        method, points = project(vectors, seed=seed)
        for name, color in zip(names, _COLORS * (1 + len(names) // len(_COLORS)), strict=False):
            chosen = np.array([label == name for label in labels])
            x, y = points[chosen].T
            axis.scatter(x, y, s=14, color=color, label=name, linewidths=0)
        axis.set(title=f"{title} ({method})", xticks=[], yticks=[])
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(8, len(names)))
    return figure


def dots_figure(
    dots: dict[str, Sequence[float]],
    intervals: Sequence[tuple[float, float]],
    lines: dict[str, float],
    *,
    label: str,
) -> Figure:
    """Values in [0, 1] in percent, a row for each name, the first on top: dots, mean, interval.

    Args:
        dots: values by name
        intervals: from and to, for each name
        lines: values that stand for comparison, drawn through all rows
        label: of the values
    """
    names, values = list(dots), [100 * np.asarray(of_name) for of_name in dots.values()]
    height = 1.4 + sum(0.25 + 0.2 * (1 + name.count("\n")) for name in names)
    figure, [axis] = _panels(1, size=height)
    figure.set_figwidth(8.5)
    for row, (of_name, (low, high)) in enumerate(zip(values, intervals, strict=True)):
        axis.plot([100 * low, 100 * high], [row, row], color=_COLORS[0], linewidth=5, alpha=0.25)
        axis.plot(of_name, [row] * len(of_name), "o", color=_COLORS[0], markersize=4)
        axis.plot([of_name.mean()], [row], "|", color="black", markersize=14, markeredgewidth=2)
    for (name, value), color in zip(lines.items(), _COLORS[1:] * (1 + len(lines)), strict=False):
        axis.axvline(100 * value, color=color, linestyle="--", label=f"{name}, {100 * value:.1f}")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel=f"{label} (%)", ylim=(len(names) - 0.5, -0.5))
    axis.grid(axis="x", alpha=0.3)
    if lines:
        figure.legend(loc="outside upper center", ncols=len(lines))
    return figure


def conditions_figure(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    label: str,
    chance: float | None = None,
) -> Figure:
    """Scores under conditions in percent, a row for each: a dot and its interval for each name.

    Args:
        scores: of each name, by condition: the score, from and to; the first condition is what the
            others are compared with, and drawn through all rows
        label: of the scores
        chance: drawn through all rows
    """
    conditions = list(dict.fromkeys(c for of_name in scores.values() for c in of_name))
    figure, [axis] = _panels(1, size=1.2 + 0.13 * (2 + len(scores)) * len(conditions))
    figure.set_figwidth(8.5)
    for number, ((name, of_name), color) in enumerate(
        zip(scores.items(), _COLORS * (1 + len(scores) // len(_COLORS)), strict=False)
    ):
        shift = 0.7 * ((number + 0.5) / len(scores) - 0.5)
        for condition, (value, low, high) in of_name.items():
            row = conditions.index(condition) + shift
            axis.plot([100 * low, 100 * high], [row, row], color=color, linewidth=2.5, alpha=0.4)
            axis.plot([100 * value], [row], "o", color=color, markersize=4)
        clean = 100 * next(iter(of_name.values()))[0]
        axis.axvline(clean, color=color, linestyle="--", linewidth=1, alpha=0.7)
        axis.plot([], [], "o-", color=color, label=name)
    if chance is not None:
        axis.axvline(
            100 * chance, color="#555555", linestyle=":", label=f"chance, {100 * chance:.1f}"
        )
    for row in range(0, len(conditions), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    axis.set_yticks(range(len(conditions)), conditions)
    axis.set_xlabel(f"{label} (%), 95 % over speakers; dashed: {conditions[0]}")
    axis.set_ylim(len(conditions) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=min(3, len(scores) + 1))
    return figure


def transfer_figure(
    matrices: Mapping[str, NDArray[np.float64]], names: Sequence[str], *, label: str, chance: float
) -> Figure:
    """Scores of training on one corpus (row) and testing on another (column), in percent.

    Args:
        matrices: scores (corpora, corpora) by title
        names: of the corpora
        label: of the scores
        chance: the lightest colour
    """
    figure, axes = _panels(len(matrices), size=2.0 + 0.75 * len(names))
    top = max(float(np.nanmax(matrix)) for matrix in matrices.values())
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        axis.imshow(matrix, cmap="Blues", vmin=chance, vmax=max(top, chance + 0.01))
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value > chance + 0.6 * (top - chance) else "black"
            axis.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=color)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel=f"tested on, {label} (%)", ylabel="trained on")
        axis.set_title(title, fontsize=10)
    return figure


@dataclass(frozen=True)
class Panel:
    """One picture of curves."""

    title: str
    curves: dict[str, tuple[Sequence[float], Sequence[float]]]
    """x and y by name"""
    log: bool = False
    """logarithmic y; values that are not above zero are left out"""
    lines: dict[str, float] = field(default_factory=dict)
    """values to compare with, dashed, by name"""


def curves_figure(panels: Sequence[Panel], *, xlabel: str) -> Figure:
    """Curves over one axis x, three panels a row; of long curves the running mean stands out."""
    figure, axes = _grid(len(panels), columns=3, size=(4.4, 2.9))
    for axis, panel in zip(axes, panels, strict=True):
        for (name, (x, y)), color in zip(panel.curves.items(), _COLORS, strict=False):
            places, values = np.asarray(x), np.asarray(y, dtype=float)
            kept = np.isfinite(values) & ((values > 0) | (not panel.log))
            places, values = places[kept], values[kept]
            marker = "o" if len(values) <= _FEW else ""
            window = len(values) // _FEW
            if window > 1:
                axis.plot(places, values, color=color, alpha=0.25, linewidth=0.8)
                values = np.convolve(values, np.ones(window) / window, "valid")
                places = places[window // 2 :][: len(values)]
            axis.plot(places, values, f"{marker}-", color=color, label=name, lw=1.6, ms=2.5)
        for name, value in panel.lines.items():
            axis.axhline(value, color="#555555", linestyle="--", linewidth=1, label=name)
        axis.set_title(panel.title, fontsize=10, loc="left", fontweight="bold")
        axis.set_yscale("log" if panel.log else "linear")
        axis.set_xlabel(xlabel, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if len(panel.curves) + len(panel.lines) > 1:
            axis.legend(fontsize=7, frameon=False, ncols=2)
    return figure


def project(vectors: NDArray[Any], *, seed: int = 0) -> tuple[str, NDArray[Any]]:
    """Name of the method, and a point in the plane (N, 2) for each vector (N, D)."""
    try:
        from umap import UMAP
    except ImportError:
        from sklearn.manifold import TSNE

        perplexity = min(30, max(2, (len(vectors) - 1) // 3))
        return "t-SNE", TSNE(2, perplexity=perplexity, random_state=seed).fit_transform(vectors)
    return "UMAP", np.asarray(UMAP(random_state=seed).fit_transform(vectors))


def _panels(count: int, *, size: float) -> tuple[Figure, list[Axes]]:
    return _grid(count, columns=count, size=(size, size))


def _grid(count: int, *, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure and so many axes, `columns` a row, each of a size in inches."""
    rows = -(-count // columns)
    figure = _figure(size[0] * columns, size[1] * rows)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not through pyplot: no global state, and no window where there is no screen.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def label_colors(labels: Sequence[str]) -> dict[str, str]:
    """The colour of each label in pictures of time, as #RRGGBB; nine can be told apart.

    >>> label_colors(["sad", "happy"])["sad"]
    '#0072B2'
    """
    palette = (*_COLORS[:-1], "#F0E442", "#332288")
    return {label: palette[i % len(palette)] for i, label in enumerate(labels)}


def timeline_figure(
    outline: tuple[NDArray[Any], NDArray[Any]],
    segments: Sequence[tuple[float, float, str, float]],
    tracks: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    labels: Sequence[str],
    *,
    duration: float,
    title: str = "",
) -> Figure:
    """A recording in time: its waveform coloured by label, bands of scores, the confidence.

    Args:
        outline: times (N,) in seconds, and largest absolute samples (N,)
        segments: start, end (seconds), label, and score of each segment
        tracks: edges (n + 1,) in seconds, and scores (n, C), of each segment
        labels: C names; what is none of them ("unknown") is grey
        duration: of the recording, in seconds
        title: of the picture
    """
    figure, axes = _stack([1.3, 1.6, 0.8], width=11.0)
    wave, bands, confidence = axes
    colors = label_colors(labels)
    times, peaks = outline
    wave.fill_between(times, -peaks, peaks, color="#c8c8c8", linewidth=0)
    for start, end, label, _ in segments:
        color = colors.get(label, NO_LABEL)
        inside = (times >= start) & (times <= end)
        wave.fill_between(times, -peaks, peaks, where=inside, color=color, linewidth=0)
        wave.axvspan(start, end, ymin=0.94, color=color, linewidth=0)
    for edges, scores in tracks:
        stacked = np.cumsum(np.repeat(scores, 2, axis=0), axis=1)  # (2 n, C), steps
        x = np.repeat(edges, 2)[1:-1]
        below = np.zeros(len(x))
        for column, label in enumerate(labels):
            bands.fill_between(x, below, stacked[:, column], color=colors[label], linewidth=0)
            below = stacked[:, column]
        confidence.step(edges, np.append(scores.max(axis=1), scores[-1].max()), "k-", where="post")
    shown = [label for label in labels if any(label == s[2] for s in segments)]
    for label in [*shown, *(label for label in labels if label not in shown)]:
        bands.fill_between([], [], color=colors[label], label=label)
    wave.set(title=title, ylabel="waveform", yticks=[], xlim=(0, duration))
    limit = max(float(peaks.max(initial=0.0)), 1e-3) * 1.15
    wave.set_ylim(-limit, limit)
    bands.set(ylabel="scores", ylim=(0, 1), yticks=[0, 0.5, 1])
    confidence.set(ylabel="highest", ylim=(0, 1.02), yticks=[0, 0.5, 1], xlabel="time")
    confidence.grid(alpha=0.3)
    confidence.xaxis.set_major_formatter(lambda x, _: _minutes(x, duration))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*bands.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _minutes(seconds: float, duration: float) -> str:
    """Return a time as a clock shows it; seconds alone for short recordings.

    >>> _minutes(75, 600), _minutes(3725, 7200), _minutes(2.5, 10)
    ('1:15', '1:02:05', '2.5 s')
    """
    if duration < 60:
        return f"{seconds:g} s"
    whole = round(seconds)
    if duration < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _stack(heights: Sequence[float], *, width: float) -> tuple[Figure, list[Axes]]:
    """Return a figure and axes under each other that share their x axis, of heights in inches."""
    figure = _figure(width, sum(heights) + 0.6)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights))
    return figure, list(axes)
