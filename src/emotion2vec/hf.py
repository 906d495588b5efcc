"""The same models as transformers classes: Auto classes, pipelines, Trainer, peft.

Each class wraps the native model, so that outputs are bit-equal; it reads native folders and
transformers' own, and native classes read what it saves. Importing this module registers the
classes with transformers' Auto classes. Needs the extra `hf`.

B clips, S samples, T frames, D width, U utterance tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
)
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from emotion2vec.audio import SAMPLE_RATE, check_clip, normalize, pad_clips
from emotion2vec.config import MODEL_TYPE, Emotion2vecConfig
from emotion2vec.context import ContextEncoder
from emotion2vec.layers import ATTENTIONS
from emotion2vec.model import Emotion2vec, Emotion2vecOutput, init_module, mask_unused, output_layer
from emotion2vec.published.hub import NAMES, fetch

_FETCH_OPTIONS = ("revision", "cache_dir", "local_files_only", "token")


class Emotion2vecHFConfig(PreTrainedConfig):
    """`Emotion2vecConfig` as transformers keeps configs; `labels` become `id2label`.

    >>> Emotion2vecHFConfig(depth=2, labels=["happy", "sad"]).id2label
    {0: 'happy', 1: 'sad'}
    """

    model_type = MODEL_TYPE

    def __init__(self, labels: Sequence[str] = (), **values: Any) -> None:
        for field in fields(Emotion2vecConfig):
            if field.name != "labels":
                setattr(self, field.name, values.pop(field.name, field.default))
        if labels and "id2label" not in values:
            values["id2label"] = dict(enumerate(labels))
            values["label2id"] = {label: i for i, label in enumerate(labels)}
        elif self.dimensions and "id2label" not in values:
            values["id2label"] = dict(enumerate(self.dimensions))
            values["label2id"] = {name: i for i, name in enumerate(self.dimensions)}
            values["problem_type"] = "regression"
        self.labels = list(labels)
        super().__init__(**values)
        self.hidden_size = self.embed_dim
        self.num_hidden_layers = self.prenet_depth + self.depth

    def to_native(self) -> Emotion2vecConfig:
        """The config as the native models take it."""
        return Emotion2vecConfig(
            **{field.name: getattr(self, field.name) for field in fields(Emotion2vecConfig)}
        )


@dataclass
class Emotion2vecModelOutput(ModelOutput):
    """What `Emotion2vecModel` returns."""

    last_hidden_state: Tensor | None = None
    """(B, T, D), zero beyond the end of a padded clip"""
    pooler_output: Tensor | None = None
    """(B, D), the mean over each clip's real frames"""
    utterance_tokens: Tensor | None = None
    """(B, U, D)"""
    hidden_states: tuple[Tensor, ...] | None = None
    """(B, T, D) each: what enters the first block, then every block's output"""


@dataclass
class Emotion2vecClassifierOutput(SequenceClassifierOutput):
    """What `Emotion2vecForSequenceClassification` returns."""

    values: Tensor | None = None
    """(B, K), of the dimensions"""


class _PreTrained(PreTrainedModel):
    """What the transformers classes share; each holds the native encoder as `model`."""

    config_class = Emotion2vecHFConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Block",)

    def __init__(self, config: Emotion2vecHFConfig) -> None:
        super().__init__(config)
        self.model = Emotion2vec(replace(config.to_native(), labels=(), dimensions=()))
        if config._attn_implementation in ATTENTIONS:
            self.model.set_attention(config._attn_implementation)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        """The model in a folder, native or transformers' own, on the hub, or a published one."""
        if str(name) in NAMES:
            name = fetch(name, **{k: kwargs[k] for k in _FETCH_OPTIONS if k in kwargs})
        # The native classifier and student call their encoder "encoder".
        kwargs.setdefault("key_mapping", {r"^encoder\.": "model."})
        return super().from_pretrained(name, *args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        own = list(module.parameters(recurse=False))
        # transformers guards torch's initializers, but not the zeroing of one token.
        if isinstance(module, ContextEncoder) and all(
            getattr(parameter, "_is_hf_initialized", False) for parameter in own
        ):
            return
        init_module(module)

    def _encode(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None,
        output_hidden_states: bool | None,
    ) -> Emotion2vecOutput:
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        if attention_mask is not None:
            attention_mask = attention_mask.bool()
        output: Emotion2vecOutput = self.model(
            input_values, attention_mask, output_hidden_states=output_hidden_states
        )
        return output


class Emotion2vecModel(_PreTrained):
    """The encoder for `AutoModel`; bit-equal to `emotion2vec.Emotion2vec`.

    >>> config = Emotion2vecHFConfig(embed_dim=48, conv_channels=(32,) * 7, depth=1)
    >>> import torch
    >>> tuple(Emotion2vecModel(config)(torch.randn(1, 16000)).last_hidden_state.shape)
    (1, 49, 48)
    """

    def __init__(self, config: Emotion2vecHFConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Emotion2vecModelOutput | tuple[Tensor, ...]:
        """Return frames, pooled vector and tokens; arguments as `Emotion2vec.forward`."""
        output = self._encode(input_values, attention_mask, output_hidden_states)
        wrapped = Emotion2vecModelOutput(
            last_hidden_state=output.last_hidden_state,
            pooler_output=output.pooled,
            utterance_tokens=output.utterance_tokens,
            hidden_states=output.hidden_states or None,
        )
        return wrapped if return_dict is not False else wrapped.to_tuple()


class Emotion2vecForSequenceClassification(_PreTrained):
    """The classifier for `AutoModelForAudioClassification`; bit-equal to the native one."""

    def __init__(self, config: Emotion2vecHFConfig) -> None:
        super().__init__(config)
        if not config.dimensions or config.labels:
            config.labels = [config.id2label[i] for i in range(config.num_labels)]
        self.classifier = output_layer(config.embed_dim, len(config.labels))
        self.regressor = output_layer(config.embed_dim, len(config.dimensions))
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Return logits (B, C) and, for `labels` (B,), their cross-entropy (of values, the MSE).

        Labels that start with "unuse" get the lowest logit, so that a softmax gives them 0. Values
        (B, K) of dimensions stand beside them; a model without labels has them for logits.
        """
        output = self._encode(input_values, attention_mask, output_hidden_states)
        values = None if self.regressor is None else self.regressor(output.pooled)
        if self.classifier is not None:
            logits = mask_unused(self.classifier(output.pooled), self.config.labels)
        else:
            assert values is not None
            logits = values
        loss_of = F.mse_loss if self.classifier is None else F.cross_entropy
        wrapped = Emotion2vecClassifierOutput(
            loss=None if labels is None else loss_of(logits, labels),
            logits=logits,
            values=values,
            hidden_states=output.hidden_states or None,
        )
        return wrapped if return_dict is not False else wrapped.to_tuple()


class Emotion2vecFeatureExtractor(SequenceFeatureExtractor):
    """Clips at 16 kHz -> `input_values` (B, S) and `attention_mask` (B, S), True at real samples.

    Each clip is normalized on its own, then padded on the right.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(
        self, sampling_rate: int = SAMPLE_RATE, do_normalize: bool = True, **values: Any
    ) -> None:
        values = {"feature_size": 1, "padding_value": 0.0, **values}
        super().__init__(sampling_rate=sampling_rate, **values)
        self.do_normalize = do_normalize

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Prepare one clip (samples,) or a list of them.

        Raises:
            ValueError: for another sampling rate, or a clip that no model can answer for
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the clips are at {sampling_rate} Hz, the model needs {self.sampling_rate} Hz; "
                "resample them, emotion2vec.audio.load_audio does."
            )
        single = isinstance(raw_speech, np.ndarray | Tensor) and raw_speech.ndim == 1
        single = single or (isinstance(raw_speech, list) and np.isscalar(raw_speech[0]))
        clips = [np.asarray(c, dtype=np.float32) for c in ([raw_speech] if single else raw_speech)]
        for number, clip in enumerate(clips):
            check_clip(clip, f"clip {number}")
        values, mask = pad_clips([normalize(c) if self.do_normalize else c for c in clips])
        return BatchFeature(
            {"input_values": values, "attention_mask": mask}, tensor_type=return_tensors
        )


AutoConfig.register(MODEL_TYPE, Emotion2vecHFConfig)
AutoModel.register(Emotion2vecHFConfig, Emotion2vecModel)
AutoModelForAudioClassification.register(Emotion2vecHFConfig, Emotion2vecForSequenceClassification)
AutoFeatureExtractor.register(Emotion2vecHFConfig, Emotion2vecFeatureExtractor)
