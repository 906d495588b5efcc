"""Models by name: fetched from a hub-shaped local server, converted once, kept, explained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CKPT, TINY, change, write_tone
from hub_server import COMMITS, Hub, serve

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.backbones import random_encoder

LARGE = "emotion2vec/emotion2vec_plus_large"
Client = Callable[..., "list[Any]"]

# Runs in a process of its own, because the client reads its environment once: fetches each of the
# given (name, options), and prints a folder's labels or the error, then what was logged.
SCRIPT = """
import json, logging, sys
from emotion2vec.published.hub import fetch
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("emotion2vec").addHandler(handler)
logging.getLogger("emotion2vec").setLevel(logging.INFO)
answers = []
for name, options in json.loads(sys.argv[1]):
    try:
        folder = fetch(name, **options)
        answers.append({**json.loads((folder / "config.json").read_text()), "folder": str(folder)})
    except (FileNotFoundError, ValueError) as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps([*answers, lines]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the server serves: plus-large in two revisions, with files that nobody needs."""
    for branch in COMMITS:
        folder = tmp_path / "served" / LARGE / branch
        shutil.copytree(CKPT / "funasr_tiny", folder)
        (folder / "README.md").write_text("# model card")
        (folder / "logo.png").write_bytes(bytes(1000))
    labels = tmp_path / "served" / LARGE / "v1" / "tokens.txt"
    labels.write_text("\n".join(["old", *labels.read_text().splitlines()[1:]]))
    return tmp_path / "served"


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with serve(root) as served:
        yield served


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    """Fetch names in another process whose hub is `hub`; what it answers, and what it logs."""

    def run(*names: Any, **environment: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(calls(names))],
            env=environ(hub.url, tmp_path, **environment), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def calls(names: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(name, {}) if isinstance(name, str) else name for name in names]


def environ(url: str, home: Path, **changes: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    caches = {"HF_HOME": str(home / "hf"), "EMOTION2VEC_CACHE": str(home / "e2v")}
    return {**own, **caches, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", **changes}


def test_fetched_converted_once_and_kept(client: Client, hub: Hub, tmp_path: Path) -> None:
    first, again, pinned, commit, log = client(
        LARGE, "plus-large", ("plus-large", {"revision": "v1"}),
        (LARGE, {"revision": COMMITS["v1"]}),
    )  # fmt: skip
    assert first == again and first["labels"][0] == "生气/angry"
    assert pinned == commit and pinned["labels"][0] == "old"
    assert [line.split(":")[0] for line in log] == [
        f"converted {LARGE}, once", "converted plus-large, once"
    ]  # fmt: skip
    # No README, no logo; what is the same in both revisions comes once.
    assert sorted(hub.downloads()) == [
        "config.yaml", "configuration.json", "model.pt", "tokens.txt", "tokens.txt"
    ]  # fmt: skip
    assert first["folder"].startswith(str(tmp_path / "e2v"))
    model = Emotion2vec.from_pretrained(first["folder"])
    assert model(torch.randn(1, 16000)).pooled.shape == (1, 64)

    hub.requests.clear()
    offline, pinned, missing, unknown, log = client(
        "plus-large", ("plus-large", {"revision": "v1"}), "plus-base",
        ("plus-large", {"revision": "v9"}), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert (offline, log) == (first, []) and pinned["labels"][0] == "old"
    assert hub.requests == []
    for answer in (missing, unknown):
        assert "(it is not in the cache); run once with a network" in answer
    cached, log = client(("plus-large", {"local_files_only": True}))
    assert (cached, log) == (first, []) and hub.requests == []

    # With the server gone what is cached still loads.
    cached, missing, log = client("plus-large", "plus-seed", HF_ENDPOINT="http://127.0.0.1:9")
    assert cached == first
    assert missing.startswith("FileNotFoundError: emotion2vec/emotion2vec_plus_seed is neither")
    for cure in ("set HF_ENDPOINT to a mirror", "by hand and run emotion2vec convert FOLDER OUT"):
        assert cure in missing and "\n" not in missing


def test_a_cut_download_goes_on_where_it_stopped(client: Client, hub: Hub, root: Path) -> None:
    file = root / LARGE / "main" / "model.pt"
    # The client writes in pieces of 10 MB: enough of a file for one to be there.
    change(file, lambda model: model.update({"criterion.weight": torch.zeros(6_500_000)}))
    hub.cut_after = 15_000_000
    model, log = client("plus-large")
    assert model["embed_dim"] == 64 and "criterion (1)" in log[0]
    downloads = [r for r in hub.requests if r.startswith("GET") and r.endswith("model.pt")]
    assert len(downloads) == 2 and "Range" not in downloads[0]
    assert downloads[1].startswith("GET bytes=10485760-")


def test_every_wrong_name_is_one_sentence(client: Client, root: Path) -> None:
    bert = root / "someone" / "bert" / "main"
    bert.mkdir(parents=True)
    (bert / "config.json").write_text('{"model_type": "bert"}')
    empty = root / LARGE.replace("large", "base") / "main"
    shutil.copytree(CKPT / "funasr_tiny", empty)
    (empty / "model.pt").unlink()
    *answers, log = client(
        "nobody/nothing", ("plus-large", {"revision": "v9"}), "someone/bert", "plus-base",
        "a/b/c", "plus-huge",
    )  # fmt: skip
    assert log == []
    for answer, message in zip(
        answers,
        (
            "nobody/nothing is neither a folder nor a model on http.* open to you; check the name",
            "plus_large has no revision 'v9'; http.*/commits/main lists",
            "someone/bert is no model of this family: it has neither config.yaml",
            "plus_base has no model.pt on the hub",
            "a/b/c is neither a folder nor a name on the hub, .* owner/name",
            "plus-huge is neither .* published model .base, plus-seed, plus-base, plus-large",
        ),
        strict=True,
    ):
        assert re.search(message, answer), answer
        assert "\n" not in answer and len(answer) < 400


def test_repositories_in_other_formats(client: Client, hub: Hub, root: Path) -> None:
    own = root / "me" / "mine" / "main"
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(own)
    (own / "optimizer.pt").write_bytes(b"not asked for")
    found, log = client("me/mine")
    assert found["embed_dim"] == 48 and log == []  # used as it is
    assert "snapshots" in found["folder"] and "optimizer.pt" not in hub.downloads()
    transformers = pytest.importorskip("transformers")
    config = transformers.Data2VecAudioConfig(
        hidden_size=48, num_attention_heads=4, num_hidden_layers=1, intermediate_size=96,
        conv_dim=(32,) * 7,
    )  # fmt: skip
    transformers.Data2VecAudioModel(config).save_pretrained(root / "fb" / "d2v" / "main")
    found, log = client("fb/d2v")
    assert found["prenet_depth"] == 0 and "encoder of 0.1 M" in log[0]


def test_two_at_once_and_a_killed_one(hub: Hub, tmp_path: Path) -> None:
    key = LARGE.replace("/", "--")
    cache = tmp_path / "e2v" / "converted-1" / key
    leftover = cache / f".{COMMITS['main']}.abcd1234" / "new"  # as a kill leaves it
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(calls(["plus-large"]))],
            env=environ(hub.url, tmp_path), stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    answers = [json.loads(process.communicate()[0]) for process in processes]
    assert answers[0][0] == answers[1][0] and answers[0][0]["embed_dim"] == 64
    assert sum(len(log) for _, log in answers) == 1  # converted by one of them
    assert sorted(p.name for p in cache.iterdir() if p.is_dir()) == [COMMITS["main"]]


def test_the_command_line_takes_names(hub: Hub, tmp_path: Path) -> None:
    clip = write_tone(tmp_path / "a.wav")
    words = ["extract", str(clip), "--model", "plus-large", "--out", str(tmp_path / "features")]
    for url, code in ((hub.url, 0), ("http://127.0.0.1:9", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "emotion2vec", *words, "--quiet"],
            env=environ(url, tmp_path / str(code)), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        lines = done.stderr.strip().splitlines()
        if code:
            assert len(lines) == 1 and lines[0].startswith("error: emotion2vec/emotion2vec_plus_l")
        else:
            assert sum(line.startswith("converted plus-large, once: ") for line in lines) == 1
            assert not any("HTTP" in line for line in lines)
