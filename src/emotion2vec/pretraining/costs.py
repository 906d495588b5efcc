"""What an update costs, from its sizes alone: parameters, floating-point operations, memory.

B clips, S samples, T frames, K masks a clip, R = B * K rows, V visible frames, U utterance tokens,
L = U + V, D width.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.config import PretrainConfig

# Bytes that the graph keeps, counted with torch's saved_tensors_hooks on CPUs: for a value that a
# convolution on the waveform puts out, a positional or decoder convolution puts out, a block has in
# its width, and for a score of its attention.
_KEPT = {"fp32": (8.0, 14.0, 66.0, 9.0), "bf16": (6.3, 6.8, 47.0, 4.5)}
_BESIDE = 1.4
"""What forward passes were measured to take of a process's memory, over what the graph keeps."""


def parameters(config: PretrainConfig) -> dict[str, int]:
    """Numbers of parameters: the student's, of them encoder and decoder, and the teacher's.

    >>> parameters(PretrainConfig())
    {'student': 93790988, 'encoder': 93171212, 'decoder': 619776, 'teacher': 88569612}
    """
    with torch.device("meta"):  # shapes without memory
        student = Emotion2vecStudent(config.model, sum(config.clusters) or None)

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    return {
        "student": count(student),
        "encoder": count(student.encoder),
        "decoder": count(student.decoder),
        # Pseudo-labels come from a frozen encoder, a copy of the run's own unless another is named.
        "teacher": count(student.encoder if config.clusters else student.encoder.context),
    }


def flops(config: PretrainConfig, clips: int, samples: int) -> dict[str, int]:
    """Floating-point operations of student, teacher and backward pass on one micro-batch, by part.

    Products and convolutions only, two operations a multiplication; every block is counted, though
    layer drop may skip some. Masks are counted as those of the block masker.

    Args:
        config: settings of the run
        clips: B
        samples: S, of each

    >>> {k: round(v / 1e9, 1) for k, v in flops(PretrainConfig(), 4, 80_000).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'convolutions': 98.1, 'projection': 0.8, 'positions': 55.8, 'blocks': 755.3, 'decoder': 9.8,
     'teacher': 192.9, 'backward': 1839.2}
    """
    model, rows = config.model, clips * config.num_masks
    frames = model.num_frames(samples)
    visible = frames - int(frames * config.mask_share)
    layers = [2 * clips * size for size in _convolution_sizes(model, samples)]
    student = {
        "convolutions": sum(layers),
        "projection": 2 * clips * frames * model.conv_channels[-1] * model.embed_dim,
        "positions": rows * _positions(model, frames),
        "blocks": rows * _blocks(model, visible + model.num_utterance_tokens),
        "decoder": rows * _decoder(config, frames),
    }
    teacher = clips * (
        _positions(model, frames) + _blocks(model, frames + model.num_utterance_tokens)
    )
    if config.clusters:  # a whole encoder, and the distances to all centres
        teacher += student["convolutions"] + student["projection"]
        teacher += 2 * clips * frames * model.embed_dim * sum(config.clusters)
    # The waveform has no gradient; neither has what log-mel multiplies with.
    first = 2 if model.first_layer == "logmel" else 1
    backward = 2 * sum(student.values()) - first * layers[0]
    if config.gradient_checkpointing:
        backward += student["blocks"]
    return student | {"teacher": teacher, "backward": backward}


def _convolution_sizes(model: Emotion2vecConfig, samples: int) -> list[int]:
    """Return the multiplications of each convolution on one waveform."""
    sizes, inputs = [], 1
    for channels, kernel, frames in zip(
        model.conv_channels, model.conv_kernels, _convolution_frames(model, samples), strict=True
    ):
        sizes.append(frames * channels * inputs * kernel)
        inputs = channels
    if model.first_layer == "logmel":
        window, bands = model.conv_kernels[0], model.conv_channels[0]
        bins = (1 << (window - 1).bit_length()) // 2 + 1
        sizes[0] = _convolution_frames(model, samples)[0] * bins * (2 * window + bands)
    return sizes


def _convolution_frames(model: Emotion2vecConfig, samples: int) -> list[int]:
    frames = []
    for kernel, stride in zip(model.conv_kernels, model.conv_strides, strict=True):
        samples = (samples - kernel) // stride + 1
        frames.append(samples)
    return frames


def _positions(model: Emotion2vecConfig, frames: int) -> int:
    layer = model.embed_dim**2 // model.position_groups * model.position_kernel
    return 2 * frames * layer * model.position_depth


def _blocks(model: Emotion2vecConfig, length: int) -> int:
    width, hidden = model.embed_dim, int(model.embed_dim * model.mlp_ratio)
    linear = 2 * length * (4 * width**2 + 2 * width * hidden)
    attention = 2 * 2 * length**2 * width
    return (model.prenet_depth + model.depth) * (linear + attention)


def _decoder(config: PretrainConfig, frames: int) -> int:
    model = config.model
    widths = (model.embed_dim, *[model.decoder_dim] * model.decoder_depth)
    taps = model.decoder_kernel
    layers = sum(a * b // model.decoder_groups * taps for a, b in pairwise(widths))
    outputs = sum(config.clusters) or model.embed_dim
    return 2 * frames * (layers + widths[-1] * outputs)


def memory(
    config: PretrainConfig,
    clips: int,
    samples: int,
    *,
    at_once: int | None = None,
    bfloat16: bool = False,
) -> dict[str, int]:
    """Bytes that an update holds at its peak, by part, without torch's own libraries.

    Weights, gradients, moments and teacher are exact, activations those of `activations`.

    >>> {k: round(v / 1e9, 2) for k, v in memory(PretrainConfig(), 4, 80_000).items()}
    {'weights': 0.38, 'gradients': 0.38, 'moments': 0.75, 'teacher': 0.35, 'activations': 6.35}
    """
    counts = parameters(config)
    casts = 2 * counts["student"] if bfloat16 else 0
    return {
        "weights": 4 * counts["student"] + casts,
        "gradients": 4 * counts["student"],
        "moments": 8 * counts["student"],
        "teacher": 4 * counts["teacher"],
        "activations": activations(config, clips, samples, at_once=at_once, bfloat16=bfloat16),
    }


def activations(
    config: PretrainConfig,
    clips: int,
    samples: int,
    *,
    at_once: int | None = None,
    bfloat16: bool = False,
) -> int:
    """Bytes that a micro-batch holds at its peak, estimated from what was measured on CPUs.

    Fused attention on GPUs keeps less.

    Args:
        config: settings of the run
        clips: B
        samples: S, of each
        at_once: clips that go through the step together; B if None
        bfloat16: whether products are computed in it
    """
    model, frames = config.model, config.model.num_frames(samples)
    together = min(clips, at_once or clips)
    rows = together * config.num_masks
    length = frames - int(frames * config.mask_share) + model.num_utterance_tokens
    blocks = model.prenet_depth + model.depth
    convolved, positioned, token, score = _KEPT["bf16" if bfloat16 else "fp32"]
    a_block = rows * length * (token * model.embed_dim + score * model.num_heads * length)
    if config.gradient_checkpointing:  # one block at a time, and what goes into each
        kept = a_block + blocks * rows * length * model.embed_dim * 4
    else:
        kept = blocks * a_block
    outputs = zip(_convolution_frames(model, samples), model.conv_channels, strict=True)
    kept += together * convolved * sum(n * channels for n, channels in outputs)
    widths = model.embed_dim * model.position_depth + model.decoder_dim * model.decoder_depth
    kept += rows * frames * positioned * widths
    # Targets and predictions of all clips stay until the micro-batch's spreads are known.
    answers = 8 * clips * config.num_masks * frames * model.embed_dim
    return int(_BESIDE * kept) + answers
