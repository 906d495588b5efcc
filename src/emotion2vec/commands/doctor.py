"""`emotion2vec doctor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emotion2vec.commands.output import Format

# Extra -> the packages whose presence it means.
EXTRAS = {
    "train": ("accelerate", "matplotlib", "tensorboard", "tomli-w"),
    "eval": ("matplotlib", "scikit-learn"),
    "hf": ("transformers",),
    "finetune": ("accelerate", "peft", "tensorboard", "tomli-w", "transformers"),
    "media": ("av",),
    "parquet": ("pyarrow",),
    "hdf5": ("h5py",),
    "vad": ("matplotlib", "silero-vad"),
    "mic": ("sounddevice",),
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "serve": ("fastapi", "prometheus-client", "python-multipart", "uvicorn"),
    "demo": ("av", "gradio", "matplotlib", "silero-vad"),
    "ray": ("pyarrow", "ray"),
    "modelscope": ("modelscope",),
    "opensmile": ("opensmile",),
    "umap": ("umap-learn",),
}
CORE = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface-hub")


def doctor(*, format: Format = "table") -> int:
    """Say what is installed, where models compute and where they are kept.

    emotion2vec doctor

    What to put into a bug report. Asks no network. Exit code 1 where something cannot be used.

    Parameters
    ----------
    format
        How the answer is printed.
    """
    import json

    facts: dict[str, dict[str, Any]] = {}
    for title, find in SECTIONS.items():
        try:
            facts[title] = find()
        except (ImportError, OSError) as error:  # what is broken is what a report is about
            facts[title] = {"error": f"{type(error).__name__}: {error}"}
    if format == "json":
        print(json.dumps(facts, indent=1))
    else:
        for title, values in facts.items():
            print(title)
            for name, value in values.items():
                print(f"  {name:<20} {value}")
    return 1 if any("error" in values for values in facts.values()) else 0


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, Any]:
    import platform

    names = ("emotion2vec", *CORE)
    found = {"python": platform.python_version(), "system": platform.platform()}
    return found | {name: _version(name) or "missing" for name in names}


def _extras() -> dict[str, str]:
    return {name: _extra(name, packages) for name, packages in EXTRAS.items()}


def _extra(name: str, packages: tuple[str, ...]) -> str:
    missing = [package for package in packages if _version(package) is None]
    if not missing:
        return "installed"
    return f"lacks {', '.join(missing)}: pip install 'emotion2vec[{name}]'"


def _devices() -> dict[str, Any]:
    import torch

    from emotion2vec.encoding import default_device

    found: dict[str, Any] = {"used by default": default_device()}
    found["cpu threads"] = torch.get_num_threads()
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        found[f"{kind} devices"] = torch.accelerator.device_count()
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    return found


def _sound() -> dict[str, Any]:
    import soundfile

    formats = ", ".join(sorted(name.lower() for name in soundfile.available_formats()))
    media = _version("av")
    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "read by it": formats,
        "m4a, mp4, webm, ...": f"av {media}" if media else "need the extra media",
    }


def _caches() -> dict[str, Any]:
    from huggingface_hub import constants

    from emotion2vec.caches import cache_folder
    from emotion2vec.published.hub import conversions_folder

    downloads, conversions = constants.HF_HUB_CACHE, conversions_folder()
    models = sorted(path.name for path in conversions.glob("*") if path.is_dir())
    return {
        "downloads": downloads,
        "conversions": str(conversions),
        "converted models": ", ".join(models) or "none",
        "frames": str(cache_folder() / "frames"),
        "hub": constants.ENDPOINT,
        "offline": "yes (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "no",
    }


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "versions": _versions,
    "extras": _extras,
    "devices": _devices,
    "sound": _sound,
    "caches": _caches,
}
