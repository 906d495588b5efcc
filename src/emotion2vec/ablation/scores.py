"""How the encoders of a grid are scored: the command, its results, the baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion2vec.atomic import atomic_path
from emotion2vec.backbones import encoder_backbone, random_encoder
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.probing.baselines import plain_baselines
from emotion2vec.probing.folds import Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import probe_backbone, readable
from emotion2vec.probing.report import from_dict, to_json
from emotion2vec.probing.results import ProbeResult

RANDOM = "random weights"
"""Name of the baseline that is an encoder like the grid's without any training."""


@dataclass(frozen=True)
class Probing:
    """One way of probing, the same for all runs of a grid."""

    folds: Folds
    source: tuple[str, ...]
    """where the folds come from, as options of `emotion2vec probe`"""
    head: HeadConfig
    seeds: int
    """of the probe, from 0"""

    def command(self, model: Path) -> list[str]:
        """The command that prints a model's scores as JSON."""
        words = [sys.executable, "-m", "emotion2vec", "probe", str(model), *self.source]
        words += ["--epochs", str(self.head.epochs), "--seeds", str(self.seeds)]
        return [*words, "--no-baselines", "--format", "json", "--quiet"]

    def read(self, path: Path) -> list[ProbeResult]:
        """The results in a file; none if it is not there, or of another way of probing."""
        try:
            results = from_dict(json.loads(path.read_text(encoding="utf-8")), self.folds, self.head)
        except (FileNotFoundError, ValueError):
            return []
        return results if results and results[0].seeds == [*range(self.seeds)] else []

    def baselines(
        self, config: Emotion2vecConfig, path: Path, *, progress: bool = False
    ) -> list[ProbeResult]:
        """Random weights, log-mel statistics, the constant answer: read, or computed and written.

        Args:
            config: of the encoder that gets random weights
            path: file of the results
            progress: show bars

        Raises:
            ValueError: if recordings have no emotion, or none of a part can be read
            OSError: if the file cannot be written
        """
        results = self.read(path)
        if not results:
            backbone = encoder_backbone(random_encoder(config), RANDOM)
            result, _, errors = probe_backbone(
                self.folds, backbone, seeds=range(self.seeds), head=self.head, progress=progress
            )
            folds = readable(self.folds, errors)
            results = [result, *plain_baselines(folds, progress=progress)]
            with atomic_path(path) as temporary:
                temporary.write_text(to_json(results, folds, self.head) + "\n", encoding="utf-8")
        return results


def source_words(
    data: Sequence[str], folds: Path | None, folds_name: str | None, num_folds: int
) -> tuple[str, ...]:
    """Labelled recordings and folds as options of `emotion2vec probe`.

    >>> source_words(["a.jsonl"], None, None, 4)
    ('--data', 'a.jsonl', '--num-folds', '4')
    """
    if folds is None:
        return ("--data", *data, "--num-folds", str(num_folds))
    name = () if folds_name is None else ("--folds-name", folds_name)
    return ("--data", *data, "--folds", str(folds), *name)
