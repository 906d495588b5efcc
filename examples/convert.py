"""A data2vec 1 model of transformers becomes an encoder of ours, with the same answers.

python examples/convert.py runs/theirs runs/ours data/moods/clips/m1-happy-03.ogg
"""

import sys

import torch
from transformers import Data2VecAudioConfig, Data2VecAudioModel

from emotion2vec import Emotion2vec, convert_checkpoint
from emotion2vec.audio import load_audio, normalize

theirs, ours, recording = sys.argv[1:]
# Tiny, with random weights. One that knows speech is facebook/data2vec-audio-base, which
# Emotion2vec.from_pretrained fetches and converts by that name.
config = Data2VecAudioConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
reference = Data2VecAudioModel(config).eval()
reference.save_pretrained(theirs)
print(convert_checkpoint(theirs, ours))

waveform = torch.from_numpy(normalize(load_audio(recording))).unsqueeze(0)
with torch.inference_mode():
    expected = reference(waveform).last_hidden_state
    found = Emotion2vec.from_pretrained(ours)(waveform).last_hidden_state
print("largest difference", float((found - expected).abs().max()))
