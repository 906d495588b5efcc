"""A classifier as one file that runs without torch, and what both say of a recording.

python examples/export.py models/plus-large runs/plus-large.onnx data/moods/clips/f1-sad-01.ogg
"""

import sys

from emotion2vec import Recognizer
from emotion2vec.export import export_onnx
from emotion2vec.loading import load_classifier

name, file, clip = sys.argv[1:]
classifier = load_classifier(name)
made = export_onnx(classifier, file, name=name)  # int8=True: a quarter of the size
print(f"{made.path}: {made.bytes / 1e6:.1f} MB, {made.difference:.1e} from torch at most")
print("torch", Recognizer(classifier, device="cpu")(clip))
print("ONNX ", Recognizer(file)(clip))
