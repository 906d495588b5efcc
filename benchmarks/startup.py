"""How long `emotion2vec --help` takes, beside an empty Python.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time


def seconds(words: list[str], runs: int = 7) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


empty = seconds([sys.executable, "-c", "pass"])
print("| command | seconds | x empty Python |\n|---|---|---|")
print(f"| python -c pass | {empty:.3f} | 1.0 |")
for words in (["--help"], ["pretrain", "--help"]):
    taken = seconds([sys.executable, "-m", "emotion2vec", *words])
    print(f"| emotion2vec {' '.join(words)} | {taken:.3f} | {taken / empty:.1f} |")
