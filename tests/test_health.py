"""The page at the end of a run: what it says, when it is made, what it needs."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from test_pretraining_loop import CONFIG, run

from emotion2vec.jsonl import write_jsonl
from emotion2vec.plots import Panel, curves_figure
from emotion2vec.pretraining.config import write_config
from emotion2vec.pretraining.health import panels, read_run, verdict, write_report

HEALTHY = {"loss": 1.0, "frame_loss": 1.0, "gradient_norm": 1.0, "target_spread": 0.5,
           "prediction_spread": 0.5, "target_rank": 30.0, "prediction_rank": 20.0,
           "encoder_rank": 25.0, "tau": 0.99, "lr": 1e-3, "epoch": 1.0}  # fmt: skip


def folder(path: Path, *, probes: list[float] | None = None, **changes: float) -> Path:
    """A run's folder whose last five lines of metrics, of twelve, have these changes."""
    path.mkdir(exist_ok=True)
    write_config(replace(CONFIG, max_updates=120, collapse_after=50), path / "config.toml")
    rows: list[dict[str, Any]] = [{**HEALTHY, "update": 10 * i} for i in range(1, 13)]
    rows[-5:] = [row | changes for row in rows[-5:]]
    write_jsonl(rows, path / "metrics.jsonl")
    if probes:
        lines = [{"update": 60 * i, "ua": ua, "chance": 25.0} for i, ua in enumerate(probes)]
        write_jsonl(lines, path / "probe.jsonl")
    return path


@pytest.mark.parametrize(
    "changes, probes, word, why",
    [
        ({}, None, "healthy", "120 of 120 updates."),
        ({"target_rank": 4.0}, None, "rank low", "target's effective rank is 4 of 48"),
        ({"encoder_rank": 4.0}, [30.0, 40.0], "rank low", "from 30.0 to 40.0 %"),
        ({}, [50.0, 55.0, 40.0], "probe fell", "from 50.0 to 40.0 % (chance 25.0 %)"),
        ({}, [50.0, 49.0], "healthy", "from 50.0 to 49.0 %"),
        ({"target_spread": 0.05}, None, "collapsed", "target spread is 0.050, under 0.1"),
        ({"loss": float("nan")}, None, "collapsed", "no number"),
    ],
)
def test_the_verdict(
    changes: dict[str, float], probes: list[float], word: str, why: str, tmp_path: Path
) -> None:
    found = verdict(read_run(folder(tmp_path, probes=probes, **changes)))
    assert found[0] == word and why in " ".join(found[1])


def test_one_odd_line_is_no_verdict(tmp_path: Path) -> None:
    rows = [{**HEALTHY, "update": i} for i in range(1, 10)]
    rows[-1] |= {"target_rank": 1.0}
    write_jsonl(rows, folder(tmp_path) / "metrics.jsonl")
    assert verdict(read_run(tmp_path))[0] == "healthy"


def test_the_page_needs_no_other_file(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "run <1>"
    run(replace(CONFIG, max_updates=3), tones, out, probe=lambda _: {"ua": 50.0, "chance": 25.0})
    assert "of 3 updates" in write_report(out)
    page = (out / "report.html").read_text()
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            names = ("src", "href", "xlink:href")
            links.extend(str(value) for name, value in attributes if name in names)

    Links().feed(page)
    assert [link for link in links if not link.startswith("#")] == []
    assert "run &lt;1&gt;" in page and "run <1>" not in page
    assert "<script" not in page and "@import" not in page
    for text in ("peak_lr", "model.embed_dim", "recordings", "hours of audio", "cpu", "torch"):
        assert text in page
    assert "save_every" in page and "mask_span" not in page  # those that differ from the defaults
    facts = json.loads((out / "run.json").read_text())
    assert facts["recordings"] == 12 and re.match(r"1 x cpu", facts["device"])
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert [panel.title for panel in panels(read_run(out))][-1].startswith("Probe on held-out")


def test_pretrain_ends_with_it_collapsed_or_not(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, max_updates=3, collapse_after=2)
    for name, floor, code in (("whole", 0.1, 0), ("collapsed", 100.0, 1)):
        write_config(replace(config, min_target_spread=floor), tmp_path / "c.toml")
        out = tmp_path / name
        words = ("--data", tones, "--out", out, "--quiet")
        assert call("pretrain", tmp_path / "c.toml", *words) == code
        assert (out / "report.html").is_file() and (out / "report.png").is_file()
    assert ">collapsed<" in (tmp_path / "collapsed" / "report.html").read_text()
    (out / "report.html").unlink()
    capsys.readouterr()
    assert call("health", out) == 0
    assert "collapsed. 2 of 3 updates." in capsys.readouterr().out
    assert (out / "report.html").is_file()
    assert call("health", tmp_path) == 1
    assert "holds no metrics.jsonl" in capsys.readouterr().err


def test_without_matplotlib_the_run_is_whole(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_config(replace(CONFIG, max_updates=1), tmp_path / "c.toml")
    words = ("--data", tones, "--out", tmp_path / "run", "--quiet")
    assert call("pretrain", tmp_path / "c.toml", *words) == 0
    assert "no report: " in caplog.text and "matplotlib" in caplog.text
    assert (tmp_path / "run" / "final").is_dir()


def test_curves_leave_out_what_cannot_be_drawn() -> None:
    x = list(range(400))
    y = [0.0, float("nan"), *([1.0] * 398)]
    figure = curves_figure([Panel("a", {"y": (x, y)}, log=True)], xlabel="update")
    raw, smooth = figure.axes[0].lines
    assert len(raw.get_xdata()) == 398 and min(raw.get_ydata()) == 1.0
    assert set(smooth.get_ydata().round(6)) == {1.0} and len(smooth.get_xdata()) < 398
