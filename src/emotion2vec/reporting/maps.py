"""Maps of a cell's test clips: raw features, and the first linear layer of its probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from emotion2vec.plots import project
from emotion2vec.reporting.cells import Cell

SMALLEST = 8
"""Clips under which a map shows nothing, and t-SNE refuses."""
LARGEST = 600
"""Clips that are mapped; of more, so many evenly spread ones."""

PANELS = {
    "raw": "raw features, mean over frames",
    "first_layer": "first linear layer of the trained probe",
}


@dataclass(frozen=True)
class Map:
    """What is drawn side by side."""

    method: str
    """ "UMAP" or "t-SNE" """
    panels: dict[str, NDArray[Any]]
    """points (N, 2), by title"""
    labels: list[str]
    """of each point"""


def map_of(cell: Cell, *, seed: int = 0) -> Map | None:
    """The maps of a cell's `.npz`; None without such a file, or with too few clips.

    Args:
        cell: whose file lies beside its JSON
        seed: of the projection

    Raises:
        ValueError: if the file is not what the benchmark writes
        ImportError: without umap-learn and scikit-learn
    """
    path = cell.path.with_suffix(".npz")
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("labels", *PANELS) if name in file}
        count = len(arrays["labels"])
        if any(arrays[name].shape[:1] != (count,) for name in arrays) or "raw" not in arrays:
            raise ValueError("arrays of several lengths, or none called raw")
        vectors = {name: np.asarray(arrays[name], np.float32) for name in PANELS if name in arrays}
        if not all(v.ndim == 2 and np.isfinite(v).all() for v in vectors.values()):
            raise ValueError("vectors that are not (clips, width), or not finite")
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"it holds no vectors to map ({error}); run its cell again.") from error
    if count < SMALLEST:
        return None
    chosen = np.unique(np.linspace(0, count - 1, min(count, LARGEST)).astype(int))
    projected = {PANELS[name]: project(v[chosen], seed=seed) for name, v in vectors.items()}
    return Map(
        next(iter(projected.values()))[0],
        {title: np.asarray(points) for title, (_, points) in projected.items()},
        [str(label) for label in arrays["labels"][chosen]],
    )
