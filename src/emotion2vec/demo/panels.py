"""What the page shows, as HTML: answers, timelines, segments, downloads, what went wrong.

Names of files, of models and labels come from outside and are escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from emotion2vec.demo.drawings import (
    axis_html,
    clock,
    color_of,
    colors_of,
    legend_html,
    percent,
    track_html,
)
from emotion2vec.demo.findings import Finding, Heard, agreement_of, shares
from emotion2vec.segments import Segment

KINDS = {
    "json": ("JSON", "everything, for programs"),
    "csv": ("CSV", "a table of the segments"),
    "srt": ("SRT", "subtitles"),
    "vtt": ("VTT", "subtitles for the web"),
    "rttm": ("RTTM", "for diarization tools"),
    "txt": ("Audacity", "labels: File > Import > Labels"),
    "png": ("PNG", "a picture of the timeline"),
}
"""Suffix of a file -> how it is called, and what it is."""

_CLOSE_SECONDS = 8
"""Shorter recordings fit on a screen: no buttons to look closer."""


def report_html(heard: Heard, sound: Path) -> str:
    """All that is told of a recording, with the element that plays it.

    Args:
        heard: what was found
        sound: the wav that the page serves
    """
    timelines = [f.timeline for f in heard.findings if f.timeline is not None]
    colors = colors_of([timeline.labels for timeline in timelines])
    cards = "".join(_card(finding, colors) for finding in heard.findings)
    tables = "".join(_table(f, colors, len(heard.findings) > 1) for f in heard.findings)
    return (
        f'<div class="e2v-report" data-duration="{heard.duration:.3f}">'
        f'<audio preload="auto" src="{address(sound)}"></audio>'
        f'<div class="e2v-head"><div><h2>{escape(heard.name)}</h2>'
        f'<p class="e2v-dim">{heard.duration:.1f} s</p></div>'
        '<button type="button" class="e2v-all"><span class="e2v-sign" aria-hidden="true"></span>'
        f'<span class="e2v-word">Play</span></button></div><div class="e2v-cards">{cards}</div>'
        f"{_comparison(heard)}{_timelines(heard, colors)}{tables}</div>"
    )


def address(file: Path) -> str:
    """Where gradio serves a file of its cache, from the page; safe inside an attribute.

    >>> address(Path("/tmp/a b/<i>.wav"))
    'gradio_api/file=/tmp/a%20b/%3Ci%3E.wav'
    """
    return f"gradio_api/file={quote(file.as_posix(), safe='/:')}"


def error_html(message: str) -> str:
    """One sentence that says what is wrong.

    >>> "&lt;b&gt;.wav is silent." in error_html("<b>.wav is silent.")
    True
    """
    said = f"<strong>That did not work:</strong> {escape(message)}"
    return f'<div class="e2v-error" role="alert">{said}</div>'


def downloads_html(files: Sequence[tuple[str, Sequence[Path]]]) -> str:
    """Links to the files of each model.

    Args:
        files: names of models, and their files
    """
    parts = []
    for model, of_model in files:
        links = "".join(_link(file) for file in of_model)
        name = f"Download: {escape(model)}" if len(files) > 1 else "Download"
        parts.append(f'<h3>{name}</h3><div class="e2v-links">{links}</div>')
    return f'<div class="e2v-downloads">{"".join(parts)}</div>' if parts else ""


def sentence(heard: Heard) -> str:
    """How far the two models of a comparison agree, in words; nothing without two timelines."""
    if len(heard.findings) != 2:
        return ""
    one, two = heard.findings
    if one.timeline is None or two.timeline is None:
        return ""
    first, second = (str(f.recognition.label) for f in (one, two))
    whole = (
        f"as a whole, both hear {first}"
        if first.casefold() == second.casefold()
        else f"as a whole, {one.model} hears {first} and {two.model} {second}"
    )
    agreed = agreement_of(one.timeline, two.timeline)
    if not agreed.either:
        return f"Neither found speech in time; {whole}."
    return (
        f"The two give the same label for {percent(agreed.share)} of the speech "
        f"({agreed.same:.1f} of {agreed.either:.1f} s); {whole}."
    )


def _comparison(heard: Heard) -> str:
    text = sentence(heard)
    return f'<p class="e2v-agreement">{escape(text)}</p>' if text else ""


def _card(finding: Finding, colors: Mapping[str, str]) -> str:
    """A model's answer for the whole: the label, then all scores and values."""
    found = finding.recognition
    answer = f'<div class="e2v-name">{escape(finding.model)}</div>'
    if found.label is not None and found.score is not None:
        color = color_of(found.label, colors)
        answer += (
            f'<div class="e2v-answer"><i style="background:{color}"></i>'
            f'<span class="e2v-label">{escape(found.label)}</span>'
            f'<span class="e2v-score">{percent(found.score)}</span></div>'
        )
    if finding.abstains:
        best = max(found.scores, key=lambda label: found.scores[label])
        note = f"No score reaches {percent(finding.abstain)}; the highest is that of {best}."
        answer += f'<p class="e2v-dim">{escape(note)}</p>'
    bars = [
        _bar(label, score, percent(score), color_of(label, colors))
        for label, score in sorted(found.scores.items(), key=lambda item: -item[1])
    ]
    values = [
        _bar(name, value, f"{value:.2f}", "var(--e2v-accent)")
        for name, value in found.dimensions.items()
    ]
    return (
        f'<section class="e2v-card" aria-label="{escape(finding.model)}"><div>{answer}</div>'
        f'<div class="e2v-bars">{"".join([*bars, *values])}</div>{_in_time(finding)}</section>'
    )


def _bar(name: str, share: float, text: str, color: str) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f"<span>{escape(name)}</span>"
        f'<span class="e2v-bar"><i style="width:{width:.1f}%;background:{color}"></i></span>'
        f'<span class="e2v-number">{text}</span>'
    )


def _in_time(finding: Finding) -> str:
    if finding.timeline is None:
        return '<p class="e2v-dim">This model answers values, not labels: no timeline.</p>'
    found = shares(finding.timeline)
    if not found:
        return '<p class="e2v-dim">No speech was found, so nothing is labelled in time.</p>'
    total = sum(seconds for _, seconds in found)
    parts = ", ".join(f"{label} {percent(seconds / total)}" for label, seconds in found)
    parts = escape(parts).replace(" %", "&nbsp;%")  # a number and its sign stay together
    return f'<p class="e2v-dim">Of {total:.1f} s of speech: {parts}.</p>'


def _timelines(heard: Heard, colors: Mapping[str, str]) -> str:
    """The tracks of all models on one axis."""
    timelines = [f.timeline for f in heard.findings if f.timeline is not None]
    if not timelines:
        return ""
    tracks = "".join(
        track_html(finding.timeline, heard.outline, colors, name=finding.model)
        for finding in heard.findings
        if finding.timeline is not None
    )
    closer = "".join(
        f'<button type="button" class="e2v-zoom" data-by="{by}" aria-label="{said}">{sign}</button>'
        for by, said, sign in ((0.5, "show more time", "\u2212"), (2, "look closer", "+"))
    )
    return (
        '<section class="e2v-time" aria-label="timeline"><div class="e2v-above">'
        '<h3>Timeline</h3><span class="e2v-now" aria-live="off">'
        f"{clock(0)}</span>{closer if heard.duration >= _CLOSE_SECONDS else ''}</div>"
        f'<div class="e2v-scroll"><div class="e2v-inner">{tracks}{axis_html(heard.duration)}</div>'
        f'</div>{legend_html(timelines, colors)}<p class="e2v-dim">Click a segment to hear it.</p>'
        "</section>"
    )


def _table(finding: Finding, colors: Mapping[str, str], named: bool) -> str:
    if finding.timeline is None or not finding.timeline.segments:
        return ""
    rows = "".join(_row(segment, colors) for segment in finding.timeline.segments)
    count = len(finding.timeline.segments)
    title = f"{count} segment{'s' if count > 1 else ''}"
    title += f" of {escape(finding.model)}" if named else ""
    return (
        f'<details class="e2v-segments" open><summary>{title}</summary><div class="e2v-rows">'
        '<table><thead><tr><th><span class="e2v-hidden">play</span></th><th>start</th><th>end</th>'
        f"<th>label</th><th>score</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _row(segment: Segment, colors: Mapping[str, str]) -> str:
    start, end = clock(segment.start), clock(segment.end)
    said = escape(f"play {segment.label}, {start} to {end}")
    return (
        f'<tr data-start="{segment.start:.3f}" data-end="{segment.end:.3f}">'
        f'<td><button type="button" class="e2v-play" aria-label="{said}"><span class="e2v-sign" '
        f'aria-hidden="true"></span></button></td><td>{start}</td><td>{end}</td>'
        f'<td><i style="background:{color_of(segment.label, colors)}"></i>{escape(segment.label)}'
        f"</td><td>{percent(segment.score)}</td></tr>"
    )


def _link(file: Path) -> str:
    name, what = KINDS[file.suffix.removeprefix(".")]
    return (
        f'<a href="{address(file)}" download="{escape(file.name)}" title="{escape(what)}">'
        f"{escape(name)}</a>"
    )
