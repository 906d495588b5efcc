"""Models of one's own on one's own recordings, side by side, with baselines and pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.atomic import atomic_path
from emotion2vec.backbones import load_backbone
from emotion2vec.plots import confusion_figure, map_figure
from emotion2vec.probing.baselines import plain_baselines
from emotion2vec.probing.folds import Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import probe_backbone, readable
from emotion2vec.probing.report import table, to_json
from emotion2vec.probing.results import ProbeResult
from emotion2vec.probing.tasks import Frames, label_set

SMALLEST_MAP = 8
"""Clips under which a map shows nothing, and t-SNE refuses."""


@dataclass(frozen=True)
class Compared:
    """What `probe_models` found."""

    folds: Folds
    """without the recordings that could not be read"""
    results: tuple[ProbeResult, ...]
    """models first, then the random encoder, log-mel statistics and the constant answer"""
    errors: dict[str, str]
    """by key, of recordings that could not be read"""
    vectors: dict[str, NDArray[np.float32]] = field(repr=False)
    """by model, the mean over frames (N, D) of the first fold's test clips"""
    head: HeadConfig
    """how the probes were trained"""


def probe_models(
    folds: Folds,
    models: Sequence[str],
    *,
    layer: int | None = None,
    seeds: Sequence[int] = (0,),
    head: HeadConfig | None = None,
    baselines: bool = True,
    progress: bool = False,
) -> Compared:
    """Probe models on the folds, beside the baselines.

    The baselines are: an encoder like the first model's with random weights under the same probe;
    and those of `plain_baselines`.

    Args:
        folds: the splits
        models: folders or hub names
        layer: as in `emotion2vec.backbones.load_backbone`
        seeds: of the probes
        head: how probes are trained
        baselines: whether they are computed; for where they are known already
        progress: show bars

    Raises:
        FileNotFoundError: if a model is not there
        ValueError: as `emotion2vec.probing.tasks.label_set`; without models or seeds; if no
            recording of a part can be read
    """
    head = head or HeadConfig()
    label_set(folds)  # before the work, not after it
    if not seeds or not models or len(set(models)) < len(models):
        raise ValueError(
            f"there are {len(seeds)} seeds and the models {list(models)}; "
            "give at least one of each, and each model once."
        )
    # All are loaded before the first is probed: a wrong name costs no work.
    names = [*models, *([f"random:{models[0]}"] if baselines else [])]
    backbones = [load_backbone(name, layer=layer) for name in names]
    results, vectors = [], {}
    errors: dict[str, str] = {}
    for backbone in backbones:
        result, frames, failed = probe_backbone(
            folds, backbone, seeds=seeds, head=head, progress=progress
        )
        errors |= failed
        folds = readable(folds, failed)
        vectors[backbone.name] = _pool(frames, folds)
        results.append(result)
    if baselines:
        results += plain_baselines(folds, progress=progress)
    return Compared(folds, tuple(results), errors, vectors, head)


def _pool(frames: Frames, folds: Folds) -> NDArray[np.float32]:
    return np.stack([frames[record.key].mean(axis=0) for record in folds.folds[0].test])


def write_report(found: Compared, out: str | Path) -> None:
    """Write `results.txt`, `results.json`, `confusion.png` and `map.png` into a folder.

    The map shows the test clips of the first fold: the mean over frames as the encoder gives it,
    and the first layer of the probe fitted on that fold, which is what the paper's maps show.

    Raises:
        OSError: if the folder cannot be written
    """
    out = Path(out)
    with atomic_path(out / "results.txt") as path:
        path.write_text(table(found.results, found.folds, found.head) + "\n", encoding="utf-8")
    with atomic_path(out / "results.json") as path:
        path.write_text(to_json(found.results, found.folds, found.head) + "\n", encoding="utf-8")
    labels = label_set(found.folds)
    model, random = found.results[0], found.results[len(found.vectors) - 1]
    matrices = {short_name(result.name): result.confusion(labels) for result in (model, random)}
    _save(confusion_figure(matrices, labels), out / "confusion.png")
    first = model.runs[0]
    has_method = importlib.util.find_spec("umap") or importlib.util.find_spec("sklearn")
    if has_method and first.embeddings is not None and len(first.keys) >= SMALLEST_MAP:
        panels = {
            "frozen features, mean over frames": found.vectors[model.name],
            "first layer of the probe": first.embeddings,
        }
        _save(map_figure(panels, [str(label) for label in first.truth]), out / "map.png")


def short_name(name: str) -> str:
    """A name for titles: the last folder of a path.

    >>> short_name("random:runs/demo/final")
    'random:demo/final'
    """
    kind, colon, path = name.rpartition(":")
    return kind + colon + "/".join(Path(path).parts[-2:])


def _save(figure: Any, target: Path) -> None:
    with atomic_path(target) as path:
        figure.savefig(path, format="png", dpi=130, bbox_inches="tight")
