"""`emotion2vec robustness`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import (
    SOME_FAILED,
    Row,
    RowFormat,
    align,
    command_line,
    row_lines,
    shows_bar,
    tell_left_out,
)


def robustness(
    backbone: list[str],
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    corpus: str | None = None,
    protocol: str | None = None,
    folds: Path | None = None,
    folds_name: str | None = None,
    num_folds: int | None = None,
    conditions: str = "standard",
    noise: str | None = None,
    impulse_responses: str | None = None,
    condition_seed: int = 0,
    task: Literal["emotion", "sentiment", "dimensions"] = "emotion",
    head: str | None = None,
    seeds: int = 1,
    epochs: int = 100,
    layer: int | None = None,
    format: RowFormat = "table",
    quiet: bool = False,
) -> int:
    """Score backbones on recordings with noise, reverberation, codecs and other losses.

    emotion2vec robustness runs/mine/final logmel --data corpus.jsonl --out results

    Heads are trained and chosen on recordings as they are, and tested on the same clips under each
    condition. A run that was killed goes on where it stopped; conditions can be added.

    Parameters
    ----------
    backbone
        Folders or hub names of encoders, random:NAME, hf:NAME, logmel, mfcc, spectrogram, afcn,
        egemaps, trivial.
    data
        Manifests of the corpus; its folder, if --corpus is one that emotion2vec corpora lists.
    out
        Folder of results: robustness/CORPUS/ gets a file for each backbone, and conditions.png.
    corpus
        Its name; that of the first manifest if none.
    protocol
        official, session-out, speaker-out, speaker-folds or random; if none, the file of folds, or
        speaker-folds.
    folds
        File of folds.
    folds_name
        Which folds in the file; its first if none.
    num_folds
        How many folds to make; 5 by speaker if none.
    conditions
        With commas between, such as white:10,reverb:0.6,mulaw; "standard" for a suite of thirty.
    noise
        Folder, list or glob of noise recordings, for the conditions noise:SNR.
    impulse_responses
        Folder, list or glob of rooms' impulse responses, for the condition room.
    condition_seed
        Of what is random in the conditions.
    task
        What is predicted.
    head
        What is trained on the frames; the backbone's own if none.
    seeds
        How many heads to average over.
    epochs
        Of the heads' training.
    layer
        A block's output, from 1; 0 for what enters the first block; none for the model's output.
    format
        How the results are printed: "json" is one object a line.
    quiet
        No progress bars.
    """
    import matplotlib  # noqa: F401  what would fail after the work fails before it

    from emotion2vec.backbones import load_backbone
    from emotion2vec.benchmark.robustness import robustness as run
    from emotion2vec.conditions import families, parse_conditions
    from emotion2vec.corpora.known import CORPORA, read_corpus
    from emotion2vec.manifest import find_recordings
    from emotion2vec.probing.folds import make_folds
    from emotion2vec.probing.heads import HeadConfig
    from emotion2vec.probing.protocols import SplitOptions, split
    from emotion2vec.probing.tasks import TASKS, usable

    known = families(noise, impulse_responses)
    asked = parse_conditions([name.strip() for name in conditions.split(",")], known)
    if corpus in CORPORA and len(data) == 1:
        records = read_corpus(corpus, Path(data[0]))
    else:
        records = find_recordings(data)
    records = usable(TASKS[task], records)
    if protocol is None:
        made = make_folds(records, folds, name=folds_name, num_folds=num_folds or 5)
    else:
        splitting = SplitOptions(num_folds=num_folds, file=folds, entry=folds_name)
        made = split(protocol, records, splitting)
    corpus = corpus or Path(data[0]).absolute().with_suffix("").name
    backbones = [load_backbone(name, layer=layer) for name in backbone]
    options = {
        "data": data, "corpus": corpus, "protocol": protocol, "folds": folds,
        "folds_name": folds_name, "num_folds": num_folds, "conditions": conditions, "noise": noise,
        "impulse_responses": impulse_responses, "condition_seed": condition_seed, "task": task,
        "head": head, "seeds": seeds, "epochs": epochs, "layer": layer, "out": out,
    }  # fmt: skip
    found = [
        run(
            made,
            one,
            asked,
            out,
            corpus=corpus,
            task=TASKS[task],
            head=HeadConfig(head or one.default_head, epochs=epochs),
            seeds=range(seeds),
            condition_seed=condition_seed,
            layer=layer,
            command=partial(_command, name, options),
            progress=shows_bar(quiet=quiet),
        )
        for name, one in zip(backbone, backbones, strict=True)
    ]
    _print(found, format)
    picture = out / "robustness" / corpus / "conditions.png"
    _draw(found, picture)
    print(f"Results and picture are in {picture.parent}.", file=sys.stderr)
    return SOME_FAILED if _tell_errors(found) else 0


def _command(backbone: str, options: Row, conditions: str) -> str:
    """Return what repeats all that is in a file, whatever was asked for last."""
    return command_line("robustness", [backbone], {**options, "conditions": conditions})


Results = Sequence[dict[str, Any]]
"""Of each backbone, what its file holds."""


def _print(found: Results, format: RowFormat) -> None:
    if format == "table":
        print("\n".join(_table(found)))
        return
    rows = [_row(values, condition) for values in found for condition in values["conditions"]]
    header, line = row_lines(format, list(rows[0]))
    print("\n".join([*header, *map(line, rows)]))


_CHANGE = ("change", "change_low", "change_high", "p")


def _row(values: Row, condition: Row) -> Row:
    name = _score_of(values)
    low, high = condition["interval_95"][name]
    return {
        "backbone": values["backbone"]["name"],
        "head": values["head"]["name"],
        "condition": condition["name"],
        **{key: condition[key] for key in ("family", "level", "unit")},
        **condition["scores"],
        **{f"{name}_low": low, f"{name}_high": high},
        **dict(zip(_CHANGE, condition["change"][name], strict=True)),
    }


def _score_of(values: Row) -> str:
    """Return the score that is shown: UA of classes, CCC of values."""
    return "ua" if "ua" in values["conditions"][0]["scores"] else "ccc"


def _table(found: Results) -> list[str]:
    """Lines for people: score and interval of each condition, and its change from clean."""
    name, first = _score_of(found[0]), found[0]
    heads = ", ".join(dict.fromkeys(values["head"]["name"] for values in found))
    lines = [
        f"{first['corpus']}, {first['task']}. Protocol: {first['protocol']['description']}; "
        f"head {heads}, trained and chosen on recordings as they are."
    ]
    if any(first["protocol"]["shared_speakers"]):
        lines.append("Not speaker-independent: speakers of test parts were trained on, too.")
    names = list(dict.fromkeys(c["name"] for values in found for c in values["conditions"]))
    rows = [["", *(cell for values in found for cell in (values["backbone"]["name"], "change"))]]
    for condition in names:
        row = [condition]
        for values in found:
            of = next((c for c in values["conditions"] if c["name"] == condition), None)
            row += [_interval([of["scores"][name], *of["interval_95"][name]])] if of else [""]
            row += [_interval(of["change"][name], sign="+")] if of else [""]
        rows.append(row)
    return [
        *lines,
        *align(rows),
        f"{name.upper()} {'in percent, ' if name == 'ua' else ''}[95 % interval over speakers]; "
        "change: from clean, the same clips in pairs.",
    ]


def _interval(values: Sequence[float], sign: str = "") -> str:
    middle, low, high = (f"{100 * value:{sign}.1f}" for value in values[:3])
    return f"{middle} [{low}, {high}]"


def _draw(found: Results, target: Path) -> None:
    from emotion2vec.atomic import atomic_path
    from emotion2vec.plots import conditions_figure

    name = _score_of(found[0])
    scores = {
        values["backbone"]["name"]: {
            c["name"]: (c["scores"][name], *c["interval_95"][name]) for c in values["conditions"]
        }
        for values in found
    }
    chance = 1 / len(found[0]["labels"]) if name == "ua" else None
    with atomic_path(target) as path:
        figure = conditions_figure(scores, label=name.upper(), chance=chance)
        figure.savefig(path, format="png", dpi=130, bbox_inches="tight")


def _tell_errors(found: Results) -> bool:
    """Print what was left out; return whether anything was."""
    told: dict[str, str] = {}
    for values in found:
        told |= values["errors"]
        for condition in values["conditions"]:
            told |= {f"{key} ({condition['name']})": e for key, e in condition["errors"].items()}
    tell_left_out(told)
    return bool(told)
