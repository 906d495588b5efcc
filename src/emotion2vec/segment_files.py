"""Segments as files: JSON, CSV, subtitles, RTTM, Audacity's labels; speaker turns from RTTM."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from emotion2vec.segments import Turn

if TYPE_CHECKING:
    from emotion2vec.timeline import Timeline


LAST_SECONDS = 1e7
"""Four months: what no recording lasts."""


def read_rttm(path: str | Path) -> dict[str, list[Turn]]:
    """Speaker turns by recording, as diarization tools write them.

    Lines are `SPEAKER file channel start duration <NA> <NA> speaker ...`, times in seconds; other
    lines are passed over.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if a line is broken, or there is no turn

    Source: NIST, Rich Transcription 2009 evaluation plan, appendix A.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.rttm"
    >>> _ = file.write_text("SPEAKER talk 1 0.50 2.00 <NA> <NA> anna <NA> <NA>")
    >>> read_rttm(file)
    {'talk': [Turn(start=0.5, end=2.5, speaker='anna')]}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; check the path of the speaker turns.")
    turns: dict[str, list[Turn]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error.reason}); write it as UTF-8.") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0] != "SPEAKER":
            continue
        try:
            start, duration, speaker = float(words[3]), float(words[4]), words[7]
            if not (0 <= start <= LAST_SECONDS and 0 <= duration <= LAST_SECONDS):
                raise ValueError
        except (ValueError, IndexError):
            raise ValueError(
                f"{path}, line {number} is {line[:60]!r}; a turn is SPEAKER file 1 start duration "
                "<NA> <NA> speaker, with times in seconds."
            ) from None
        if duration:
            turns.setdefault(words[1], []).append(Turn(start, start + duration, speaker))
    if not turns:
        raise ValueError(
            f"{path} has no SPEAKER line with a duration above 0; give speaker turns as RTTM."
        )
    return turns


def turns_for(key: str, turns: dict[str, list[Turn]], *, only: bool = True) -> list[Turn]:
    """The turns of one recording, found by its key or the key's last part.

    Args:
        key: of the recording
        turns: of `read_rttm`
        only: no other recording is asked for; then the only turns there are are meant

    Raises:
        ValueError: if they are of other recordings

    >>> turns_for("talks/a", {"a": [Turn(0.0, 1.0, "x")], "b": []})
    [Turn(start=0.0, end=1.0, speaker='x')]
    """
    for name in (key, Path(key).name, Path(key).stem):
        if name in turns:
            return turns[name]
    if len(turns) > 1 or not only:
        raise ValueError(
            f"the speaker turns are of {', '.join(sorted(turns)[:5])}, none of {key}; name the "
            "recording as in the RTTM file."
        )
    return next(iter(turns.values()))


def _json(timeline: Timeline) -> str:
    return json.dumps(timeline.to_dict(), ensure_ascii=False, indent=1) + "\n"


def _csv(timeline: Timeline) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"scores.{label}" for label in timeline.labels]
    writer.writerow(["start", "end", "speaker", "label", "score", *names])
    for s in timeline.segments:
        scores = [f"{s.scores[label]:.4f}" for label in timeline.labels]
        row = [f"{s.start:.3f}", f"{s.end:.3f}", s.speaker or "", s.label, f"{s.score:.4f}"]
        writer.writerow(row + scores)
    return text.getvalue()


def _clock(seconds: float, point: str) -> str:
    """Return hours, minutes, seconds and milliseconds.

    >>> _clock(3725.5, ",")
    '01:02:05,500'
    """
    whole = round(1000 * seconds)
    return (
        f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}"
        f"{point}{whole % 1000:03}"
    )


def _said(label: str, score: float, speaker: str | None) -> str:
    label, speaker = " ".join(label.split()), speaker and " ".join(speaker.split())
    return f"{speaker}: {label} {score:.0%}" if speaker else f"{label} {score:.0%}"


def _srt(timeline: Timeline) -> str:
    return "\n".join(
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n"
        f"{_said(s.label, s.score, s.speaker)}\n"
        for number, s in enumerate(timeline.segments, start=1)
    )


def _vtt(timeline: Timeline) -> str:
    cues = (
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n"
        f"{_voice(s.speaker)}{html.escape(_said(s.label, s.score, None), quote=False)}\n"
        for s in timeline.segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def _voice(speaker: str | None) -> str:
    """Return WebVTT's tag of who speaks; it has no way to write a > in a name.

    >>> _voice("anna & <ben>")
    '<v anna &amp; &lt;ben&gt;>'
    """
    return f"<v {html.escape(' '.join(speaker.split()), quote=False)}>" if speaker else ""


def _rttm(timeline: Timeline) -> str:
    # Names in RTTM have no spaces. The emotion stands where the speaker does, as in emotion
    # diarization; the speaker has no place there.
    name = "_".join(timeline.key.split()) or "recording"
    return "".join(
        f"SPEAKER {name} 1 {s.start:.3f} {s.end - s.start:.3f} <NA> <NA> "
        f"{'_'.join(s.label.split())} {s.score:.4f} <NA>\n"
        for s in timeline.segments
    )


def _audacity(timeline: Timeline) -> str:
    return "".join(
        f"{s.start:.6f}\t{s.end:.6f}\t{_said(s.label, s.score, s.speaker)}\n"
        for s in timeline.segments
    )


SEGMENT_FILES: dict[str, Callable[[Timeline], str]] = {
    "json": _json,
    "csv": _csv,
    "srt": _srt,
    "vtt": _vtt,
    "rttm": _rttm,
    "txt": _audacity,
}
"""Suffix of a file -> its text for a timeline; `txt` is Audacity's labels (File > Import)."""
