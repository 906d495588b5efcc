"""Two kinds of hand-made frames on own recordings, in folds by speaker, and their difference.

python examples/benchmark.py data/moods/manifest.jsonl runs/benchmark
"""

import sys
from functools import partial
from pathlib import Path

from emotion2vec.benchmark.cells import result_of
from emotion2vec.benchmark.run import Given, Plan, run_benchmark
from emotion2vec.benchmark.tables import tables
from emotion2vec.comparison import compare_classes
from emotion2vec.manifest import read_manifest

manifest, out = sys.argv[1:]
moods = Given(partial(read_manifest, manifest))
plan = Plan(["logmel", "trivial"], {"moods": moods}, Path(out), protocols=["speaker-folds"])
cells = list(run_benchmark(plan))
print(tables(cells))

first, second = (result_of(cell).runs for cell in cells[:2])
truth = [label for run in first if run.seed == 0 for label in run.truth]
speakers = [who for run in first if run.seed == 0 for who in run.speakers]
answers = [[a for run in runs if run.seed == 0 for a in run.prediction] for runs in (first, second)]
print(compare_classes(truth, [answers[0]], [answers[1]], speakers, score="ua"))
