"""Results of a benchmark as its files would be, of drawn answers, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion2vec.concordance import concordance_interval, concordance_scores
from emotion2vec.metrics import (
    bootstrap_interval,
    classification_scores,
    confusion_matrix,
    recalls,
)

CLASSES = {
    "ravdess": ("angry", "calm", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"),
    "emodb": ("angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad"),
}
PROTOCOLS = {
    "official": {
        "name": "official",
        "description": "6 official folds (label 'fold')",
        "validation": "a fifth of the training speakers with seed 0",
        "selection": "epoch by WA",
        "starred": False,
        "shared_speakers": [0] * 6,
    },
    "random": {
        "name": "random",
        "description": "10 random folds of clips with seed 0",
        "validation": "a fifth of the training clips with seed 0",
        "selection": "epoch by WA",
        "starred": False,
        "shared_speakers": [12] * 10,
    },
}
SKILL = {"emotion2vec-base": 0.8, "hf:facebook/wav2vec2-base": 0.6, "mfcc": 0.4}
"""The share of clips that a backbone answers knowingly."""


def classification_cell(
    backbone: str,
    *,
    corpus: str = "ravdess",
    protocol: str = "official",
    layer: int | str | None = None,
    skill: float | None = None,
    seeds: Sequence[int] = (0, 1),
    clips: int = 96,
    kind: str = "model",
    **changes: Any,
) -> dict[str, Any]:
    """A cell whose backbone knows the answer of `skill` of the clips and guesses the others."""
    classes = CLASSES[corpus]
    skill = SKILL.get(backbone, 0.0) if skill is None else skill
    folds = len(PROTOCOLS[protocol]["shared_speakers"])
    keys = [f"clip{i:03d}" for i in range(clips)]
    truth = {key: classes[i % len(classes)] for i, key in enumerate(keys)}
    speakers = {key: f"s{i // len(classes) % 12:02d}" for i, key in enumerate(keys)}
    places = range(clips) if protocol == "random" else [int(speakers[key][1:]) for key in keys]
    runs = []
    for seed in seeds:
        rng = np.random.default_rng([seed, len(backbone), layer if isinstance(layer, int) else 0])
        for fold in range(1, folds + 1):
            tested = [key for key, i in zip(keys, places, strict=True) if i % folds == fold - 1]
            answers = {
                key: truth[key] if rng.random() < skill else str(rng.choice(classes))
                for key in tested
            }
            scores = classification_scores([truth[k] for k in answers], list(answers.values()))
            run = {"fold": fold, "seed": seed, "chosen": "epoch 7", "scores": scores._asdict()}
            runs.append(run | {"predictions": answers})
    return {
        "format": 1,
        "task": "emotion",
        "corpus": corpus,
        "corpus_digest": f"{corpus}0123456789abcdef",
        "protocol": PROTOCOLS[protocol],
        "backbone": {
            "name": backbone,
            "kind": kind,
            "fingerprint": f"{abs(len(backbone) * 7919):016x}",
            "dim": 768,
            "layer": layer,
        },
        "head": {"name": "logistic" if kind == "hand-made" else "linear", "epochs": 100},
        "seeds": list(seeds),
        "labels": list(classes),
        **summary(truth, runs, speakers, classes),
        "truth": truth,
        "speakers": speakers,
        "errors": {},
        "command": f"emotion2vec benchmark {backbone} --corpus {corpus} --protocol {protocol}"
        + ("" if layer is None else f" --layer {layer}"),
        "versions": {"emotion2vec": "0.1.0", "torch": "2.13.0"},
        "date": "2026-11-23",
        "machine": "2 x CPU",
        **changes,
    }


def summary(
    truth: Mapping[str, str],
    runs: Sequence[Mapping[str, Any]],
    speakers: Mapping[str, str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Scores, confusion and runs of a cell."""
    pairs = [(key, answer) for run in runs for key, answer in run["predictions"].items()]
    true, answers = [truth[key] for key, _ in pairs], [answer for _, answer in pairs]
    groups = [speakers[key] for key, _ in pairs]
    of_seeds = []
    for seed in sorted({run["seed"] for run in runs}):
        of = [p for run in runs if run["seed"] == seed for p in run["predictions"].items()]
        of_seeds.append(classification_scores([truth[k] for k, _ in of], [a for _, a in of]))
    names = of_seeds[0]._fields
    fold_mean = np.mean([list(run["scores"].values()) for run in runs], axis=0)
    matrix = confusion_matrix(true, answers, classes)
    scores = {
        "pooled": dict(zip(names, np.mean(of_seeds, axis=0).tolist(), strict=True)),
        "fold_mean": dict(zip(names, fold_mean.tolist(), strict=True)),
        "deviation_over_seeds": dict(zip(names, np.std(of_seeds, axis=0).tolist(), strict=True)),
        "interval_95": {
            name: bootstrap_interval(true, answers, groups, score=name, draws=200) for name in names
        },
        "recall": recalls(matrix, classes),
    }
    return {"scores": scores, "confusion": matrix.tolist(), "runs": list(runs)}


def regression_cell(backbone: str = "emotion2vec-base", noise: float = 0.5) -> dict[str, Any]:
    """A cell of arousal, valence and dominance, whose answers are the truth and noise."""
    cell = classification_cell(backbone, seeds=(0,))
    dimensions = ("arousal", "valence", "dominance")
    rng = np.random.default_rng(3)
    truth = {key: rng.uniform(1, 7, 3).tolist() for key in cell["truth"]}
    for run in cell["runs"]:
        keys = list(run["predictions"])
        answers = np.array([truth[key] for key in keys]) + rng.normal(0, noise, (len(keys), 3))
        run["predictions"] = dict(zip(keys, answers.tolist(), strict=True))
        run["scores"] = concordance_scores([truth[key] for key in keys], answers, dimensions)
    pairs = [(key, value) for run in cell["runs"] for key, value in run["predictions"].items()]
    true, answers = [truth[key] for key, _ in pairs], [answer for _, answer in pairs]
    groups = [cell["speakers"][key] for key, _ in pairs]
    pooled = concordance_scores(true, answers, dimensions)
    cell["scores"] = {
        "pooled": pooled,
        "fold_mean": {n: np.mean([run["scores"][n] for run in cell["runs"]]) for n in pooled},
        "deviation_over_seeds": dict.fromkeys(pooled, 0.0),
        "interval_95": {
            name: concordance_interval(true, answers, groups, dimensions, score=name)
            for name in pooled
        },
    }
    del cell["confusion"]
    return cell | {"task": "dimensions", "labels": list(dimensions), "truth": truth}


def robustness_file(backbone: str, skill: float) -> dict[str, Any]:
    """Scores in noise of three levels and through one codec."""

    def condition(family: str, level: float | None, unit: str, name: str, ua: float) -> Any:
        interval = {"ua": [ua - 0.04, ua + 0.04]}
        scores = {"wa": ua, "ua": ua, "wf1": ua, "macro_f1": ua}
        facts = {"family": family, "level": level, "unit": unit, "name": name}
        change = {"ua": [ua - skill, ua - skill - 0.05, ua - skill + 0.05, 0.01]}
        return facts | {"scores": scores, "interval_95": interval, "change": change}

    levels = (20, 10, 0)
    conditions = [condition("clean", None, "", "clean", skill)]
    conditions += [
        condition("white noise", x, "dB", f"white noise {x} dB", skill - 0.15 * i - 0.05)
        for i, x in enumerate(levels)
    ]
    conditions.append(condition("codec", None, "", "opus 8 kbit/s", skill - 0.1))
    kept = classification_cell(backbone, seeds=(0,))
    for name in ("scores", "confusion", "runs", "truth", "speakers", "errors"):
        kept.pop(name)
    kept["command"] = f"emotion2vec benchmark {backbone} --corpus ravdess --robustness"
    return kept | {"conditions": conditions}


def transfer_file(backbone: str) -> dict[str, Any]:
    """Each of two corpora on each."""
    ua = {("ravdess", "ravdess"): 0.7, ("ravdess", "emodb"): 0.51}
    ua |= {("emodb", "ravdess"): 0.42, ("emodb", "emodb"): 0.83}
    matrix = [
        {
            "train": train,
            "test": test,
            "scores": {"wa": value, "ua": value, "wf1": value, "macro_f1": value},
            "interval_95": {"ua": [value - 0.05, value + 0.05]},
            "classes": ["angry", "happy", "neutral", "sad"],
            "clips": 240,
        }
        for (train, test), value in ua.items()
    ]
    kept = classification_cell(backbone, seeds=(0,))
    kept = {k: kept[k] for k in ("format", "backbone", "head", "seeds", "versions", "date")}
    mapping = {"calm": "neutral"}
    command = f"emotion2vec benchmark {backbone} --transfer ravdess emodb"
    return kept | {"label_mapping": mapping, "matrix": matrix, "command": command}


def write_vectors(path: Path, cell: Mapping[str, Any]) -> None:
    """The arrays beside a cell: its first fold's test clips."""
    tested = list(cell["runs"][0]["predictions"])
    labels = np.array([cell["truth"][key] for key in tested])
    place = np.array([cell["labels"].index(label) for label in labels])
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1, (len(tested), 16))
    first_layer = rng.normal(0, 0.3, (len(tested), 8)) + 2 * np.eye(8)[place]
    np.savez(path, raw=raw, first_layer=first_layer, labels=labels)


def write(root: Path, cell: Mapping[str, Any], slug: str) -> Path:
    """Write a cell where the benchmark puts it."""
    star = "-star" if cell["protocol"]["starred"] else ""
    protocol = cell["protocol"]["name"] + star
    path = root / cell["task"] / cell["corpus"] / protocol / f"{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cell))
    return path


def starred_cell(backbone: str) -> dict[str, Any]:
    """A cell that chose on the test part."""
    cell = classification_cell(backbone, skill=0.95)
    protocol = PROTOCOLS["official"] | {"starred": True, "validation": "the test part itself"}
    return cell | {"protocol": protocol}


def write_results(root: Path) -> Path:
    """Two corpora, two protocols, layers, baselines, regression, a star, robustness, transfer."""
    for corpus in CLASSES:
        for protocol in PROTOCOLS:
            for backbone in SKILL:
                kind = "hand-made" if backbone == "mfcc" else "model"
                seeds = (0,) if kind == "hand-made" else (0, 1)
                cell = classification_cell(
                    backbone, corpus=corpus, protocol=protocol, kind=kind, seeds=seeds
                )
                path = write(root, cell, backbone.replace("/", "-").replace(":", "-"))
                if (corpus, protocol) == ("ravdess", "official"):
                    write_vectors(path.with_suffix(".npz"), cell)
            for name, skill in (("constant", 0.0), ("speaker-only", 0.1), ("trivial", 0.2)):
                cell = classification_cell(
                    name, corpus=corpus, protocol=protocol, kind="baseline", skill=skill, seeds=(0,)
                )
                write(root, cell, name)
    for layer in range(4):
        cell = classification_cell("emotion2vec-base", layer=layer, skill=0.5 + 0.1 * layer)
        write(root, cell, f"emotion2vec-base@{layer}")
    write(root, starred_cell("emotion2vec-base"), "emotion2vec-base")
    write(root, regression_cell(), "emotion2vec-base")
    write(root, regression_cell("mfcc", 3.0), "mfcc")
    for folder, values in (
        ("robustness/ravdess", robustness_file("emotion2vec-base", 0.7)),
        ("robustness/ravdess", robustness_file("mfcc", 0.5)),
        ("transfer", transfer_file("emotion2vec-base")),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{values['backbone']['name']}.json").write_text(json.dumps(values))
    return root
