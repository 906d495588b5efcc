"""Classifiers of other families, by transformers: wav2vec 2.0, HuBERT, WavLM, data2vec.

B clips, S samples, T frames, P width of the projection, C classes, K dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emotion2vec.audio import SAMPLE_RATE, Waveform, pad_clips
from emotion2vec.classifiers import Parts, divide_rows
from emotion2vec.model import Answers
from emotion2vec.speech_encoders import (
    CONFIG_NAME,
    JSON_NAMES,
    LONGEST_FRAMES,
    WEIGHTS_NAMES,
    load_speech_encoder,
    model_folder,
    read_with,
    window_and_hop,
    with_weights,
)
from emotion2vec.weights import read_tensors, write_weights

DIMENSIONS_NAME = "dimensions.safetensors"
"""Beside transformers' own files: the rows of the last layer that answer dimensions. transformers
passes them over, so that its pipeline gives the classes alone."""

CLASSIFIERS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
"""transformers' `model_type` of those that can be fine-tuned: they take waveforms."""


class OtherClassifier(nn.Module):
    """A classifier of transformers: encoder, projection, mean over real frames, linear layer.

    The last layer has C + K outputs: classes first, then dimensions.
    """

    lora_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")

    def __init__(
        self, model: Any, extractor: Any, labels: Sequence[str], dimensions: Sequence[str]
    ) -> None:
        super().__init__()
        self.model, self.extractor = model, extractor
        self.labels, self.dimensions = tuple(labels), tuple(dimensions)
        self.prepare: Callable[[Waveform], Waveform] = partial(_prepared, extractor)
        if model.config.model_type == "wavlm":  # hands its attention's weights on, not the layers
            self.lora_layers = ("intermediate_dense", "output_dense")

    def forward(self, waveform: Tensor, keep: Tensor | None = None) -> Answers:
        """See `Classifier`."""
        mask = None if keep is None else keep.long()
        outputs = self.model(waveform, attention_mask=mask).logits
        return Answers(outputs[:, : len(self.labels)], outputs[:, len(self.labels) :])

    @torch.inference_mode()
    def answer(self, clips: Sequence[Waveform]) -> Answers:
        """See `Classifier`.

        Those with layer norm in the convolutions are batched; the others' group norm takes its
        statistics over padding, too, so that they go clip by clip.
        """
        window, hop = window_and_hop(self.model.config)
        ready = [self.prepare(clip) for clip in clips]
        lengths = [(len(clip) - window) // hop + 1 for clip in ready]
        if min(lengths) < 1:
            raise RuntimeError(f"a clip has under {window} samples, which a frame needs")
        device = next(self.parameters()).device
        masked = getattr(self.model.config, "feat_extract_norm", None) == "layer"
        if masked and max(lengths) <= LONGEST_FRAMES:
            batch, keep = (torch.from_numpy(array).to(device) for array in pad_clips(ready))
            return Answers(*(part.float().cpu() for part in self(batch, keep)))
        rows = [
            self._one(torch.from_numpy(clip).to(device), length, window, hop)
            for clip, length in zip(ready, lengths, strict=True)
        ]
        return Answers(*(torch.cat(part).float().cpu() for part in zip(*rows, strict=True)))

    def _one(self, clip: Tensor, length: int, window: int, hop: int) -> Answers:
        """Return the answers (1, ...) to a clip of any length, in parts of a minute.

        The last layer is linear in the mean over frames: means of parts weigh by their frames.
        """
        parts = np.array_split(np.arange(length), math.ceil(length / LONGEST_FRAMES))
        ends = [part[-1] * hop + window for part in parts[:-1]] + [len(clip)]
        found = [
            self(clip[None, part[0] * hop : end]) for part, end in zip(parts, ends, strict=True)
        ]
        shares = [len(part) / length for part in parts]
        return Answers(
            *(
                sum((a * share for a, share in zip(answers, shares, strict=True)), torch.zeros(()))
                for answers in zip(*found, strict=True)
            )
        )

    def parts(self) -> Parts:
        """See `Classifier`."""
        base = getattr(self.model, self.model.base_model_prefix)
        encoder = base.encoder
        between = [base.feature_projection, encoder.pos_conv_embed, encoder.layer_norm]
        head = [self.model.projector, self.model.classifier]
        return Parts([base.feature_extractor], between, list(encoder.layers), head)

    def temper(self, temperature: float) -> None:
        """See `Classifier`."""
        divide_rows(self.model.classifier, temperature, len(self.labels))

    def save(self, folder: Path) -> None:
        """See `Classifier`."""
        count, last = len(self.labels), self.model.classifier
        if self.labels and self.dimensions:
            rows = {
                "weight": last.weight.detach()[count:].cpu().contiguous(),
                "bias": last.bias.detach()[count:].cpu().contiguous(),
            }
            folder.mkdir(parents=True, exist_ok=True)
            write_weights(rows, folder / DIMENSIONS_NAME)
            self.model.classifier = _first_rows(last, count)
        _name_outputs(self.model.config, self.labels, self.dimensions)
        try:
            self.model.save_pretrained(folder)
            self.extractor.save_pretrained(folder)
        finally:
            self.model.classifier = last


def _prepared(extractor: Any, clip: Waveform) -> Waveform:
    ready = extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="np")
    prepared: Waveform = ready["input_values"][0]
    return prepared


def _first_rows(layer: nn.Linear, count: int) -> nn.Linear:
    """Return a linear layer with the first outputs of another."""
    first = nn.Linear(layer.in_features, count)
    with torch.no_grad():
        first.weight.copy_(layer.weight[:count])
        first.bias.copy_(layer.bias[:count])
    return first


def _name_outputs(config: Any, labels: Sequence[str], dimensions: Sequence[str]) -> None:
    """Write into transformers' config what its outputs are called."""
    names = labels or dimensions
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = "single_label_classification" if labels else "regression"
    config.dimensions = list(dimensions)


def new_other(
    name: str,
    labels: Sequence[str],
    dimensions: Sequence[str],
    *,
    random: bool = False,
    seed: int = 0,
) -> OtherClassifier:
    """A classifier around the speech encoder `name`, its head drawn from the seed.

    Args:
        name: as `load_speech_encoder`
        labels: its classes
        dimensions: its values
        random: draw the encoder's weights, too
        seed: of what is drawn

    Raises:
        FileNotFoundError: if there is no such model
        ModuleNotFoundError: without the extra `hf`
        ValueError: if it is no encoder of waveforms
    """
    encoder = load_speech_encoder(name, random=random, seed=seed)
    from transformers import AutoModelForAudioClassification

    config = encoder.config
    _check_kind(name, config)
    config.id2label = {i: str(i) for i in range(len(labels) + len(dimensions))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForAudioClassification.from_config(config)
    getattr(model, model.base_model_prefix).load_state_dict(encoder.model.state_dict())
    return OtherClassifier(model, encoder.extractor, labels, dimensions)


def load_other(name: str) -> OtherClassifier:
    """The trained classifier in a folder or of a name on the hub, in eval mode; strictly.

    Raises:
        FileNotFoundError: if there is no such model
        ModuleNotFoundError: without the extra `hf`
        ValueError: if it is no classifier of waveforms, or weights are missing
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} needs transformers: pip install 'emotion2vec[hf]'.", name=error.name
        ) from error
    folder = model_folder(name, (*JSON_NAMES, *WEIGHTS_NAMES, DIMENSIONS_NAME))
    config = read_with(transformers.AutoConfig, folder, CONFIG_NAME)
    _check_kind(name, config)
    model: Any = with_weights(
        name, folder, config, transformers.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
    )
    extractor = read_with(transformers.AutoFeatureExtractor, folder, "preprocessor_config.json")
    outputs = tuple(config.id2label[i] for i in range(config.num_labels))
    dimensions = tuple(getattr(config, "dimensions", ()))
    labels = () if config.problem_type == "regression" else outputs
    if labels and dimensions:
        model.classifier = _widened(model.classifier, read_tensors(folder / DIMENSIONS_NAME))
    return OtherClassifier(model, extractor, labels, dimensions or outputs[len(labels) :]).eval()


def _widened(layer: nn.Linear, rows: dict[str, Tensor]) -> nn.Linear:
    """Return a linear layer with more outputs behind its own."""
    wide = nn.Linear(layer.in_features, layer.out_features + len(rows["bias"]))
    with torch.no_grad():
        wide.weight.copy_(torch.cat([layer.weight, rows["weight"]]))
        wide.bias.copy_(torch.cat([layer.bias, rows["bias"]]))
    return wide


def _check_kind(name: str, config: Any) -> None:
    if config.model_type not in CLASSIFIERS:
        raise ValueError(
            f"{name} is of the kind {config.model_type!r}; classifiers can be of "
            f"{', '.join(CLASSIFIERS)}, which take waveforms."
        )
