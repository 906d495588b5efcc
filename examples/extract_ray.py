"""Features of a folder on a cluster of Ray, here one on this machine; then what is in a part.

python examples/extract_ray.py runs/demo/final data/moods/clips/f1-* features/ray
"""

import sys
from pathlib import Path

import pyarrow.parquet

from emotion2vec.manifest import find_recordings
from emotion2vec.ray_extract import extract_with_ray

if __name__ == "__main__":
    model, *sources, out = sys.argv[1:]
    records = find_recordings(sources)
    # On a running cluster: address="auto", and addresses such as s3://bucket/features for out.
    done = extract_with_ray(records, model, out, level="utterance", actors=2)
    print(f"{done.written} written, {done.skipped} already there, {done.failed} failed")
    for part in sorted(Path(out).glob("part-*.parquet"))[:1]:
        for row in pyarrow.parquet.read_table(part).to_pylist():
            print(row["key"], row["shape"], [round(value, 2) for value in row["values"][:4]])
