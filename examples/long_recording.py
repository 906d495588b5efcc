"""A recording of any length in bounded memory: its frames, and where they change most.

python examples/long_recording.py runs/demo/final data/moods/clips
"""

import sys
from pathlib import Path

import numpy as np
import torch

from emotion2vec import Emotion2vec
from emotion2vec.audio import SAMPLE_RATE, load_audio, normalize
from emotion2vec.long import encode_long

model = Emotion2vec.from_pretrained(sys.argv[1]).eval()
# Clips in a row stand for a long recording; of a file, load_audio(path) alone would do.
clips = [load_audio(path) for path in sorted(Path(sys.argv[2]).glob("*.ogg"))[:60]]
sound = np.concatenate(clips)
result = encode_long(model, torch.from_numpy(normalize(sound)))
print(f"{len(sound) / SAMPLE_RATE:.0f} s: frames", tuple(result.frames.shape), "one every 20 ms")
print("utterance", tuple(result.frames.double().mean(dim=0).shape))
seconds = result.frames[: len(result.frames) // 50 * 50].unflatten(0, (-1, 50)).mean(dim=1)
changes = 1 - torch.cosine_similarity(seconds[1:], seconds[:-1])
print(f"the largest change from one second to the next comes at {1 + int(changes.argmax())} s")
