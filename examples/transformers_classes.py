"""The same weights through transformers.

python examples/transformers_classes.py runs/demo/final data/moods/clips/m1-happy-03.ogg
"""

import sys

import torch
from transformers import AutoFeatureExtractor, AutoModel

import emotion2vec.hf  # noqa: F401 - registers the classes
from emotion2vec.audio import load_audio

prepare = AutoFeatureExtractor.from_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1])
inputs = prepare(load_audio(sys.argv[2]), sampling_rate=16_000, return_tensors="pt")
with torch.inference_mode():
    print(tuple(model(**inputs).last_hidden_state.shape))
