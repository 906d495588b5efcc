"""Which emotion is in a recording.

python examples/recognize.py models/plus-large data/moods/clips/m1-happy-03.ogg none.wav
"""

import sys

from emotion2vec import Recognizer

# The folder of a converted model; a published name such as plus-large is fetched instead.
recognizer = Recognizer.from_pretrained(
    sys.argv[1], labels=["happy", "sad", "angry", "neutral"], abstain=0.3
)
for found in recognizer(sys.argv[2:]):
    if found.error:
        print("error:", found.error)
        continue
    print(found.path, found.label, f"{found.duration:.2f} s")
    for label, score in found.scores.items():
        print(f"  {label:<8} {score:.2f}")
print("label:", recognizer.policy)
