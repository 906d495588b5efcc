"""The cells of a grid, the settings and the folder of each run, and what is there already."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from emotion2vec.atomic import atomic_path
from emotion2vec.pretraining.ablations import FIELDS
from emotion2vec.pretraining.checkpoint import FREE, differences
from emotion2vec.pretraining.config import (
    PretrainConfig,
    read_config,
    write_config,
)
from emotion2vec.settings import parse_override


class Cell(NamedTuple):
    """One combination of settings."""

    settings: tuple[str, ...]
    """"name=value", as given"""

    @property
    def name(self) -> str:
        """The settings joined by "+"; "base" without any."""
        return "+".join(self.settings) or "base"

    @property
    def folder(self) -> str:
        """The name, without what folders cannot be called.

        >>> Cell(("alpha=0.1", "init=models/a b")).folder
        'alpha=0.1+init=models_a_b'
        """
        return re.sub(r"[^\w.,=+@\[\]-]", "_", self.name)


def make_cells(vary: Sequence[str], extra: Sequence[str]) -> list[Cell]:
    """The product of all that varies, then the extra cells; the plain settings if neither is given.

    Args:
        vary: "name=value,value"
        extra: settings with spaces between; "" for the plain ones

    Raises:
        ValueError: if one has no values, or cells come twice

    >>> [cell.name for cell in make_cells(["alpha=0.1,1", "masks=4"], ["frame_weight=0 masks=2"])]
    ['alpha=0.1+masks=4', 'alpha=1+masks=4', 'frame_weight=0+masks=2']
    >>> [cell.name for cell in make_cells([], [])]
    ['base']
    """
    choices = []
    for text in vary:
        name, _, values = text.partition("=")
        if not all(values.split(",")):
            raise ValueError(f"--vary {text} lacks a value; write it as --vary alpha=0.1,1.")
        choices.append([f"{name}={value}" for value in values.split(",")])
    cells = [Cell(settings) for settings in itertools.product(*choices)] if vary else []
    cells += [Cell(tuple(shlex.split(text))) for text in extra]
    cells = cells or [Cell(())]
    folders = [cell.folder for cell in cells]
    twice = {name for name in folders if folders.count(name) > 1}
    if twice:
        raise ValueError(f"the grid has the cell {sorted(twice)[0]} twice; give it once.")
    return cells


@dataclass(frozen=True)
class Run:
    """One pre-training of a cell."""

    cell: Cell
    seed: int
    config: PretrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell.name}, seed {self.seed}"

    @property
    def final(self) -> Path:
        """The encoder, once trained."""
        return self.folder / "final"

    @property
    def is_trained(self) -> bool:
        """Whether the encoder is there."""
        return (self.final / "config.json").is_file()

    @property
    def collapsed(self) -> Path:
        """The state of a run that was stopped because it collapsed."""
        return self.folder / "collapsed.safetensors"

    @property
    def probe(self) -> Path:
        """The probe's scores."""
        return self.folder / "probe" / "results.json"

    @property
    def state(self) -> str:
        """How far the pre-training is, for people."""
        if self.is_trained:
            return "trained"
        if self.collapsed.is_file():
            return "collapsed"
        return "begun" if (self.folder / "last.safetensors").is_file() else "to be run"

    def prepare(self) -> None:
        """Write the settings into the folder, where there are none yet."""
        if not (self.folder / "config.toml").is_file():
            with atomic_path(self.folder / "config.toml") as path:
                write_config(self.config, path)


def make_runs(config: Path, cells: Sequence[Cell], seeds: Sequence[int], out: Path) -> list[Run]:
    """All runs of a grid, those of the first seed first.

    Raises:
        FileNotFoundError: if there is no such config
        ValueError: if a cell's settings are unknown or contradict, two cells are the same, or a
            run's folder holds one with other settings; the message names the cell
    """
    settings = {cell: _settings(config, cell) for cell in cells}
    for first, second in itertools.combinations(cells, 2):
        if settings[first] == settings[second]:
            raise ValueError(
                f"the cells {first.name} and {second.name} are the same settings; leave one out."
            )
    runs = [
        Run(cell, seed, replace(settings[cell], seed=seed), out / cell.folder / f"seed{seed}")
        for seed in seeds
        for cell in cells
    ]
    for run in runs:
        _check_folder(run)
    return runs


def _settings(config: Path, cell: Cell) -> PretrainConfig:
    """Return the cell's settings laid over those of the file."""
    try:
        values = dict(parse_override(text) for text in cell.settings)
        if "seed" in values:
            raise ValueError("seed is no setting of a cell; --seeds says how many there are.")
        flags = {name: values.pop(name) for name in FIELDS if name in values}
        return read_config(config, values, flags=flags)
    except ValueError as error:
        raise ValueError(f"cell {cell.name}: {error}") from error


def _check_folder(run: Run) -> None:
    """Refuse a folder that holds a run with other settings."""
    path = run.folder / "config.toml"
    if not path.is_file():
        return
    # Another `accumulate` is another batch: of no matter to a run that moves, but to a comparison.
    changed = differences(asdict(read_config(path)), run.config, free=FREE - {"accumulate"})
    if changed:
        raise ValueError(
            f"{run.folder} holds a run of another config ({'; '.join(changed[:4])}); "
            "move it away, or choose another --out."
        )
