"""A manifest without the test speakers of one fold, for pre-training that never heard them.

python examples/without_fold.py data/moods/manifest.jsonl data/moods/folds.json 1 rest.jsonl
"""

import sys

from emotion2vec.manifest import read_manifest, write_manifest
from emotion2vec.probing.folds import folds_from_file

manifest, folds, number, out = sys.argv[1:]
records = read_manifest(manifest)
tested = {r.speaker for r in folds_from_file(folds, records).folds[int(number) - 1].test}
rest = [record for record in records if record.speaker not in tested]
write_manifest(rest, out)
print(f"{len(rest)} of {len(records)} recordings, without {', '.join(sorted(map(str, tested)))}")
