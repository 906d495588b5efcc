"""`emotion2vec finetune`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import (
    SOME_FAILED,
    Format,
    align,
    command_line,
    names_in,
    tell_left_out,
)

if TYPE_CHECKING:
    from emotion2vec.finetuning.run import FinetuneResult
    from emotion2vec.manifest import Record

Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def finetune(
    *,
    model: str,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    config: Path | None = None,
    valid: Names = None,
    test: Names = None,
    folds: Path | None = None,
    folds_name: str | None = None,
    emotions: str | None = None,
    dimensions: str | None = None,
    scope: Literal["full", "partial", "head", "lora"] | None = None,
    epochs: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    licence: str = "",
    weights_licence: str = "",
    resume: bool = False,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Fine-tune a speech encoder on your own labels.

    emotion2vec finetune --model mini --data labelled.jsonl --out runs/mine

    emotion2vec finetune --model hf:facebook/wav2vec2-base --data labelled.csv --out runs/lora
    --scope lora --emotions happy,sad,angry,neutral --set class_weights=balanced

    emotion2vec finetune --model base --data clips.jsonl --out runs/vad
    --dimensions arousal,valence,dominance --set classes=false

    Recordings have an emotion, a teacher's scores, values such as arousal, or several of these.
    Validation is of speakers that do not train. Writes OUT/final, which emotion2vec recognize
    --model and transformers' pipeline read, with a card of how good it is (README.md);
    OUT/scores.json; OUT/config.toml. For several devices: torchrun --nproc-per-node 4 -m
    emotion2vec finetune ...

    Parameters
    ----------
    model
        Encoder to start from: a folder of a run, a name such as mini or base, a name on a hub;
        hf:NAME for wav2vec 2.0, HuBERT, WavLM or data2vec of transformers.
    data
        Labelled lists (.jsonl, .csv).
    out
        Folder of the run.
    config
        TOML file of settings; every setting has a default (docs/finetuning.md).
    valid
        Lists to choose the epoch on; without, a fifth of the speakers of --data.
    test
        Lists that nothing is chosen on: the card's scores are of them.
    folds
        File of folds: a classifier is trained and tested for each, then one of all data.
    folds_name
        Which of the file's folds; the first, if not given.
    emotions
        Only these, with commas between, in the order of the outputs.
    dimensions
        Values to learn, with commas between: labels of these names.
    scope
        What is trained besides the head: all blocks, the top ones, none, low-rank additions.
    epochs
        Times that all clips are heard.
    set_
        A setting laid over the file, such as --set mixup=0.4 or --set speeds=[0.9,1.0,1.1].
    licence
        Of the data, for the card.
    weights_licence
        Of the weights, for the card, as hubs write it, such as cc-by-nc-sa-4.0.
    resume
        Go on with the run in OUT.
    format
        How the scores are printed.
    quiet
        No progress bar.
    """
    _check_extra()
    from emotion2vec.finetuning.card import Facts
    from emotion2vec.finetuning.config import read_finetune_config
    from emotion2vec.finetuning.run import finetune as run
    from emotion2vec.manifest import find_recordings
    from emotion2vec.settings import parse_override

    given: dict[str, Any] = {"scope": scope, "epochs": epochs}
    given["emotions"] = names_in(emotions)
    given["dimensions"] = names_in(dimensions)
    overrides = {name: value for name, value in given.items() if value is not None}
    overrides |= dict(parse_override(text) for text in set_ or [])
    lists: list[list[Record]] = [
        find_recordings(part) if part else [] for part in (data, valid, test)
    ]
    facts = Facts(
        data=tuple(Path(name).name for name in data),
        licence=licence,
        weights_licence=weights_licence,
        command=command_line(
            "finetune",
            [],
            {
                **{"model": model, "data": data, "out": out, "config": config, "valid": valid},
                **{"test": test, "folds": folds, "folds_name": folds_name, "emotions": emotions},
                **{"dimensions": dimensions, "scope": scope, "epochs": epochs, "set": set_},
                **{"licence": licence or None, "weights_licence": weights_licence or None},
            },
        ),
    )
    result = run(
        model,
        lists[0],
        out,
        read_finetune_config(config, overrides),
        valid=lists[1],
        test=lists[2],
        folds=folds,
        folds_name=folds_name,
        resume=resume,
        facts=facts,
        progress=not quiet,
    )
    if not result.is_main:
        return 0
    _print(result, format)
    tell_left_out(result.left_out)
    # torchrun, and what waits for it, take any code but 0 for a failure.
    return SOME_FAILED if result.left_out and result.processes == 1 else 0


def _check_extra() -> None:
    """Name the one extra that brings all that is needed.

    Raises:
        ModuleNotFoundError: if a module is missing
    """
    for module in ("accelerate", "peft", "tensorboard", "tomli_w", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"fine-tuning needs {module}: pip install 'emotion2vec[finetune]'."
            )


def _print(result: FinetuneResult, format: Format) -> None:
    """Print the scores and where the model is."""
    found = result.found
    if format == "json":
        print(json.dumps({"model": str(result.model), **found}))
        return
    if "scores" in found:
        rows = [["", "score", "95 %"]]
        for name, (low, high) in found["intervals"].items():
            rows.append([name, f"{found['scores'][name]:.3f}", f"{low:.3f} to {high:.3f}"])
        if "ece" in found["scores"]:
            rows.append(["ece", f"{found['scores']['ece']:.3f}", ""])
        print("\n".join(align(rows)))
        who = "speakers not known" if found["speakers"] is None else f"{found['speakers']} speakers"
        print(f"\n{found['clips']} recordings, {who}: {found['how']}.")
    print(f"The classifier is in {result.model}; its card is {result.model}/README.md.")
