"""The base encoder: fused attention, bfloat16 and batches against their plain twins.

python benchmarks/encoder.py

Variants are timed in turn, round after round; the ratio is the median over rounds.
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch

from emotion2vec import Emotion2vec, Emotion2vecConfig

SECONDS, CLIPS, ROUNDS = 5, 4, 5


def compare(title: str, first: Callable[[], object], second: Callable[[], object]) -> None:
    """Print how many times faster `second` is than `first`."""
    times: list[list[float]] = [[], []]
    for turn in range(ROUNDS + 1):
        for kept, run in zip(times, (first, second), strict=True):
            start = time.perf_counter()
            run()
            if turn:  # the first round warms up
                kept.append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    a, b = (statistics.median(kept) for kept in times)
    print(f"| {title} | {a:.3f} | {b:.3f} | {ratio:.2f} |")


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    model = Emotion2vec(Emotion2vecConfig()).eval()
    batch = torch.randn(CLIPS, SECONDS * 16000)
    mask = torch.ones(batch.shape, dtype=torch.bool)
    lengths = [SECONDS * 16000 * (i + 1) // CLIPS for i in range(CLIPS)]
    for row, length in zip(mask, lengths, strict=True):
        row[length:] = False

    def attention(name: str) -> Callable[[], object]:
        def run() -> object:
            model.set_attention(name)
            return model(batch)

        return run

    def bfloat16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch)

    def single() -> object:
        return [model(clip[None, :n]) for clip, n in zip(batch, lengths, strict=True)]

    print(f"{CLIPS} clips of {SECONDS} s, {torch.get_num_threads()} threads, "
          f"{platform.machine()}, torch {torch.__version__}\n")  # fmt: skip
    print("| first -> second | first, s | second, s | x faster |\n|---|---|---|---|")
    with torch.inference_mode():
        compare("eager -> fused attention", attention("eager"), attention("sdpa"))
        compare("float32 -> bfloat16", attention("sdpa"), bfloat16)
        compare("padded batch -> one by one", lambda: model(batch, mask), single)


if __name__ == "__main__":
    main()
