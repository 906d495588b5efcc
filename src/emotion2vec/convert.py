"""Reference configurations and weights -> ours, in memory.

The reference is what FunASR and fairseq publish: a nested `model_conf` and a state dict in which
the encoder is `modality_encoders.AUDIO.*` and `blocks.*`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from emotion2vec.config import Emotion2vecConfig

_RENAMES = (
    (r"modality_encoders\.AUDIO\.local_encoder\.conv_layers\.(\d+)\.0\.", r"convs.\1.conv."),
    (r"modality_encoders\.AUDIO\.local_encoder\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"convs.\1.norm."),
    (r"convs\.", "feature_encoder.layers."),
    (r"modality_encoders\.AUDIO\.project_features\.1\.", "feature_projection.norm."),
    (r"modality_encoders\.AUDIO\.project_features\.2\.", "feature_projection.linear."),
    (r"modality_encoders\.AUDIO\.extra_tokens$", "context.utterance_tokens"),
    (r"modality_encoders\.AUDIO\.alibi_scale$", "context.alibi_scale"),
    (r"modality_encoders\.AUDIO\.context_encoder\.norm\.", "context.prenet_norm."),
    (r"modality_encoders\.AUDIO\.context_encoder\.blocks\.", "context.prenet."),
    (r"modality_encoders\.AUDIO\.decoder\.blocks\.(\d+)\.0\.", r"decoder.layers.\1.conv."),
    (r"modality_encoders\.AUDIO\.decoder\.proj\.", "decoder.projection."),
    (r"^blocks\.", "context.main."),
    (r"^norm\.", "context.norm."),
    (r"^proj\.", "classifier."),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
)


def config_from_reference(
    model_conf: Mapping[str, Any], labels: Sequence[str] = (), *, drop_residual: bool = True
) -> Emotion2vecConfig:
    """The architecture in a reference `model_conf` (FunASR's yaml, fairseq's `cfg.model`).

    Args:
        model_conf: nested fields; training settings in it are passed over
        labels: classes of the checkpoint's classifier, if it has one
        drop_residual: whether a pre-norm model forgets its residual, as all were trained

    Raises:
        ValueError: if the model computes something that this encoder does not

    >>> conf = {"embed_dim": 48, "num_heads": 12, "depth": 3, "modalities": {"audio": {}}}
    >>> config_from_reference(conf).depth
    3
    """
    audio = model_conf["modalities"]["audio"]
    decoder = audio.get("decoder") or {}
    if audio.get("learned_alibi"):
        raise ValueError("learned_alibi is true; learned bias tables exist in no released model.")
    if model_conf.get("end_of_block_targets"):
        raise ValueError("end_of_block_targets is true; targets here are the MLPs' outputs.")
    convs = parse_conv_spec(audio["feature_encoder_spec"]) if "feature_encoder_spec" in audio else {}
    pre_norm = bool(model_conf.get("layer_norm_first", False))
    renamed = {
        "embed_dim": model_conf.get("embed_dim"),
        "num_heads": model_conf.get("num_heads"),
        "depth": model_conf.get("depth"),
        "mlp_ratio": model_conf.get("mlp_ratio"),
        "norm_eps": model_conf.get("norm_eps"),
        "normalize_waveform": model_conf.get("normalize"),
        "attention_dropout": model_conf.get("attention_dropout"),
        "projection_dropout": model_conf.get("encoder_dropout"),
        "activation_dropout": model_conf.get("activation_dropout"),
        "mlp_dropout": model_conf.get("post_mlp_drop"),
        "input_dropout": model_conf.get("dropout_input"),
        "prenet_depth": audio.get("prenet_depth"),
        "prenet_dropout": audio.get("prenet_dropout"),
        "position_depth": audio.get("conv_pos_depth"),
        "position_width": audio.get("conv_pos_width"),
        "position_groups": audio.get("conv_pos_groups"),
        "position_pre_norm": audio.get("conv_pos_pre_ln"),
        "num_utterance_tokens": audio.get("num_extra_tokens"),
        "alibi": audio.get("use_alibi_encoder"),
        "alibi_scale_per_head": audio.get("learned_alibi_scale_per_head"),
        "alibi_scale_per_layer": audio.get("learned_alibi_scale_per_layer"),
        "decoder_dim": decoder.get("decoder_dim"),
        "decoder_depth": decoder.get("decoder_layers"),
        "decoder_kernel": decoder.get("decoder_kernel"),
        "decoder_groups": decoder.get("decoder_groups"),
        "decoder_dropout": decoder.get("input_dropout"),
    }
    return Emotion2vecConfig(
        **{name: value for name, value in renamed.items() if value is not None},
        **convs,
        conv_norm="layer" if audio.get("extractor_mode", "layer_norm") == "layer_norm" else "group",
        pre_norm=pre_norm,
        drop_residual=pre_norm and drop_residual,
        labels=tuple(labels),
    )


def parse_conv_spec(spec: str) -> dict[str, tuple[int, ...]]:
    """Channels, kernels and strides in the reference's convolution spec, without running it.

    >>> parse_conv_spec("[(512, 10, 5)] + [(512, 3, 2)] * 2")["conv_kernels"]
    (10, 3, 3)
    """
    layers: list[tuple[int, int, int]] = []
    for term, times in re.findall(r"(\[[^\]]*\])(?:\s*\*\s*(\d+))?", spec):
        layers += list(ast.literal_eval(term)) * int(times or 1)
    if not layers or any(len(layer) != 3 for layer in layers):
        raise ValueError(f"{spec!r} is no list of (channels, kernel, stride); check the config.")
    channels, kernels, strides = zip(*layers, strict=True)
    return {"conv_channels": channels, "conv_kernels": kernels, "conv_strides": strides}


def weights_from_reference(
    state: Mapping[str, Tensor], config: Emotion2vecConfig
) -> dict[str, Tensor]:
    """Reference weights under our names: `encoder.*` parts without prefix, decoder, classifier.

    Takes the student's names and the teacher's (`_ema`) alike.

    Raises:
        ValueError: that lists the names it does not know
    """
    weights = {}
    for name, value in state.items():
        new = rename_reference(name, config)
        weights[new] = value.flatten(1) if new == "context.alibi_scale" else value
    unknown = [name for name in weights if name.startswith(("modality_encoders.", "_"))]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are unknown: {', '.join(unknown[:8])}.")
    return weights


def rename_reference(name: str, config: Emotion2vecConfig) -> str:
    """Our name of a reference weight.

    >>> rename_reference("blocks.0.attn.proj.bias", Emotion2vecConfig(prenet_depth=4))
    'context.blocks.4.attention.projection.bias'
    """
    if config.position_pre_norm:
        positions = (
            (r"^modality_encoders\.AUDIO\.relative_positional_encoder\.0\.", "PRE"),
            (r"^modality_encoders\.AUDIO\.relative_positional_encoder\.1\.(\d+)\.0\.", r"POS\1."),
        )
    else:
        positions = (
            (r"^modality_encoders\.AUDIO\.relative_positional_encoder\.(\d+)\.0\.", r"POS\1."),
        )
    for pattern, replacement in (*positions, *_RENAMES):
        name = re.sub(pattern, replacement, name)
    if name.startswith("POS"):  # the reference counts from 1: its index 0 is a transpose
        layer, parameter = name[3:].split(".", 1)
        return f"context.positional_encoder.layers.{int(layer) - 1}.conv.{parameter}"
    name = re.sub("^PRE", "context.positional_encoder.pre_norm.", name)
    name = re.sub(r"^context\.prenet\.", "context.blocks.", name)
    main = re.match(r"^context\.main\.(\d+)\.(.*)", name)
    if main:
        return f"context.blocks.{int(main[1]) + config.prenet_depth}.{main[2]}"
    return name
