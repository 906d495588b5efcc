"""What the documents promise runs: README, docs, examples, the demo's data."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CKPT, ROOT, TINY

from emotion2vec import Emotion2vecConfig, convert_checkpoint
from emotion2vec.audio import load_audio
from emotion2vec.backbones import random_encoder
from emotion2vec.cli import app
from emotion2vec.corpora.known import CORPORA
from emotion2vec.manifest import read_manifest
from emotion2vec.probing.folds import folds_from_file, shared_speakers
from emotion2vec.probing.tasks import label_set

MOODS = ROOT / "data" / "moods"
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout after `make demo` and a conversion of a small model."""
    for name in ("data", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(tmp_path / "runs/demo/final")
    convert_checkpoint(CKPT / "funasr_tiny", tmp_path / "models/plus-large")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_runs(path: Path, checkout: Path) -> None:
    for block in python_blocks(path):
        exec(compile(block, str(path), "exec"), {})


def test_the_readme_has_python() -> None:
    assert python_blocks(ROOT / "README.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def commands_in(path: Path) -> list[list[str]]:
    """The words of each `emotion2vec ...` in the bash blocks of a document."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL))
    found = []
    for line in blocks.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word == "emotion2vec" and words[place - 1] != "pip":
                rest = words[place + 1 :]
                ends = [rest.index(end) for end in ("|", "||", "&&") if end in rest]
                found.append(rest[: min(ends, default=None)])
    return found


def test_the_readme_shows_every_command() -> None:
    shown = {words[0] for words in commands_in(ROOT / "README.md")}
    assert shown == {
        *(
            "corpora",
            "health",
            "finetune",
            "label",
            "recognize",
            "timeline",
            "listen",
            "demo",
            "serve",
            "export",
            "extract",
            "models",
            "convert",
            "pack",
            "pretrain",
            "probe",
            "benchmark",
            "ablate",
            "report",
            "robustness",
            "transfer",
            "doctor",
        )
    }


def facts_of_corpora() -> str:
    """The table of docs/corpora.md, and the traps below it."""
    rows = ["| name | corpus | language | speakers | emotions | licence |", "|---" * 6 + "|"]
    for name, corpus in sorted(CORPORA.items()):
        cells = (f"`{name}`", corpus.title, corpus.language, f"{corpus.speakers or 'not told'}")
        words = (", ".join(corpus.classes) or "none", corpus.licence)
        rows.append(f"| {' | '.join((*cells, *words))} |")
    traps = [
        f"- {CORPORA[name].title}: {' '.join(CORPORA[name].traps)}" for name in sorted(CORPORA)
    ]
    return "\n".join([*rows, "", "## Traps", "", *traps])


def test_the_page_says_what_the_package_knows_of_corpora() -> None:
    page = (ROOT / "docs" / "corpora.md").read_text()
    assert facts_of_corpora() in page, facts_of_corpora()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_parse(path: Path) -> None:
    for words in commands_in(path):
        words = ["/dev/stdin" if word == "-" else word for word in words]
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run_as_their_first_lines_say(
    path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert path.read_text().count("\n") <= 32
    command = re.search(r"^python examples/\S+ (.*)$", path.read_text(), re.MULTILINE)
    assert command
    monkeypatch.setattr(sys, "argv", [str(path), *command[1].split()])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_the_demo_clips_are_what_their_manifest_says() -> None:
    records = read_manifest(MOODS / "manifest.jsonl")
    assert sum(f.stat().st_size for f in MOODS.rglob("*") if f.is_file()) < 3_000_000
    assert {r.emotion for r in records} == {"angry", "happy", "neutral", "sad"}
    assert len({r.speaker for r in records}) >= 8
    for record in records[::40]:
        assert len(load_audio(record.path)) / 16000 == pytest.approx(record.duration, abs=0.01)
    folds = folds_from_file(MOODS / "folds.json", records)
    assert label_set(folds) == ["angry", "happy", "neutral", "sad"]
    assert all(shared_speakers(fold) == 0 for fold in folds.folds)
    assert sorted(r.key for fold in folds.folds for r in fold.test) == sorted(
        r.key for r in records
    )
    peaks = {
        mood: np.mean([np.abs(load_audio(r.path)).max() for r in records[::8] if r.emotion == mood])
        for mood in label_set(folds)
    }
    assert max(peaks.values()) - min(peaks.values()) < 0.2  # loudness does not tell the mood
