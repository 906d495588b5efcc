"""From a name to a classifier: ours or another family's, trained or to be trained.

C classes, K dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emotion2vec.classifiers import Classifier, NativeClassifier
from emotion2vec.config import MODEL_TYPE
from emotion2vec.model import Emotion2vec, Emotion2vecClassifier
from emotion2vec.other_classifiers import load_other, new_other

OTHER, RANDOM = "hf:", "hf-random:"
"""What stands before the names of other families' models."""


def new_classifier(
    name: str | Path,
    labels: Sequence[str],
    dimensions: Sequence[str] = (),
    *,
    seed: int = 0,
    **options: Any,
) -> Classifier:
    """An untrained classifier around the encoder called `name`, its head drawn from the seed.

    Args:
        name: folder, published model or name on a hub, of an encoder or a classifier of ours;
            "hf:NAME" for another speech encoder, a folder or hub name of transformers, and
            "hf-random:NAME-OR-FAMILY" for one with random weights
        labels: its classes
        dimensions: its values
        seed: of what is drawn
        options: as `Emotion2vec.from_pretrained`, for ours

    Raises:
        FileNotFoundError: if there is no such model
        ModuleNotFoundError: for other encoders without the extra `hf`
        ValueError: if it is a model of another kind
    """
    text = str(name)
    if text.startswith(RANDOM) or is_transformers(name):
        _refuse_options(name, options)
    if text.startswith(RANDOM):
        return new_other(text.removeprefix(RANDOM), labels, dimensions, random=True, seed=seed)
    if is_transformers(name):
        return new_other(text.removeprefix(OTHER), labels, dimensions, seed=seed)
    encoder = Emotion2vec.from_pretrained(name, **options)
    config = replace(encoder.config, labels=tuple(labels), dimensions=tuple(dimensions))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Emotion2vecClassifier(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return NativeClassifier(model)


def _refuse_options(name: str | Path, options: Mapping[str, Any]) -> None:
    given = [option for option, value in options.items() if value]
    if given:
        raise ValueError(
            f"{name} is a model of transformers, for which {given[0]} is not known; download the "
            "revision you want and give its folder."
        )


def is_transformers(name: str | Path) -> bool:
    """Whether a name stands for a model of another family, by transformers.

    >>> is_transformers("hf:facebook/wav2vec2-base"), is_transformers("plus-large")
    (True, False)
    """
    path = Path(name) / "config.json"
    if not path.is_file():
        return str(name).startswith(OTHER)
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        return False
    return kind is not None and kind != MODEL_TYPE


def load_classifier(name: str | Path, **options: Any) -> Classifier:
    """The trained classifier called `name`, in eval mode, on the CPU.

    Args:
        name: a folder that fine-tuning or conversion wrote, transformers' own, too; a published
            model; a name on a hub, after "hf:" for other families than ours
        options: as `Emotion2vecClassifier.from_pretrained`

    Raises:
        FileNotFoundError: if there is no such model
        ModuleNotFoundError: for a model of another family without the extra `hf`
        ValueError: if it is no classifier
    """
    if is_transformers(name):
        _refuse_options(name, options)
        return load_other(str(name).removeprefix(OTHER))
    return NativeClassifier(Emotion2vecClassifier.from_pretrained(name, **options)).eval()
