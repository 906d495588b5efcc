"""The house: which way imports run, what the core needs, what public names promise."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import emotion2vec

SOURCE = ROOT / "src" / "emotion2vec"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# The floor of each module; imports run down, to a lower number. As docs/architecture.md draws it.
FLOORS = [
    {
        "config",
        "addresses",
        "atomic",
        "caches",
        "calibration",
        "dropout",
        "filterbank",
        "frame_store",
        "concordance",
        "label_names",
        "layer_choice",
        "losses",
        "media",
        "metrics",
        "onnx_int8",
        "plots",
        "products",
        "ray_watch",
        "resampling",
        "segments",
        "settings",
        "smoothing",
        "demo.looks",
        "serving.answers",
        "serving.gauges",
        "serving.server",
        "reporting.published_scores",
        "reporting.style",
        "pretraining.ablations",
        "published.pickles",
    },
    {"audio", "comparison", "convolutions", "folders", "jsonl", "layers", "listings"}
    | {"pretraining.masking", "pretraining.order", "pretraining.schedules", "published.reference"}
    | {"reporting.cells"},
    {"degradations", "feature_files", "handmade", "nonspeech", "onnx_runtime", "reporting.maps"}
    | {"speech", "serving.batcher", "serving.limits"}
    | {"batching", "manifest", "context", "published.data2vec1", "shards", "weights"},
    {"coding", "inputs", "serving.requests"}
    | {"corpora.catalog", "corpora.own", "corpora.summary", "corpora.tables"}
    | {"corpus", "published.checkpoints"},
    {"conditions", "pack", "published.convert", "corpora.acted", "corpora.emobox"}
    | {"corpora.dialogues", "corpora.listed", "corpora.sentiment"},
    {"corpora.known", "published.hub"},
    {"pretrained", "probing.networks", "reporting.tables"},
    {"model", "pretraining.teacher", "probing.heads", "probing.folds", "probing.statistics"}
    | {"reporting.drawings", "reporting.lines"},
    {"hf", "long", "onnx_graph", "pretraining.clusters", "pretraining.config"}
    | {"pretraining.distributed"}
    | {"probing.protocols", "probing.tasks", "probing.training"}
    | {"reporting.html_tables", "reporting.writers"},
    {"encoding", "speech_encoders", "pretraining.costs", "probing.results", "reporting.page"},
    {"backbones", "classifiers", "reporting.report"},
    {"export", "extract", "frame_cache", "other_classifiers"},
    {"loading", "ray_actor", "finetuning.config"}
    | {"benchmark.result_files", "probing.probe"}
    | {"pretraining.data", "pretraining.checkpoint", "pretraining.gauges"},
    {"ray_extract", "recognize", "finetuning.augment", "finetuning.objective", "finetuning.splits"}
    | {"finetuning.scopes", "finetuning.targets"}
    | {"pretraining.step", "pretraining.monitor", "pretraining.start", "pretraining.health"}
    | {"benchmark.cells", "benchmark.transfer"}
    | {"probing.baselines", "probing.quick", "probing.report"},
    {"labelling", "stream", "serving.model"}
    | {"finetuning.batches", "finetuning.card", "finetuning.evaluation"}
    | {"benchmark.run", "benchmark.tables", "probing.side_by_side"}
    | {"pretraining.loop", "ablation.grid"},
    {"benchmark.robustness", "finetuning.trainer"}
    | {"timeline", "commands.output", "pretraining.plan"}
    | {"ablation.scores"},
    {"ablation.work", "ablation.report", "commands.recognizers", "commands.resuming"}
    | {"finetuning.run"}
    | {"segment_files", "demo.drawings", "serving.service"},
    {"demo.findings", "serving.door"},
    {"demo.panels", "serving.app"},
    {"demo.page"},
    {
        "commands.ablate",
        "commands.benchmark",
        "commands.convert",
        "commands.corpora",
        "commands.demo",
        "commands.doctor",
        "commands.export",
        "commands.extract",
        "commands.finetune",
        "commands.health",
        "commands.listen",
    }
    | {"commands.label", "commands.models", "commands.pack", "commands.pretrain", "commands.probe"}
    | {"commands.recognize", "commands.report", "commands.robustness", "commands.transfer"}
    | {"commands.serve", "commands.timeline"},
    {"cli"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
EXTRAS = (
    *("accelerate", "av", "fastapi", "gradio", "h5py", "matplotlib", "onnx", "onnxruntime"),
    *("onnxscript", "opensmile", "peft", "prometheus_client", "pyarrow", "pydantic", "ray"),
    *("silero_vad", "sklearn", "sounddevice", "starlette", "tensorboard", "tomli_w"),
    *("transformers", "umap", "uvicorn"),
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def test_every_module_has_its_room() -> None:
    rooms = (ROOT / "docs" / "architecture.md").read_text()
    assert [
        n for n in FLOOR if "." not in n and n != "__main__" and f"| `{n}` |" not in rooms
    ] == []


def own_imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emotion2vec."):
            found.add(str(node.module).removeprefix("emotion2vec."))
        if isinstance(node, ast.ImportFrom) and node.module == "emotion2vec":
            found |= {emotion2vec._PUBLIC.get(alias.name, "config") for alias in node.names}
    return found


def test_every_module_has_its_floor() -> None:
    names = {name_of(path) for path in MODULES if path.name != "__init__.py"}
    assert names == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down(path: Path) -> None:
    name = name_of(path)
    if path.name == "__init__.py":
        return
    for imported in own_imports(path):
        assert FLOOR[imported] < FLOOR[name], f"{name} imports {imported}"
        assert not (name.startswith("probing") and imported.startswith("pretraining"))
        assert not (name.startswith("pretraining") and imported.startswith("probing"))


def test_the_nevers() -> None:
    """The losses know nobody, the teacher not the losses, the model not the teacher."""
    imports = {name_of(path): own_imports(path) for path in MODULES}
    assert imports["losses"] == set()
    assert imports["pretraining.teacher"] == {"context"}
    assert not any(name.startswith("pretraining") for name in imports["model"])
    assert not any("cli" in found for name, found in imports.items() if name != "__main__")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_tests_stay_small(path: Path) -> None:
    assert path.read_text().count("\n") <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not name_of(path).startswith("commands"):
            body = node.end_lineno - node.body[0].lineno + 1  # type: ignore[operator]
            assert body <= 60, node.name


def test_every_module_imports_on_the_core_alone() -> None:
    # Those that need an extra are the ones that name it at their top.
    needs = {
        "hf": "transformers",
        "pretraining.step": "accelerate",
        "pretraining.loop": "accelerate",
        "pretraining.plan": "accelerate",
        "finetuning.trainer": "transformers",
        "finetuning.run": "transformers",
        "serving.answers": "pydantic",
        "serving.requests": "pydantic",
        "serving.app": "fastapi",
        "serving.door": "starlette",
        "serving.service": "pydantic",
    }
    names = [n for n in map(name_of, MODULES) if n not in (*needs, "__main__", "__init__")]
    script = (
        "import importlib, sys\n"
        f"for name in {EXTRAS}: sys.modules[name] = None\n"
        f"for name in {names}: importlib.import_module('emotion2vec.' + name)\n"
        f"for name in {list(needs)}:\n"
        "    try: importlib.import_module('emotion2vec.' + name)\n"
        "    except ImportError: pass\n"
        "    else: raise SystemExit(name + ' needs no extra')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there_and_importing_is_cheap() -> None:
    for name in emotion2vec.__all__:
        assert getattr(emotion2vec, name).__class__ is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = emotion2vec.nothing
    script = "import sys, emotion2vec; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_functions_say_what_comes_out(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
