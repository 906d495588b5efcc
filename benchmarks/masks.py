"""What several masks a clip save: one step with 8 masks against 8 steps with one.

python benchmarks/masks.py

The convolutions and the teacher run once for all masks of a clip. Steps of both kinds learn from as
many rows; they are timed in turn.
"""

import statistics
import time
from dataclasses import replace

import torch
from accelerate import Accelerator

from emotion2vec import Emotion2vecConfig
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.loop import new_state
from emotion2vec.pretraining.masking import block_mask, visible_indices
from emotion2vec.pretraining.step import update

MASKS, CLIPS, SAMPLES, ROUNDS = 8, 2, 48000, 4
MODEL = Emotion2vecConfig(
    embed_dim=384, num_heads=6, prenet_depth=2, depth=4, conv_channels=(256,) * 7
)


def main() -> None:
    """Print the ratio."""
    import numpy as np

    config = PretrainConfig(model=MODEL, top_k=4, precision="fp32")
    accelerator = Accelerator(cpu=True)
    waveform = torch.randn(CLIPS, SAMPLES)
    frames, generator = MODEL.num_frames(SAMPLES), np.random.default_rng(0)
    hidden = block_mask(CLIPS * MASKS, frames, share=0.5, span=5, adjust=0.05, generator=generator)
    visible = torch.from_numpy(visible_indices(hidden)).view(CLIPS, MASKS, -1)
    shared = [Batch(waveform, visible, ())]
    apart = [Batch(waveform, visible[:, k : k + 1], ()) for k in range(MASKS)]
    states = [new_state(replace(config, seed=seed)) for seed in (1, 2)]
    times: list[list[float]] = [[], []]
    for turn in range(ROUNDS + 1):
        for kept, state, batches in zip(times, states, (shared, apart), strict=True):
            start = time.perf_counter()
            update(state, state.student, batches, config, accelerator)
            if turn:
                kept.append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    print("| an update on 16 rows | seconds | |\n|---|---|---|")
    print(f"| 8 masks share convolutions and teacher | {statistics.median(times[0]):.2f} | |")
    print(f"| each mask for itself | {statistics.median(times[1]):.2f} | {ratio:.2f} x |")


if __name__ == "__main__":
    main()
