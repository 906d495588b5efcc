"""Grouped convolutions as matrix products, on CPUs: the same numbers with bounded memory.

oneDNN compiles a kernel for every shape that it meets and keeps a thousand of them, 0.8 MB each:
over a corpus, whose batches hardly ever have the same shape twice, memory would grow and grow.
Products need none. On one thread they take 0.5 to 1.1 of its time, on two 0.9 to 1.1.

B clips, T frames, C channels, G groups, K taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def can_use_products(x: Tensor) -> bool:
    """Whether nothing but the numbers is asked for: on a CPU, no graph, no autocast, no export.

    >>> can_use_products(torch.zeros(1))
    False
    >>> with torch.no_grad():
    ...     can_use_products(torch.zeros(1))
    True
    """
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def grouped_convolution(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """The convolution of channels-last frames by products: (B, T, C) -> (B, T', C_out).

    For stride 1. The frames under a kernel lie side by side: they are the rows of one product a
    group, which are copied group by group.

    >>> conv = nn.Conv1d(6, 4, 3, padding=1, groups=2).requires_grad_(False)
    >>> x = torch.randn(2, 5, 6)
    >>> torch.allclose(grouped_convolution(x, conv), conv(x.mT).mT, atol=1e-6)
    True
    """
    clips, num_frames, channels = x.shape
    groups, taps, pad = conv.groups, conv.kernel_size[0], int(conv.padding[0])
    width, num_out = channels // groups, num_frames + 2 * pad - taps + 1
    padded = x.new_zeros(groups, clips, num_frames + 2 * pad, width)
    padded[:, :, pad : pad + num_frames] = x.unflatten(2, (groups, width)).permute(2, 0, 1, 3)
    kernel = conv.weight.permute(2, 1, 0).flatten(0, 1)  # no copy after `arrange_weights`
    output = x.new_empty(clips, num_out, conv.out_channels)
    parts = zip(padded, kernel.chunk(groups, 1), output.chunk(groups, 2), strict=True)
    for part, weight, out in parts:
        rows = part.as_strided(
            (clips, num_out, taps * width), (part.stride(0), width, 1), part.storage_offset()
        )
        out.copy_(rows.bmm(weight.expand(clips, -1, -1)))
    return output if conv.bias is None else output.add_(conv.bias)
