"""Answers of the command for many files, beside the labels of a list.

python examples/recognize_many.py models/plus-large data/moods/manifest.jsonl answers.csv
"""

import csv
import subprocess
import sys

from emotion2vec.manifest import read_manifest
from emotion2vec.metrics import classification_scores

model, manifest, out = sys.argv[1:]
options = ["--labels", "angry,happy,neutral,sad", "--model", model, "--out", out]
# Give the same command again if it was killed: it goes on where it stopped.
done = subprocess.run([sys.executable, "-m", "emotion2vec", "recognize", manifest, *options])
if done.returncode not in (0, 3):  # 3: some recordings could not be read
    sys.exit("no answers")

with open(out, encoding="utf-8", newline="") as file:
    answers = {row["key"]: row["label"] for row in csv.DictReader(file) if not row["error"]}
records = [record for record in read_manifest(manifest) if record.key in answers]
truth = [str(record.emotion) for record in records]
found = [answers[record.key] for record in records]
print(len(found), "recordings;", classification_scores(truth, found))
