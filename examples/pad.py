"""A batch of clips answers as each clip alone.

python examples/pad.py runs/demo/final data/moods/clips/m1-sad-03.ogg data/moods/clips/f1-sad-01.ogg
"""

import sys

import torch

from emotion2vec import Emotion2vec
from emotion2vec.audio import load_audio, normalize, pad_clips

model = Emotion2vec.from_pretrained(sys.argv[1])
clips = [normalize(load_audio(path)) for path in sys.argv[2:]]
waveform, mask = map(torch.from_numpy, pad_clips(clips))
with torch.inference_mode():
    together = model(waveform, mask).pooled
    alone = torch.cat([model(torch.from_numpy(clip).unsqueeze(0)).pooled for clip in clips])
print("largest difference", float((together - alone).abs().max() / alone.abs().max()))
