"""A run on one page: is it healthy, its curves, its settings, its data; from the run's folder."""

from __future__ import annotations

import html
import io
import json
import logging
import math
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.jsonl import read_jsonl
from emotion2vec.plots import Panel, curves_figure
from emotion2vec.pretraining.config import PretrainConfig, read_config
from emotion2vec.pretraining.gauges import PARTS

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

LOW_RANK = 0.1
"""Share of the width under which an effective rank is called low: the demo, whose features a probe
reads worse than those of random weights, ends at 0.08, and starts at 0.7."""
_RECENT = 5  # lines of metrics that a verdict looks at: one alone is noise

Rows = list[dict[str, Any]]
Curves = dict[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Run:
    """What a run's folder says."""

    folder: Path
    config: PretrainConfig
    metrics: Rows
    probes: Rows
    facts: dict[str, Any]
    """of `note_run`"""

    @property
    def updates(self) -> int:
        """The last update that was logged."""
        return int(self.metrics[-1]["update"])

    def recent(self, name: str) -> float | None:
        """The median of the last values of a metric; None where the run has no such metric."""
        values = [row[name] for row in self.metrics[-_RECENT:] if name in row]
        return statistics.median(values) if values else None


def read_run(folder: str | Path) -> Run:
    """Read a run's folder, finished or not.

    Raises:
        FileNotFoundError: if it holds no metrics
    """
    folder = Path(folder)
    metrics = read_jsonl(folder / "metrics.jsonl")
    if not metrics:
        raise FileNotFoundError(
            f"{folder} holds no metrics.jsonl with a line in it; give the --out of emotion2vec "
            "pretrain, after its first log_every updates."
        )
    facts = folder / "run.json"
    return Run(
        folder,
        read_config(folder / "config.toml"),
        metrics,
        read_jsonl(folder / "probe.jsonl"),
        json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {},
    )


def note_run(folder: Path, accelerator: Accelerator, lengths: NDArray[Any]) -> None:
    """Write `run.json`: command, versions, device, recordings, of which `lengths` are samples (N,).

    Raises:
        OSError: if it cannot be written
    """
    facts = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%d %H:%M %Z"),
        "device": f"{accelerator.num_processes} x {_device_name(accelerator.device)}",
        "recordings": len(lengths),
        "hours of audio": round(float(lengths.sum()) / SAMPLE_RATE / 3600, 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("emotion2vec", "torch")},
    }
    with atomic_path(folder / "run.json") as path:
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def verdict(run: Run) -> tuple[str, list[str]]:
    """How the run stands: "healthy", "rank low", "probe fell" or "collapsed", and why."""
    why = [f"{run.updates} of {run.config.max_updates} updates."]
    word = "healthy"
    start, end = (run.probes[0], run.probes[-1]) if run.probes else ({}, {})
    if end and end["update"] > start["update"]:
        told = f"The probe's UA went from {start['ua']:.1f} to {end['ua']:.1f} %"
        why.append(f"{told} (chance {end['chance']:.1f} %).")
        if end["ua"] < start["ua"] - 2:
            word = "probe fell"
            why.append("The encoder tells emotions worse than when it started.")
    for name in ("encoder", "prediction", "target"):
        rank, width = run.recent(f"{name}_rank"), run.config.model.embed_dim
        # Logits of pseudo-labels have another width.
        if rank is None or (name == "prediction" and run.config.clusters):
            continue
        if rank < LOW_RANK * width:
            word = "rank low"
            why.append(
                f"The {name}'s effective rank is {rank:.0f} of {width}: variance alone does not "
                "show it. A slower teacher (ema_start nearer to 1) or a lower peak_lr may help."
            )
    last = run.metrics[-1]
    if not all(math.isfinite(last[name]) for name in ("loss", "gradient_norm")):
        return "collapsed", [*why, "The loss or the gradient is no number."]
    for name in ("target", "prediction"):
        floor = getattr(run.config, f"min_{name}_spread")
        if run.updates >= run.config.collapse_after and last[f"{name}_spread"] < floor:
            spread = last[f"{name}_spread"]
            return "collapsed", [*why, f"The {name} spread is {spread:.3f}, under {floor}."]
    return word, why


def panels(run: Run) -> list[Panel]:
    """The page's curves over updates."""

    def curves(rows: Rows, names: dict[str, str]) -> Curves:
        found: Curves = {}
        for title, name in names.items():
            chosen = [row for row in rows if name in row]
            if chosen:
                found[title] = ([r["update"] for r in chosen], [r[name] for r in chosen])
        return found

    def panel(title: str, names: dict[str, str], rows: Rows = run.metrics, **more: Any) -> Panel:
        return Panel(title, curves(rows, names), **more)

    config = run.config
    three = ("target", "prediction", "encoder")
    lagging = [{**row, "lag": 1 - row["tau"]} for row in run.metrics]
    found = [
        panel("Losses", {"frame": "frame_loss", "utterance": "utterance_loss"}, log=True),
        panel(
            "Spread (mean standard deviation)",
            {name: f"{name}_spread" for name in three},
            lines={"floor of targets": config.min_target_spread},
        ),
        panel(
            f"Effective rank (of {config.model.embed_dim})",
            {name: f"{name}_rank" for name in three},
            lines={"low": LOW_RANK * config.model.embed_dim},
        ),
        panel(
            "Gradient norm",
            {"all": "gradient_norm"} | {part: f"gradient_norm_{part}" for part in PARTS},
            log=True,
        ),
        panel("Learning rate", {"rate": "lr"}),
        panel("How far the teacher follows (1 - tau)", {"1 - tau": "lag"}, lagging, log=True),
        panel("Seconds of audio a second", {"pace": "audio_seconds_per_second"}),
    ]
    if run.probes:
        chance = {"chance": run.probes[-1]["chance"]} if "chance" in run.probes[-1] else {}
        found += [
            panel("Probe on held-out speakers, UA (%)", {"UA": "ua"}, run.probes, lines=chance),
            panel("Effective rank of clips' means", {"rank": "clip_rank"}, run.probes),
        ]
    return [one for one in found if one.curves]


def write_report(folder: str | Path) -> str:
    """Write `report.png` and `report.html`, which needs no other file; return the verdict.

    Raises:
        FileNotFoundError: as `read_run`
        OSError: if the folder cannot be written
        ImportError: without matplotlib
    """
    run = read_run(folder)
    word, why = verdict(run)
    figure = curves_figure(panels(run), xlabel="update")
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    with atomic_path(run.folder / "report.html") as path:
        svg = drawing.getvalue()
        path.write_text(_page(run, word, why, svg[svg.index("<svg") :]), encoding="utf-8")
    figure.suptitle(f"{run.folder.name}: {word}. {' '.join(why)}", fontsize=9, wrap=True)
    with atomic_path(run.folder / "report.png") as path:
        figure.savefig(path, format="png", dpi=110)
    return f"{word}. {' '.join(why)}"


def try_report(folder: Path) -> None:
    """Write the report, or say in one line why there is none: it must not end a run in an error."""
    try:
        found = write_report(folder)
    except FileNotFoundError:  # it ended before anything was logged
        return
    except (ImportError, OSError) as error:
        logger.warning("no report: %s; emotion2vec health %s makes it", error, folder)
    else:
        logger.info("%s/report.html: %s", folder, found)


def _page(run: Run, word: str, why: list[str], svg: str) -> str:
    color = {"healthy": "#009E73", "collapsed": "#B00020"}.get(word, "#B26B00")
    last = run.metrics[-1]
    seconds = sum(row.get("seconds", 0.0) for row in run.metrics)
    skipped = len(read_jsonl(run.folder / "skipped.jsonl"))
    facts = {
        **run.facts,
        "left out": skipped,
        "epochs": f"{last['epoch']:.1f}",
        "time in training": f"{seconds / 3600:.2f} h",
        "masked share": f"{last['masked_share']:.3f}" if "masked_share" in last else "",
    }
    sentences = " ".join(html.escape(sentence) for sentence in why)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(run.folder.name)}: {word}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto;
  padding: 0 1em }}
.verdict {{ border-left: 8px solid {color}; background: {color}14; padding: .7em 1em }}
.verdict b {{ color: {color}; font-size: 1.25em }}
svg {{ width: 100%; height: auto; margin: 1em 0 }}
.tables {{ display: flex; flex-wrap: wrap; gap: 2em }}
.tables div {{ flex: 1 1 420px }}
table {{ border-collapse: collapse; font-size: 13px }}
td {{ padding: .2em .9em .2em 0; border-top: 1px solid #ddd; vertical-align: top;
  overflow-wrap: anywhere }}
td:first-child {{ color: #666; white-space: nowrap }}
h2 {{ font-size: 1em }}
</style>
<h1>{html.escape(run.folder.name)}</h1>
<p class="verdict"><b>{word}</b><br>{sentences}</p>
{svg}
<div class="tables">
<div><h2>The run</h2>{_table(facts)}</div>
<div><h2>Settings that are not the defaults</h2>{_table(_changed(run))}</div>
</div></html>
"""


def _changed(run: Run) -> dict[str, Any]:
    """Return the settings that differ from the defaults, those of the model under "model."."""

    def flat(config: PretrainConfig) -> dict[str, Any]:
        values = asdict(config)
        return values | {f"model.{k}": v for k, v in values.pop("model").items()}

    defaults = flat(PretrainConfig())
    return {k: v for k, v in flat(run.config).items() if k != "model" and v != defaults[k]}


def _table(values: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in values.items()
        if value != ""
    ]
    return f"<table>{''.join(rows)}</table>"
