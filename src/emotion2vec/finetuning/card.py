"""The card of a fine-tuned model, written from what happened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.targets import UNKNOWN, Outputs, counts_by_class
from emotion2vec.manifest import Record

_TITLES = {"wa": "WA", "ua": "UA", "wf1": "WF1", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class Facts:
    """What a card cannot know by itself."""

    data: tuple[str, ...] = ()
    """what the recordings were given as"""
    licence: str = ""
    """of the data, in words"""
    weights_licence: str = ""
    """of the weights, as a hub writes it, such as cc-by-nc-sa-4.0"""
    command: str = ""
    """that repeats the run"""


def write_card(
    path: Path,
    model: str,
    config: FinetuneConfig,
    outputs: Outputs,
    records: Sequence[Record],
    found: Mapping[str, Any],
    facts: Facts,
) -> None:
    """Write a model card: what it answers, from what data, how good, how to repeat it.

    Args:
        path: file to write
        model: the encoder that it was made from
        config: how it was trained
        outputs: what it answers
        records: that it was trained on
        found: scores, as `emotion2vec.finetuning.evaluation.details` gives them
        facts: what else to say
    """
    sections = [
        _head(model, outputs, records, facts),
        _answers(outputs),
        _data(records, found, facts),
        _scores(found),
        _calibration(found),
        _made(model, config, facts),
    ]
    path.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")


def _head(model: str, outputs: Outputs, records: Sequence[Record], facts: Facts) -> str:
    languages = sorted({r.language for r in records if r.language})
    front = {
        "library_name": "emotion2vec",
        "pipeline_tag": "audio-classification",
        "base_model": model.removeprefix("hf:") if _is_on_a_hub(model) else None,
        "tags": ["emotion", "speech"],
        "language": languages or None,
        "license": facts.weights_licence or None,
    }
    shown = yaml.safe_dump({k: v for k, v in front.items() if v}, sort_keys=False)
    return f"---\n{shown}---\n\n# Emotion in speech, from {model}"


def _is_on_a_hub(model: str) -> bool:
    """Whether a hub would know the name; it refuses cards that name another."""
    name = model.removeprefix("hf:")
    return bool(re.fullmatch(r"[\w-]+/[\w.-]+", name)) and not Path(name).exists()


def _answers(outputs: Outputs) -> str:
    lines = ["## What it answers", ""]
    if outputs.labels:
        lines.append(f"Classes, in the order of the outputs: {', '.join(outputs.labels)}.")
    if UNKNOWN in outputs.labels:
        lines.append(
            f'"{UNKNOWN}" was learned from made noise, tones, music and near silence: sound that '
            "is no speech."
        )
    if outputs.dimensions:
        lines.append(f"Values: {', '.join(outputs.dimensions)}.")
    lines += [
        "",
        "```python",
        "from emotion2vec import Recognizer",
        "",
        'found = Recognizer.from_pretrained("FOLDER")("clip.wav")',
        "```",
    ]
    return "\n".join(lines)


def _data(records: Sequence[Record], found: Mapping[str, Any], facts: Facts) -> str:
    hours = sum(r.duration or 0 for r in records) / 3600
    speakers = {r.speaker for r in records} - {None}
    counts = ", ".join(f"{name} {count}" for name, count in counts_by_class(records).items())
    soft = sum(bool(r.scores) for r in records)
    lines = [
        "## Training data",
        "",
        f"{len(records)} recordings, {hours:.2f} h, {len(speakers) or 'unknown'} speakers"
        + (f", given as {', '.join(facts.data)}" if facts.data else "")
        + (", validation among them." if _was_cut(found) else "."),
    ]
    if counts:
        lines.append(f"Per emotion: {counts}.")
    if soft:
        lines.append(f"{soft} of them have a teacher's scores.")
    lines += ["", f"Licence of the data: {facts.licence or 'not stated by whoever trained it'}."]
    return "\n".join(lines)


def _was_cut(found: Mapping[str, Any]) -> bool:
    """Whether validation is part of the recordings, and not of others or none."""
    return "validation is a fifth" in str(found.get("how")) and "folds" not in str(found.get("how"))


def _scores(found: Mapping[str, Any]) -> str:
    if "scores" not in found:
        return "## Scores\n\nNone: nothing was held out."
    lines = [
        "## Scores",
        "",
        f"{found['clips']} recordings of {_speakers(found)}: {found['how']}. Intervals are 95 %, "
        f"{'speakers' if found['speakers'] else 'recordings'} drawn anew.",
        "",
        "| score | value | 95 % |",
        "|---|---|---|",
    ]
    for name, (low, high) in found["intervals"].items():
        value = found["scores"][name]
        if name in _TITLES:
            row = f"| {_TITLES[name]} | {100 * value:.1f} | {100 * low:.1f} to {100 * high:.1f} |"
        else:
            row = f"| CCC of {name.removeprefix('ccc_')} | {value:.3f} | {low:.3f} to {high:.3f} |"
        lines.append(row)
    if found.get("recalls"):
        shown = ", ".join(f"{name} {100 * v:.0f}" for name, v in found["recalls"].items())
        lines += ["", f"Recall of each class, in %: {shown}."]
    return "\n".join(lines)


def _speakers(found: Mapping[str, Any]) -> str:
    count = found["speakers"]
    return "speakers not known" if count is None else f"{count} speaker{'s' * (count != 1)}"


def _calibration(found: Mapping[str, Any]) -> str:
    if "ece" not in found.get("scores", {}):
        return ""
    before = f" (before: {found['ece_before']:.3f})" if "ece_before" in found else ""
    return (
        f"## Calibration\n\nExpected calibration error {found['scores']['ece']:.3f}{before}, 15 "
        f"bins, {found['calibration']}. The temperature of the model itself, "
        f"{found['temperature']:.2f}, is in its weights already."
    )


def _made(model: str, config: FinetuneConfig, facts: Facts) -> str:
    defaults = asdict(FinetuneConfig())
    changed = {k: v for k, v in asdict(config).items() if v != defaults[k]}
    shown = ", ".join(f"{name} {value}" for name, value in changed.items()) or "the defaults"
    lines = [
        "## How it was made",
        "",
        f"From `{model}`. Settings other than the defaults: {shown}.",
    ]
    if facts.command:
        lines += ["", "```bash", facts.command, "```"]
    return "\n".join(lines)
