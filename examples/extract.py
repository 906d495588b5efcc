"""Features of one clip: frames, the utterance's mean, and the utterance tokens.

python examples/extract.py runs/demo/final data/moods/clips/m1-happy-03.ogg
"""

import sys

import torch

from emotion2vec import Emotion2vec
from emotion2vec.audio import load_audio, normalize

model = Emotion2vec.from_pretrained(sys.argv[1])
waveform = torch.from_numpy(normalize(load_audio(sys.argv[2]))).unsqueeze(0)
with torch.inference_mode():
    output = model(waveform)
print("frames", tuple(output.last_hidden_state.shape), "one every 20 ms")
print("utterance", tuple(output.pooled.shape))
print("tokens", tuple(output.utterance_tokens.shape))
