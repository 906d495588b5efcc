"""What a run says about itself: progress bar, JSON lines, TensorBoard, skipped recordings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion2vec.atomic import atomic_path
from emotion2vec.pretraining.data import Skipped


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
        _write_jsonl([line for line in lines if line["update"] <= updates], self.path)
        self.skipped = {
            line["key"]: line["error"]
            for line in (read_jsonl(self.skipped_path) if updates else [])
        }
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=updates or None)
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
        _write_jsonl(rows, self.skipped_path)
        for error in new.values():
            tqdm.write(f"left out: {error}")

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line of metrics; `values["update"]` is the update they belong to."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
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


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSON-lines file; none if there is no file.

    A last line that a kill cut short is passed over.
    """
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _write_jsonl(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
