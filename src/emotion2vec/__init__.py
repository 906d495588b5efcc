"""Emotion in speech: recognize, extract, pre-train and probe with emotion2vec."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> module that defines it; imported at first use, so that `import emotion2vec` is cheap.
_PUBLIC = {
    "Emotion2vec": "model",
    "Emotion2vecClassifier": "model",
    "Emotion2vecConfig": "config",
    "Emotion2vecStudent": "model",
    "Recognition": "recognize",
    "Recognizer": "recognize",
    "Segment": "segments",
    "Stream": "stream",
    "StreamSettings": "stream",
    "Timeline": "timeline",
    "convert_checkpoint": "published.convert",
    "load_audio": "audio",
    "timeline_of": "timeline",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'emotion2vec' has no attribute {name!r}")
    return getattr(importlib.import_module(f"emotion2vec.{_PUBLIC[name]}"), name)
