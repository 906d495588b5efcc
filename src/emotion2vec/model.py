"""The models: the encoder, the student that pre-training adds to it, the classifier.

B clips, S samples, T frames, D width, U utterance tokens, L = U + T, K masks a clip,
R = B * K rows, V visible frames, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.config import Emotion2vecConfig, is_unused
from emotion2vec.context import ContextEncoder
from emotion2vec.convolutions import ConvLayer, FeatureEncoder
from emotion2vec.layers import (
    ATTENTIONS,
    Attention,
    DefaultLinear,
    FeatureProjection,
    FrameDecoder,
    SameConv,
)
from emotion2vec.pretrained import Pretrained


class Emotion2vecOutput(NamedTuple):
    """What the encoder returns. Frames beyond the end of a padded clip are zero."""

    last_hidden_state: Tensor
    """(B, T, D)"""
    utterance_tokens: Tensor
    """(B, U, D)"""
    keep: Tensor | None
    """(B, T), True at real frames; None where nothing was padded"""
    hidden_states: tuple[Tensor, ...] = ()
    """(B, T, D) each, on request: what enters the first block, then every block's output"""
    token_states: tuple[Tensor, ...] = ()
    """(B, U, D) each: the tokens beside `hidden_states`"""

    @property
    def pooled(self) -> Tensor:
        """Mean over each clip's real frames, (B, D): the paper's utterance embedding."""
        return mean_pool(self.last_hidden_state, self.keep)


def mean_pool(frames: Tensor, keep: Tensor | None) -> Tensor:
    """Mean over real frames: (B, T, D) and (B, T), True at real frames -> (B, D).

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    if keep is None:
        return frames.mean(dim=1)
    total = frames.masked_fill(~keep.unsqueeze(-1), 0.0).sum(dim=1)
    return total / keep.sum(dim=1, keepdim=True)


class Emotion2vec(Pretrained, nn.Module):
    """The encoder: normalized waveform -> frames, hidden states and utterance tokens.

    Args:
        config: architecture

    >>> model = Emotion2vec(Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7)).eval()
    >>> output = model(torch.randn(1, 16000))
    >>> tuple(output.last_hidden_state.shape), tuple(output.pooled.shape)
    ((1, 49, 48), (1, 48))

    Source: paper section 3; method of data2vec 2.0.
    """

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_encoder = FeatureEncoder(config)
        self.feature_projection = FeatureProjection(config)
        self.context = ContextEncoder(config)
        self.apply(init_module)

    def forward(
        self,
        waveform: Tensor,
        attention_mask: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
    ) -> Emotion2vecOutput:
        """Encode clips; every answer is that of the clip alone, however far it is padded.

        Args:
            waveform: (B, S), 16 kHz mono, each clip normalized on its own
                (`emotion2vec.audio.normalize`), then padded on the right
            attention_mask: (B, S), True (or 1) at real samples; None where nothing is padded
            output_hidden_states: also return the input and output of every block

        Raises:
            ValueError: if a clip is shorter than 400 samples or padded on the left
        """
        features, keep = self.features(waveform, attention_mask)  # (B, T, D), (B, T)
        context = self.context(features, keep=keep, collect=output_hidden_states)
        return Emotion2vecOutput(
            self._zero_padding(context.frames, keep),
            context.tokens,
            keep,
            tuple(self._zero_padding(h, keep) for h in context.hidden_states),
            context.token_states,
        )

    def features(
        self, waveform: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Projected convolution frames (B, T, D), and which are real (B, T); see `forward`."""
        check_waveform(waveform, attention_mask, self.config)
        if attention_mask is None:
            return self.feature_projection(self.feature_encoder(waveform)), None
        lengths = self.config.num_frames(attention_mask.long().sum(dim=1))  # (B,)
        if self.config.conv_norm == "group":
            frames = self._encode_one_by_one(waveform, attention_mask)
        else:
            frames = self.feature_encoder(waveform, lengths)
        keep = torch.arange(frames.shape[1], device=frames.device) < lengths.unsqueeze(1)
        return self._zero_padding(self.feature_projection(frames), keep), keep

    def _encode_one_by_one(self, waveform: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the frames of each clip encoded alone, zeros behind its end.

        The group norm takes its statistics over all time, so padding would change them.
        """
        clips = [
            self.feature_encoder(clip[:length].unsqueeze(0))[0]
            for clip, length in zip(waveform, attention_mask.sum(dim=1).tolist(), strict=True)
        ]
        longest = self.config.num_frames(waveform.shape[1])
        return torch.stack([F.pad(clip, (0, 0, 0, longest - len(clip))) for clip in clips])

    @staticmethod
    def _zero_padding(frames: Tensor, keep: Tensor | None) -> Tensor:
        return frames if keep is None else frames.masked_fill(~keep.unsqueeze(-1), 0.0)

    def set_attention(self, implementation: str) -> None:
        """Choose how attention is computed: "sdpa" (fused, the default) or "eager".

        Raises:
            ValueError: for another name; the message lists the known ones
        """
        if implementation not in ATTENTIONS:
            raise ValueError(f"attention {implementation!r} is not one of {sorted(ATTENTIONS)}.")
        for module in self.modules():
            if isinstance(module, Attention):
                module.implementation = implementation

    def enable_gradient_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass: less memory, more time."""
        self.context.gradient_checkpointing = enable

    @classmethod
    def rename_weights(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's weights in a checkpoint of any model of the family; its head is left."""
        return {
            name.removeprefix("model.").removeprefix("encoder."): value
            for name, value in weights.items()
            if not name.startswith(("decoder.", "classifier.", "regressor."))
        }


def check_waveform(
    waveform: Tensor, attention_mask: Tensor | None, config: Emotion2vecConfig
) -> None:
    """Refuse what the convolutions would answer wrongly or not at all.

    Raises:
        ValueError: for a wrong shape, a clip under 400 samples, padding that is not on the right
    """
    if waveform.ndim != 2 or waveform.shape[1] < config.min_samples:
        raise ValueError(
            f"the waveform has shape {tuple(waveform.shape)}; the model needs (clips, samples) "
            f"with at least {config.min_samples} samples (0.025 s at 16 kHz); lengthen the clip."
        )
    if attention_mask is None or torch.compiler.is_compiling():
        return
    if attention_mask.shape != waveform.shape:
        raise ValueError(
            f"the attention mask has shape {tuple(attention_mask.shape)}, the waveform "
            f"{tuple(waveform.shape)}; give one value a sample."
        )
    mask = attention_mask.bool()
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError("the attention mask is True after False; pad clips on the right only.")
    shortest = int(mask.sum(dim=1).min())
    if shortest < config.min_samples:
        raise ValueError(
            f"a clip in the batch has {shortest} samples; the model needs at least "
            f"{config.min_samples} (0.025 s at 16 kHz); leave the clip out or lengthen it."
        )


@torch.no_grad()
def init_module(module: nn.Module) -> None:
    """Draw the module's own weights as the reference does.

    Source: fairseq's init_bert_params over the whole model, and the resets after it.
    """
    if isinstance(module, DefaultLinear):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, ConvLayer):
        nn.init.kaiming_normal_(module.conv.weight)
    elif isinstance(module, SameConv):
        module.conv.reset_parameters()
    elif isinstance(module, nn.LayerNorm | nn.GroupNorm) and module.weight is not None:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, ContextEncoder):
        if module.utterance_tokens is not None:
            nn.init.normal_(module.utterance_tokens)
            module.utterance_tokens[:, 0] = 0
        if module.alibi_scale is not None:
            nn.init.ones_(module.alibi_scale)


class StudentOutput(NamedTuple):
    """What the student returns; R = B * K rows, row b * K + k is clip b under its mask k."""

    features: Tensor
    """(B, T, D), projected frames: what the teacher is fed"""
    prediction: Tensor
    """(R, T, D), the decoder's answer at all frames; (R, T, O) with other outputs"""
    tokens: Tensor
    """(R, U, D)"""
    frames: Tensor
    """(R, V, D), the encoder's output at the visible frames"""


class Emotion2vecStudent(Pretrained, nn.Module):
    """The student of pre-training: the encoder on visible frames, and the frame decoder.

    Args:
        config: architecture
        num_outputs: numbers that the decoder answers for a frame; the encoder's width if None

    Source: paper section 3.2.
    """

    def __init__(self, config: Emotion2vecConfig, num_outputs: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Emotion2vec(config)
        self.decoder = FrameDecoder(config, num_outputs)

    def forward(
        self,
        waveform: Tensor,
        visible: Tensor,
        *,
        noise: Tensor | None = None,
        keep_blocks: Tensor | None = None,
    ) -> StudentOutput:
        """Predict the hidden frames; nothing is drawn here but dropout.

        Args:
            waveform: (B, S), normalized crops of one length
            visible: (B, K, V), increasing time indices of the frames each mask leaves visible
            noise: (R, T, D), stands at the hidden frames in the decoder; None for zeros
            keep_blocks: as in `ContextEncoder.forward`
        """
        num_masks = visible.shape[1]
        features, _ = self.encoder.features(waveform)  # (B, T, D), once for all masks
        rows = features.repeat_interleave(num_masks, dim=0)  # (R, T, D)
        visible = visible.flatten(0, 1)  # (R, V)
        context = self.encoder.context(rows, visible=visible, keep_blocks=keep_blocks)
        filler = torch.zeros_like(rows) if noise is None else noise.to(rows.dtype)
        prediction = self.decoder(context.frames, visible, filler)  # (R, T, D)
        return StudentOutput(features, prediction, context.tokens, context.frames)


class Answers(NamedTuple):
    """What a classifier says of clips, before any softmax."""

    logits: Tensor
    """(B, C), of the labels; C may be 0"""
    values: Tensor
    """(B, K), of the dimensions; K may be 0"""


class Emotion2vecClassifier(Pretrained, nn.Module):
    """Mean over real frames, then a linear layer: normalized waveform -> logits (B, C).

    With `dimensions` in its config, a second linear layer answers values (B, K); then it may do
    without labels.

    Raises:
        ValueError: when made with neither labels nor dimensions in its config

    Source: the published emotion2vec+ models.
    """

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        if not config.labels and not config.dimensions:
            raise ValueError("labels is empty; a classifier needs one label for each output.")
        self.config = config
        self.encoder = Emotion2vec(config)
        self.classifier = output_layer(config.embed_dim, len(config.labels))
        self.regressor = output_layer(config.embed_dim, len(config.dimensions))

    @classmethod
    def check_config(cls, config: Emotion2vecConfig, name: str | Path) -> None:
        """Refuse an encoder, which has no labels."""
        if not config.labels and not config.dimensions:
            raise ValueError(
                f"{name} is an encoder without a classifier; take one that has labels, such as "
                "mini or plus-large, train one on it (emotion2vec finetune), or take the encoder's "
                "features (emotion2vec extract, emotion2vec probe)."
            )

    @classmethod
    def rename_weights(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` under the names of this class; transformers calls the encoder "model"."""
        return {
            f"encoder.{name.removeprefix('model.')}" if name.startswith("model.") else name: value
            for name, value in weights.items()
        }

    def forward(self, waveform: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, C) in the order of `config.labels`; arguments as `Emotion2vec`.

        A softmax gives 0 to labels that start with "unuse", as FunASR's inference does.
        """
        return self.answer(self.encoder(waveform, attention_mask).pooled).logits

    def answer(self, pooled: Tensor) -> Answers:
        """Logits and values of utterances (B, D)."""
        nothing = pooled.new_zeros(pooled.shape[0], 0)
        logits = nothing if self.classifier is None else self.classifier(pooled)
        values = nothing if self.regressor is None else self.regressor(pooled)
        return Answers(mask_unused(logits, self.config.labels), values)


def output_layer(width: int, outputs: int) -> nn.Linear | None:
    """A linear layer from (B, width) to (B, outputs); None where there are no outputs."""
    return nn.Linear(width, outputs) if outputs else None


def mask_unused(logits: Tensor, labels: Sequence[str]) -> Tensor:
    """Logits (B, C) with the lowest number at labels that were never trained.

    >>> mask_unused(torch.zeros(1, 2), ["sad", "unuse_0"]).softmax(dim=-1)
    tensor([[1., 0.]])
    """
    if not any(map(is_unused, labels)):
        return logits
    unused = torch.tensor([is_unused(label) for label in labels], device=logits.device)
    return logits.masked_fill(unused, torch.finfo(logits.dtype).min)
