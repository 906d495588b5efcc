"""The list of published models, ModelScope, and what is refused before any network."""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CKPT

from emotion2vec import Emotion2vec, Emotion2vecClassifier, Emotion2vecConfig
from emotion2vec.cli import main
from emotion2vec.published.hub import MINI, PUBLISHED, fetch
from emotion2vec.published.reference import reference_table


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_published_settings(name: str) -> None:
    model = PUBLISHED[name]
    sizes = {"embed_dim": 1024, "num_heads": 16, "decoder_dim": 768} if "large" in name else {}
    table = reference_table(Emotion2vecConfig(**sizes, labels=model.labels))
    left_out = "decoder." if model.labels else "nothing"
    numbers = [torch.Size(o.shape).numel() for n, o in table.items() if not n.startswith(left_out)]
    assert sum(numbers) == model.parameters
    assert len(model.labels) in (0, 9) and len(set(model.labels)) == len(model.labels)


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("table", "json"):
        with pytest.raises(SystemExit) as stopped:
            main(["models", "--format", form])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        for name, model in PUBLISHED.items():
            for word in (name, model.repo, model.trained_on, "model-license", *model.labels):
                assert word in printed or json.dumps(word)[1:-1] in printed, (form, word)
    assert set(json.loads(printed)) == {MINI, *PUBLISHED}
    assert json.loads(printed)[MINI]["licence"].startswith("CC BY-NC-SA 4.0")


def test_what_has_to_be_converted_first_is_said(tmp_path: Path) -> None:
    for path in (CKPT / "funasr_tiny", CKPT / "fairseq_tiny.pt"):
        with pytest.raises(ValueError, match=rf"run emotion2vec convert {path} OUT and load OUT"):
            Emotion2vec.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        Emotion2vec.from_pretrained(tmp_path)


def test_names_that_nobody_has() -> None:
    for name in ("plus-huge", "modelscope:plus-huge"):
        with pytest.raises(FileNotFoundError, match="published model .base, plus-seed, plus-base"):
            fetch(name)
    with pytest.raises(FileNotFoundError, match="it is not in the cache"):  # the tests are offline
        fetch("plus-seed", cache_dir="nowhere")


class FakeModelScope:
    """`snapshot_download` as modelscope has it, out of a folder; the true one is not installed."""

    def __init__(self, served: Path) -> None:
        self.served, self.calls = served, list[dict[str, Any]]()

    def snapshot_download(
        self, model_id: str, revision: str | None = None, cache_dir: str | None = None,
        local_files_only: bool = False, allow_patterns: list[str] | None = None, **more: Any,
    ) -> str:  # fmt: skip
        self.calls.append({"id": model_id, "revision": revision, "files": allow_patterns, **more})
        source = self.served / model_id.split("/")[-1]
        if not source.is_dir():
            raise RuntimeError("404: no such model\nlong explanation")
        target = Path(cache_dir or "cache") / "models" / model_id
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns or "*"):
                shutil.copy2(file, target)
        return str(target)


@pytest.fixture
def modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeModelScope:
    shutil.copytree(CKPT / "funasr_tiny", tmp_path / "served" / "emotion2vec_plus_large")
    fake = FakeModelScope(tmp_path / "served")
    module = types.ModuleType("modelscope")
    module.snapshot_download = fake.snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    return fake


def test_modelscope_by_prefix(modelscope: FakeModelScope, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache"}
    folder = fetch("modelscope:plus-large", **options)
    assert Emotion2vecClassifier.from_pretrained(folder).config.embed_dim == 64
    assert [call["id"] for call in modelscope.calls] == ["iic/emotion2vec_plus_large"] * 2
    assert modelscope.calls[1]["files"] == ["model.pt"] and "token" not in modelscope.calls[1]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert fetch("modelscope:iic/emotion2vec_plus_large", **options) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before  # converted once
    pinned = fetch("modelscope:plus-large", revision="v2", token="secret", **options)
    assert pinned != folder and pinned.name.startswith("v2-")
    assert modelscope.calls[-1]["token"] == "secret" and modelscope.calls[-1]["revision"] == "v2"
    with pytest.raises(FileNotFoundError, match=r"from ModelScope \(RuntimeError: 404") as raised:
        fetch("modelscope:iic/none", **options)
    assert "\n" not in str(raised.value)


def test_modelscope_is_an_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(SystemExit):
        main(["extract", "a.wav", "--model", "modelscope:plus-large", "--out", str(tmp_path)])
    assert "emotion2vec[modelscope]" in capsys.readouterr().err


def test_transformers_classes_take_the_names_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    import emotion2vec.hf as hf
    from emotion2vec import convert_checkpoint

    asked = []

    def fake(name: str, **options: Any) -> Path:
        asked.append((name, options))
        return convert_checkpoint(CKPT / "funasr_tiny", tmp_path / "out").folder

    monkeypatch.setattr(hf, "fetch", fake)
    for name in ("plus-large", PUBLISHED["plus-large"].repo):
        model = hf.Emotion2vecForSequenceClassification.from_pretrained(name, revision="v1")
        assert model.config.num_labels == 9
        assert asked[-1] == (name, {"revision": "v1"})
