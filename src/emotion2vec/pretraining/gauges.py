"""What a run's health is read from, beside its losses: effective ranks and gradient norms.

B clips, S samples, K masks a clip, T frames, V visible frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emotion2vec.context import hidden_mask
from emotion2vec.losses import effective_rank
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.clusters import ClusterTeacher
from emotion2vec.pretraining.distributed import whole
from emotion2vec.pretraining.teacher import Teacher

RANK_FRAMES = 2048
"""At most so many frames are looked at: more than the width, and some milliseconds of work."""

PARTS = {
    "convolutions": "encoder.feature_",
    "positions": "encoder.context.positional_encoder.",
    "tokens": "encoder.context.utterance_tokens",
    "blocks": "encoder.context.",
    "decoder": "decoder.",
}
"""Parts of the student, and how the names of their parameters begin; the first that fits counts."""


def gradient_norms(student: Emotion2vecStudent) -> dict[str, Tensor]:
    """Gradient norm of all parameters under "gradient_norm", of each part under that and its name.

    A part without gradients is left out.

    >>> from emotion2vec import Emotion2vecConfig
    >>> tiny = Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7, decoder_dim=32)
    >>> student = Emotion2vecStudent(tiny)
    >>> student.encoder.context.utterance_tokens.sum().backward()
    >>> {name: round(float(norm), 1) for name, norm in gradient_norms(student).items()}
    {'gradient_norm': 21.9, 'gradient_norm_tokens': 21.9}
    """
    gradients: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            part = next(part for part, prefix in PARTS.items() if name.startswith(prefix))
            gradients[part].append(parameter.grad)
    parts = {k: whole(nn.utils.get_total_norm(found)) for k, found in gradients.items() if found}
    total = nn.utils.get_total_norm(list(parts.values()))
    return {"gradient_norm": total, **{f"gradient_norm_{k}": v for k, v in parts.items()}}


@torch.no_grad()
def ranks(
    student: nn.Module, teacher: Teacher | ClusterTeacher, waveform: Tensor, visible: Tensor
) -> dict[str, Tensor]:
    """Effective ranks of targets, of predictions at hidden frames, of the encoder's output.

    Pseudo-labels have none.

    A pass of its own over a micro-batch, with one mask a clip and without dropout: it draws
    nothing, and costs some per cent of an update where an update is logged, nothing elsewhere.

    Args:
        student: `Emotion2vecStudent`, wrapped where there are several processes
        teacher: its teacher
        waveform: (B, S), normalized crops, on their device
        visible: (B, K, V), time indices of the frames that each mask leaves visible
    """
    trains = student.training
    output = student.eval()(waveform, visible[:, :1])
    student.train(trains)
    hidden = hidden_mask(visible[:, 0], output.features.shape[1])  # (B, T)
    found = {
        "prediction_rank": effective_rank(_pick(output.prediction[hidden])),
        "encoder_rank": effective_rank(_pick(output.frames.flatten(0, 1))),
    }
    if isinstance(teacher, Teacher):
        targets = teacher(output.features).frames.flatten(0, 1)
        found["target_rank"] = effective_rank(_pick(targets))
    return found


def _pick(frames: Tensor) -> Tensor:
    """Return at most `RANK_FRAMES` of the frames (F, D), evenly spaced."""
    return frames[:: -(-len(frames) // RANK_FRAMES)]
