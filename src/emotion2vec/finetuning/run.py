"""Fine-tuning from recordings to a folder: split, train, test, calibrate, save, describe."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emotion2vec.atomic import atomic_folder, atomic_path
from emotion2vec.calibration import fit_temperature
from emotion2vec.classifiers import Classifier
from emotion2vec.finetuning.card import Facts, write_card
from emotion2vec.finetuning.config import FinetuneConfig, write_finetune_config
from emotion2vec.finetuning.evaluation import (
    Predictions,
    by_speaker,
    details,
    join,
    predict,
    scores,
)
from emotion2vec.finetuning.splits import (
    about_the_test,
    check_keys,
    cut_validation,
    measured,
    shared_speakers,
    whole_corpus,
)
from emotion2vec.finetuning.targets import Outputs, outputs_of, targets_of
from emotion2vec.finetuning.trainer import (
    Fitted,
    fit,
    forget,
    is_main,
    num_processes,
    wait_for_others,
)
from emotion2vec.jsonl import read_jsonl, write_jsonl
from emotion2vec.loading import new_classifier
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Fold, Folds, folds_from_file

logger = logging.getLogger(__name__)

RUN_NAME, SCORES_NAME = "run.json", "scores.json"

FOLD = "{fold}"
"""In the name of an encoder: the number of the fold, or "all" for the model itself. So each fold
can have an encoder that never heard its test speakers, not even without labels."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a run left."""

    model: Path
    """the folder that `Recognizer` and transformers read"""
    outputs: Outputs
    found: dict[str, Any]
    """scores, intervals, recalls, confusion, calibration: as in `scores.json`"""
    left_out: dict[str, str]
    """by key, why a recording was not used"""
    is_main: bool = True
    """whether this process writes; of several, the first does"""
    processes: int = 1


@dataclass(frozen=True)
class _Run:
    """What all steps of a run need."""

    model: str
    config: FinetuneConfig
    outputs: Outputs
    out: Path
    progress: bool

    def new(self, fold: int | None = None) -> Classifier:
        """An untrained classifier around the encoder of a fold, or of all recordings."""
        return new_classifier(
            self.model.replace(FOLD, "all" if fold is None else str(fold)),
            self.outputs.labels,
            self.outputs.dimensions,
            seed=self.config.seed,
        )

    def train(
        self,
        records: Sequence[Record],
        valid: Sequence[Record],
        place: Path,
        *,
        fold: int | None = None,
        epochs: int | None = None,
    ) -> tuple[Classifier, Fitted]:
        """A classifier trained on `records`, the epoch chosen on `valid`."""
        config = replace(self.config, epochs=epochs or self.config.epochs)
        kept, targets, _ = targets_of(records, self.outputs, soft_share=config.soft_share)
        classifier = self.new(fold)
        return classifier, fit(
            classifier, kept, targets, valid, self.outputs, config, place, progress=self.progress
        )


def finetune(
    model: str | Path,
    records: Sequence[Record],
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    valid: Sequence[Record] = (),
    test: Sequence[Record] = (),
    folds: str | Path | None = None,
    folds_name: str | None = None,
    resume: bool = False,
    facts: Facts | None = None,
    progress: bool = False,
) -> FinetuneResult:
    """Fine-tune a speech encoder on labelled recordings; the folder of a classifier.

    Without `folds`: trained on the recordings but for validation, which chooses the epoch and fits
    the temperature. With `folds`: a classifier for each, tested on its test part, and then one
    of all recordings, whose temperature comes from the tests and whose scores are the tests'.

    Args:
        model: encoder, as `emotion2vec.loading.new_classifier`; with `FOLD` in it, one for each
        records: labelled, with speakers where validation is to be of other ones
        out: folder of the run
        config: how
        valid: validation part; else it is cut from `records` as `config.validation` says
        test: a part that nothing is chosen on
        folds: file of folds, as `emotion2vec.probing.folds.folds_from_file`
        folds_name: which of the file's
        resume: go on with the run in `out`
        facts: what the card cannot know
        progress: show bars

    Raises:
        FileNotFoundError: if there is no such model or file of folds
        ModuleNotFoundError: without the extra `finetune`
        ValueError: if the recordings have nothing to learn, a key comes twice, or `out` holds
            another run
    """
    out, config = Path(out), config or FinetuneConfig()
    check_keys([*records, *valid, *test])
    if valid and folds is not None:
        raise ValueError("both validation and folds are given; folds cut their own, leave one out.")
    usable, left_out = measured([*records, *valid, *test])
    outputs = outputs_of([r for r in records if r.key in usable], config)
    parts = []
    for part in (records, valid, test):
        kept, _, more = targets_of([usable[r.key] for r in part if r.key in usable], outputs)
        left_out |= more
        parts.append(kept)
    run = _Run(str(model), config, outputs, out, progress)
    split = None if folds is None else _folds(folds, folds_name, parts[0], left_out, config)
    run.new()  # what cannot be loaded shows before anything is written
    if is_main():
        _open(run, parts, split, resume)
    wait_for_others()
    classifier, groups, how, errors = (
        _train_all(run, parts[0], split) if split else _train_once(run, parts)
    )
    found, temperature = _calibrated(groups, outputs)
    classifier.temper(temperature)
    if parts[2]:
        tested = _predict(classifier, parts[2], outputs)
        found, errors = details(tested, outputs), {**errors, **tested.errors}
        how = about_the_test(parts, how)
        found["calibration"] = "of recordings that the temperature was not fitted on"
    found |= {"temperature": temperature, "how": how}
    left_out |= errors
    if is_main():
        _save(run, classifier, found, parts[0], left_out, facts or Facts())
    return FinetuneResult(out / "final", outputs, found, left_out, is_main(), num_processes())


def _predict(classifier: Classifier, records: Sequence[Record], outputs: Outputs) -> Predictions:
    """Return the predictions, in the first process; in the others none, for it alone reports."""
    return predict(classifier, records if is_main() else (), outputs)


def _open(run: _Run, parts: Sequence[Sequence[Record]], split: Folds | None, resume: bool) -> None:
    """Make the run's folder, or check that it is this run's."""
    sides = [[[r.key for r in side] for side in fold] for fold in split.folds] if split else []
    digest = hashlib.sha256(json.dumps(sides).encode())
    for part in parts:
        rows = [
            [r.key, r.duration, r.speaker, dict(r.labels), dict(r.scores), r.weight] for r in part
        ]
        digest.update(json.dumps(rows).encode())
    identity = {
        "model": run.model,
        "config": json.loads(json.dumps(asdict(run.config))),
        "data": digest.hexdigest(),
    }
    path = run.out / RUN_NAME
    if path.is_file():
        before = json.loads(path.read_text())
        changed = [name for name in identity if before.get(name) != identity[name]]
        if changed:
            raise ValueError(
                f"{run.out} holds a run with another {' and '.join(changed)}; "
                "choose another --out, or ask for the same to go on with it."
            )
        if not resume:
            raise ValueError(f"{run.out} holds a run; --resume goes on with it.")
        return
    if run.out.is_dir() and any(run.out.iterdir()):
        raise ValueError(f"{run.out} is not empty and no run; choose another --out.")
    with atomic_path(path) as file:
        file.write_text(json.dumps(identity, indent=2) + "\n")
    with atomic_path(run.out / "config.toml") as file:
        write_finetune_config(run.config, file)


def _folds(
    path: str | Path,
    name: str | None,
    records: list[Record],
    left_out: dict[str, str],
    config: FinetuneConfig,
) -> Folds:
    """Return the folds of a file; where nothing is validated, the cut for it is ignored later."""
    return folds_from_file(
        path,
        whole_corpus(path, records, left_out),
        name=name,
        validation="speakers" if config.validation == "none" else config.validation,
        seed=config.seed,
    )


Trained = tuple[Classifier, list[Predictions], str, dict[str, str]]
"""The classifier, held-out predictions in groups, how they came about, unreadable recordings"""


def _train_once(run: _Run, parts: Sequence[Sequence[Record]]) -> Trained:
    """Train on the recordings but for validation, whose predictions are grouped by speaker."""
    train, valid, _ = map(list, parts)
    how = "validation given"
    if not train:
        raise ValueError("no recording has a target; give labels, scores or values.")
    if not valid and run.config.validation != "none":
        train, valid, how = cut_validation(train, run.config)
    if not train:
        raise ValueError("validation takes all recordings; give more, or --valid FILE.")
    classifier, fitted = run.train(train, valid, run.out)
    if not valid:
        return classifier, [], "no validation, the last epoch", fitted.errors
    found = _predict(classifier, valid, run.outputs)
    how += f"; its epoch, {fitted.epoch:.0f} of {run.config.epochs}, is the best on it"
    how += f"; {shared_speakers(train, valid)}"
    return classifier, by_speaker(found), how, {**fitted.errors, **found.errors}


def _train_all(run: _Run, records: Sequence[Record], split: Folds) -> Trained:
    """Train and test each fold, then train on all recordings for as many epochs."""
    groups: list[Predictions] = []
    epochs: list[float] = []
    errors: dict[str, str] = {}
    for number, fold in enumerate(split.folds, 1):
        tested, epoch = _fold(run, fold, number)
        groups.append(tested)
        epochs.append(epoch)
        errors |= tested.errors
    whole = max(1, round(statistics.median(epochs)))
    classifier, fitted = run.train(records, (), run.out, epochs=whole)
    how = split.protocol
    if run.config.validation == "none":
        how = how.split("; ")[0] + f"; nothing is chosen, all train {whole} epochs"
    how += f". The model itself is trained on all recordings, for {whole} epochs"
    return classifier, groups, how, errors | fitted.errors


def _fold(run: _Run, fold: Fold, number: int) -> tuple[Predictions, float]:
    """Return the predictions of a fold's test part, and the epoch; what an earlier run left."""
    path = run.out / "folds" / f"{number}.jsonl"
    place = run.out / "folds" / str(number)
    if path.is_file():
        first, *rows = read_jsonl(path)
        return Predictions.from_rows(rows, run.outputs), first["epoch"]
    whole = run.config.validation == "none"
    train, valid = (fold.seen, ()) if whole else (fold.train, fold.valid)
    classifier, fitted = run.train(train, valid, place, fold=number)
    tested = _predict(classifier, fold.test, run.outputs)
    found = scores(tested, run.outputs)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    if is_main():
        logger.info("fold %d: %s", number, shown)
        row = {"fold": number, "epoch": fitted.epoch, "scores": found}
        write_jsonl([row, *tested.rows(run.outputs)], path)
        forget(place)
    return tested._replace(errors={**tested.errors, **fitted.errors}), fitted.epoch


def _calibrated(groups: list[Predictions], outputs: Outputs) -> tuple[dict[str, Any], float]:
    """Return the scores of all groups, and the temperature of all.

    For the scores each group is read at the temperature of the others, so that the calibration
    error is of speakers that it was not fitted on.
    """
    if not groups:
        return {}, 1.0
    together = join(groups)
    temperature = _temperature(together, outputs)
    tempered = [
        group.tempered(
            _temperature(join([g for g in groups if g is not group]), outputs)
            if len(groups) > 1
            else temperature
        )
        for group in groups
    ]
    found = details(join(tempered), outputs)
    if "ece" in found["scores"]:
        found["ece_before"] = scores(together, outputs)["ece"]
        found["calibration"] = (
            "of recordings of other speakers than the temperature was fitted on"
            if together.speakers_known and len(groups) > 1
            else "of the recordings that the temperature was fitted on"
            if len(groups) == 1
            else "of other recordings than the temperature was fitted on"
        )
    return found, temperature


def _temperature(found: Predictions, outputs: Outputs) -> float:
    rows = [i for i, label in enumerate(found.truth) if label is not None]
    if not outputs.labels or not rows:
        return 1.0
    return fit_temperature(
        found.logits[rows], [outputs.labels.index(str(found.truth[i])) for i in rows]
    )


def _save(
    run: _Run,
    classifier: Classifier,
    found: dict[str, Any],
    records: Sequence[Record],
    left_out: dict[str, str],
    facts: Facts,
) -> None:
    """Write the model's folder with its card, the scores, what was left out."""
    with atomic_folder(run.out / "final", mark="config.json") as folder:
        classifier.save(folder)
        write_card(folder / "README.md", run.model, run.config, run.outputs, records, found, facts)
    with atomic_path(run.out / SCORES_NAME) as path:
        path.write_text(json.dumps(found, indent=2) + "\n")
    if left_out:
        rows = ({"key": key, "error": error} for key, error in left_out.items())
        write_jsonl(rows, run.out / "skipped.jsonl")
    forget(run.out)
