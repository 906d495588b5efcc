"""What a run says about itself: progress bar, JSON lines, TensorBoard, skipped recordings."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.corpus import Skipped
from emotion2vec.jsonl import read_jsonl, write_jsonl
from emotion2vec.model import Emotion2vec
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.gauges import PARTS

logger = logging.getLogger(__name__)


# Metric -> its name in TensorBoard, which groups by what stands before the slash.
TAGS = {
    "loss": "loss/total",
    "frame_loss": "loss/frame",
    "utterance_loss": "loss/utterance",
    "cluster_accuracy": "loss/cluster_accuracy",
    **{f"{of}_spread": f"spread/{of}" for of in ("target", "prediction")},
    **{f"{of}_rank": f"rank/{of}" for of in ("target", "prediction", "encoder")},
    "gradient_norm": "gradient_norm/total",
    **{f"gradient_norm_{part}": f"gradient_norm/{part}" for part in PARTS},
    **{name: f"schedule/{name}" for name in ("lr", "tau", "masked_share", "epoch")},
}


Probe = Callable[[Emotion2vec], Mapping[str, float]]
"""Looks at the encoder as it is, and leaves it so: numbers by name, "ua" among them."""


class CollapseError(RuntimeError):
    """The representation lost its variance, or the loss is no number any more."""


class Monitor:
    """Writes a run's metrics to its folder; only the main process has one.

    Args:
        folder: the run's folder; gets `metrics.jsonl`, `probe.jsonl`, `skipped.jsonl` and
            `tensorboard/`
        updates: finished updates; what an interrupted run logged beyond them is dropped
        max_updates: where the progress bar ends
        progress: whether to show the bar
        probe: see `look`
        probe_every: updates between two calls of it
    """

    def __init__(
        self,
        folder: Path,
        updates: int,
        max_updates: int,
        progress: bool,
        probe: Probe | None = None,
        probe_every: int = 500,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        self.probe_path = folder / "probe.jsonl"
        self.skipped_path = folder / "skipped.jsonl"
        for path in (self.path, self.probe_path):
            lines = read_jsonl(path) if updates else []
            write_jsonl([line for line in lines if line["update"] <= updates], path)
        self.max_updates, self.probe, self.probe_every = max_updates, probe, probe_every
        self.skipped = {
            line["key"]: line["error"]
            for line in (read_jsonl(self.skipped_path) if updates else [])
        }
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=updates + 1)
        self.bar = tqdm(
            total=max_updates, initial=updates, desc="pre-training", disable=not progress
        )

    def skip(self, skipped: Iterable[Skipped]) -> None:
        """Note recordings that were left out; the file is written again where some are new."""
        new = {item.key: item.error for item in skipped if item.key not in self.skipped}
        if not new:
            return
        self.skipped |= new
        rows = [{"key": key, "error": error} for key, error in self.skipped.items()]
        write_jsonl(rows, self.skipped_path)
        for error in new.values():
            logger.warning("left out: %s", error)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line of metrics; `values["update"]` is the update they belong to."""
        _append(self.path, values)
        for name, value in values.items():
            if name != "update":
                self.board.add_scalar(TAGS.get(name, f"speed/{name}"), value, values["update"])
        self.bar.set_postfix_str(
            f"frame {values['frame_loss']:.3f} utterance {values['utterance_loss']:.3f} "
            f"spread {values['target_spread']:.2f}/{values['prediction_spread']:.2f} "
            f"rank {values['encoder_rank']:.0f}"
        )

    def look(self, encoder: Emotion2vec, updates: int) -> float:
        """Probe the encoder if it is due: before the first update, regularly, after the last.

        Appends what is found to `probe.jsonl`. A probe that fails later than before the first
        update is reported, and the run goes on. Returns the seconds that it took.
        """
        due = updates in (0, self.max_updates) or updates % self.probe_every == 0
        if self.probe is None or not due:
            return 0.0
        begin = time.perf_counter()
        try:
            found = self.probe(encoder)
        except (OSError, ValueError, RuntimeError) as error:
            if not updates:
                raise
            logger.warning("the probe failed after update %d: %s", updates, error)
            return time.perf_counter() - begin
        seconds = time.perf_counter() - begin
        _append(self.probe_path, {"update": updates, **found, "seconds": seconds})
        for name, value in found.items():
            self.board.add_scalar(f"probe/{name}", value, updates)
        logger.info("update %d: probe's UA %.1f %% in %.0f s", updates, found["ua"], seconds)
        return seconds

    def close(self) -> None:
        """Finish the bar and the files."""
        self.bar.close()
        self.board.close()


def _append(path: Path, values: Mapping[str, Any]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        reason = f"cannot write {path}: {error.strerror}; free space and resume the run"
        raise OSError(error.errno, reason) from error


class Pace:
    """How fast updates follow each other, read and reset whenever the run logs."""

    def __init__(self, config: PretrainConfig, processes: int) -> None:
        self.config, self.processes = config, processes
        self._reset()

    def _reset(self) -> None:
        self.updates = self.samples = self.frames = 0
        self.shown = 0.0
        self.since = time.perf_counter()

    def count(self, batches: Sequence[Batch]) -> None:
        """Note one update's micro-batches of this process."""
        self.updates += 1
        for batch in batches:
            frames = len(batch.waveform) * self.config.model.num_frames(batch.waveform.shape[1])
            self.samples += batch.waveform.numel()
            self.frames += frames
            self.shown += len(batch.waveform) * batch.visible.shape[2]

    def pause(self, seconds: float) -> None:
        """Do not count time that was not spent on training."""
        self.since += seconds

    def read(self, updates_left: int) -> dict[str, float]:
        """Rates of all processes together since the last call, and the seconds that are left."""
        seconds = time.perf_counter() - self.since
        found = {
            "masked_share": 1 - self.shown / self.frames,
            "frames_per_second": self.processes * self.frames / seconds,
            "audio_seconds_per_second": self.processes * self.samples / SAMPLE_RATE / seconds,
            "updates_per_second": self.updates / seconds,
            "seconds": seconds,
            "seconds_left": updates_left * seconds / self.updates,
        }
        self._reset()
        return found
