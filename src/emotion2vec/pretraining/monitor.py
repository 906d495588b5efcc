"""What a run says about itself: progress bar, JSON lines, TensorBoard, skipped recordings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion2vec.jsonl import read_jsonl, write_jsonl
from emotion2vec.pretraining.data import Skipped

logger = logging.getLogger(__name__)


class CollapseError(RuntimeError):
    """The representation lost its variance, or the loss is no number any more."""


class Monitor:
    """Writes a run's metrics to its folder; only the main process has one.

    Args:
        folder: the run's folder; gets `metrics.jsonl`, `skipped.jsonl` and `tensorboard/`
        updates: finished updates; what an interrupted run logged beyond them is dropped
        max_updates: where the progress bar ends
        progress: whether to show the bar
    """

    def __init__(self, folder: Path, *, updates: int, max_updates: int, progress: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        self.skipped_path = folder / "skipped.jsonl"
        lines = read_jsonl(self.path) if updates else []
        write_jsonl([line for line in lines if line["update"] <= updates], self.path)
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
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            reason = f"cannot write {self.path}: {error.strerror}; free space and resume the run"
            raise OSError(error.errno, reason) from error
        for name, value in values.items():
            if name != "update":
                self.board.add_scalar(name, value, values["update"])
        self.bar.set_postfix_str(
            f"frame {values['frame_loss']:.3f} utterance {values['utterance_loss']:.3f} "
            f"lr {values['lr']:.1e} spread {values['target_spread']:.2f}"
            f"/{values['prediction_spread']:.2f} {values['frames_per_second']:.0f} frames/s"
        )

    def close(self) -> None:
        """Finish the bar and the files."""
        self.bar.close()
        self.board.close()
