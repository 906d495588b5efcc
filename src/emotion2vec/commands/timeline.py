"""`emotion2vec timeline`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format, align, names_in, shows_bar
from emotion2vec.commands.recognizers import DEFAULT_HEARING, Hearing, open_recognizer

if TYPE_CHECKING:
    from emotion2vec.manifest import Record
    from emotion2vec.recognize import Recognizer
    from emotion2vec.segments import Turn
    from emotion2vec.stream import StreamSettings
    from emotion2vec.timeline import Timeline

PICTURE = "png"
SETTINGS_NAME = ".settings.json"
"""Hidden: no recording is called so."""


def timeline(
    *sources: Annotated[str, Parameter(required=True)],
    model: str | None = None,
    out: Path | None = None,
    to: str | None = None,
    turns: Path | None = None,
    labels: str | None = None,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    hearing: Hearing = DEFAULT_HEARING,
    format: Format = "table",
    device: str | None = None,
    batch_seconds: float = 20.0,
    quiet: bool = False,
) -> int:
    """Say which emotion is when in long recordings.

    emotion2vec timeline meeting.mp3 --out meeting.srt

    emotion2vec timeline 'calls/*.wav' --turns calls.rttm --to json,vtt,png --out timelines

    Speech is found, heard in overlapping windows, and cut where its emotion changes. Hours take the
    memory of minutes. A recording that cannot be read is told, and the exit code is 3; a run that
    was killed goes on where it stopped.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp); - reads paths from standard
        input, one a line.
    model
        As in emotion2vec recognize.
    out
        A file that ends in .json, .csv, .srt, .vtt, .rttm, .txt (Audacity's labels) or .png for one
        recording, or a folder; without it segments are printed.
    to
        What is written into the folder, with commas between: json, csv, srt, vtt, rttm, txt, png;
        without, the first two and png.
    turns
        RTTM file of who speaks when; each turn is labelled on its own, speech is not detected.
    labels
        Only these, with commas between; scores are renormalized over them.
    abstain
        Answer "unknown" where a segment's score is lower; 0 never does.
    language
        Of the labels.
    format
        How the answer is printed; "json" is one object a recording.
    device
        Where to compute, such as cpu or cuda.
    batch_seconds
        Audio in a batch.
    quiet
        No progress bar.
    """
    from emotion2vec.manifest import find_recordings
    from emotion2vec.segment_files import read_rttm

    settings = hearing.settings()
    records = find_recordings(sources)
    suffixes = _suffixes(out, to, len(records))
    speakers = None if turns is None else read_rttm(turns)
    recognizer = open_recognizer(
        model,
        labels=labels,
        quiet=quiet,
        abstain=abstain,
        language=language,
        device=device,
        batch_seconds=batch_seconds,
    )
    folder = out if _is_folder(out) else None
    if folder is not None:
        _check_settings(folder, recognizer, settings, turns)
    failed = there = 0
    for record in records:
        files = _files(record, out, suffixes)
        if folder is not None and all(file.is_file() for file in files):
            there += 1
            continue
        try:
            turns_of = _turns(record, speakers, only=len(records) == 1)
            found = _find(record, recognizer, settings, turns_of, quiet=quiet)
        except (OSError, ValueError) as error:
            failed += 1
            _tell(record, str(error), format)
            continue
        for file in files:
            _write(found, file)
        _print(found, files, format)
    if there and format == "table":
        print(f"{there} there already, in {out}.")
    return SOME_FAILED if failed else 0


def _is_folder(out: Path | None) -> bool:
    return out is not None and (out.is_dir() or not out.suffix)


def _suffixes(out: Path | None, to: str | None, count: int) -> list[str]:
    from emotion2vec.segment_files import SEGMENT_FILES

    known = [*SEGMENT_FILES, PICTURE]
    if to is not None and not _is_folder(out):
        raise ValueError(f"--to {to} is for a folder; give one as --out.")
    if out is None:
        return []
    if not _is_folder(out):
        wanted = [out.suffix.removeprefix(".").lower()]
        if count > 1:
            raise ValueError(f"--out {out} is one file, for {count} recordings; give a folder.")
    else:
        wanted = names_in(to) or ["json", "csv", PICTURE]
    for suffix in wanted:
        if suffix not in known:
            hint = "" if _is_folder(out) else " A new folder's name has no dot."
            raise ValueError(
                f"{suffix!r} is no kind of file; choose from {', '.join(known)}.{hint}"
            )
    if PICTURE in wanted:
        import matplotlib  # noqa: F401 (told before anything is computed)
    return wanted


def _files(record: Record, out: Path | None, suffixes: list[str]) -> list[Path]:
    if out is None:
        return []
    if not _is_folder(out):
        return [out]
    return [out / f"{record.key}.{suffix}" for suffix in suffixes]


def _turns(
    record: Record, speakers: dict[str, list[Turn]] | None, *, only: bool
) -> list[Turn] | None:
    from emotion2vec.segment_files import turns_for

    return None if speakers is None else turns_for(record.key, speakers, only=only)


def _find(
    record: Record,
    recognizer: Recognizer,
    settings: StreamSettings,
    turns: list[Turn] | None,
    *,
    quiet: bool,
) -> Timeline:
    from emotion2vec.timeline import timeline_of

    if record.start or record.end is not None:
        raise ValueError(
            f"{record.key} is a part of {record.path}; timelines are of whole recordings."
        )
    bar = shows_bar(quiet=quiet)
    return timeline_of(record.path, recognizer, settings, turns=turns, key=record.key, progress=bar)


def _check_settings(
    folder: Path,
    recognizer: Recognizer,
    settings: StreamSettings,
    turns: Path | None,
) -> None:
    """Write down what a folder's files are made with, or refuse to mix."""
    from dataclasses import asdict

    from emotion2vec.atomic import atomic_path

    facts = asdict(settings) | {
        "model": recognizer.fingerprint(),
        "labels": list(recognizer.labels),
        "policy": recognizer.policy,
        "turns": None if turns is None else hashlib.sha256(turns.read_bytes()).hexdigest()[:16],
    }
    file = folder / SETTINGS_NAME
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there != facts:
            other = [name for name in facts if facts[name] != there.get(name)]
            changes = ", ".join(f"{name} {there.get(name)}, now {facts[name]}" for name in other)
            raise ValueError(
                f"{folder} holds timelines made otherwise ({changes}); choose another folder."
            )
        return
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")


def _write(found: Timeline, file: Path) -> None:
    from emotion2vec.atomic import atomic_path
    from emotion2vec.segment_files import SEGMENT_FILES
    from emotion2vec.timeline import draw_timeline

    suffix = file.suffix.removeprefix(".").lower()
    with atomic_path(file) as temporary:
        if suffix == PICTURE:
            draw_timeline(found).savefig(temporary, dpi=130, format=PICTURE)
        else:
            text = SEGMENT_FILES[suffix](found)
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _print(found: Timeline, files: list[Path], format: Format) -> None:
    if format == "json":
        facts = found.to_dict() | {"files": [str(file) for file in files]}
        print(json.dumps(facts, ensure_ascii=False), flush=True)
        return
    print(f"{found.key}: {found.duration:.1f} s, {len(found.segments)} segments")
    if files:
        print("".join(f"  {file}\n" for file in files), end="", flush=True)
        return
    if not found.segments:
        print("  no speech was found; --whole labels everything.")
        return
    rows = [["label", "start", "end", "score", "next"]]
    for s in found.segments:
        name = f"{s.speaker}: {s.label}" if s.speaker else s.label
        others = sorted((-score, label) for label, score in s.scores.items() if label != s.label)
        following = f"{others[0][1]} {-others[0][0]:.2f}" if others else ""
        rows.append([name, f"{s.start:.2f}", f"{s.end:.2f}", f"{s.score:.2f}", following])
    print("\n".join(f"  {line}" for line in align(rows)), flush=True)


def _tell(record: Record, error: str, format: Format) -> None:
    if format == "json":
        print(json.dumps({"key": record.key, "error": error}, ensure_ascii=False), flush=True)
    print(f"left out: {record.key}: {error}", file=sys.stderr)
