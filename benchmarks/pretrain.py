"""An update of the base model: its time beside the rate of matrix products, its parts, its memory.

python benchmarks/pretrain.py

4 clips of 5 s under 8 masks, float32 on CPUs, bfloat16 on GPUs. The rate of matrix products is
measured between updates, so that what else the machine does slows both. The reference (fairseq's
data2vec 2.0 at these sizes, float32, two cores) took 29 s where products ran at 142 GFLOP/s, and
held 9.8 GB. On CPUs the plain step takes turns with ours: torch's own convolutions and dropout, all
clips at once, every block computed.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from emotion2vec.losses import frame_loss
from emotion2vec.pretraining.checkpoint import TrainState
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.costs import flops
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.loop import new_state
from emotion2vec.pretraining.masking import block_mask, visible_indices
from emotion2vec.pretraining.plan import matmul_rate
from emotion2vec.pretraining.step import clips_at_once, computes_in_bfloat16, finish, split, update
from emotion2vec.pretraining.teacher import Teacher

CLIPS, SAMPLES = 4, 80_000
REFERENCE_SECONDS, REFERENCE_RATE, REFERENCE_BYTES = 29.0, 142e9, 9.8e9
PAPER_HOURS, PAPER_EPOCHS = 262, 100


@dataclass
class Bench:
    """What is measured, on one device."""

    config: PretrainConfig
    accelerator: Accelerator
    state: TrainState
    batch: Batch
    times: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, run: Callable[[], object]) -> None:
        """Run and note how long it took."""
        device = self.accelerator.device
        for wait in (True, False):
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if wait:
                begin = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
                    run()
        self.times.setdefault(name, []).append(time.perf_counter() - begin)

    @property
    def bfloat16(self) -> bool:
        """Whether the run casts."""
        return computes_in_bfloat16(self.config.precision, self.accelerator.device)

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in."""
        return torch.bfloat16 if self.bfloat16 else torch.float32

    def parts(self) -> None:
        """Each part of the step on its own, forward and backward, in the pieces of the step."""
        student, teacher = self.state.student, self.state.teacher
        assert isinstance(teacher, Teacher)
        clips = clips_at_once(self.batch, self.config, self.accelerator.device)
        context, decoder = student.encoder.context, student.decoder
        for piece in split(self.batch, clips):
            masks = piece.visible.shape[1]
            visible = piece.visible.flatten(0, 1)
            features = student.encoder.features(piece.waveform)[0].detach()
            rows = features.repeat_interleave(masks, dim=0).requires_grad_()
            frames = torch.randn(*visible.shape, rows.shape[2], device=rows.device).requires_grad_()
            everywhere = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            runs: dict[str, Callable[[], object]] = {
                "convolutions": lambda p=piece: (
                    student.encoder.features(p.waveform)[0].sum().backward()
                ),
                "teacher": lambda f=features: teacher(f),
                "student's positions and blocks": lambda r=rows, v=visible: (
                    context(r, visible=v).frames.sum().backward()
                ),
                "decoder and frame loss": lambda f=frames, v=visible, r=rows, e=everywhere: (
                    frame_loss(decoder(f, v, r.detach()), r.detach(), e).sum().backward()
                ),
            }
            for name, run in runs.items():
                self.time(name, run)
        self.time("optimizer, clipping, teacher follows", lambda: finish(self.state, self.config))


def plain_dropout(x: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Torch's own."""
    return F.dropout(x, probability, training)


@contextmanager
def plainly() -> Iterator[None]:
    """The step without what makes it fast on CPUs."""
    with ExitStack() as stack:
        for name in ("layers", "convolutions"):
            stack.enter_context(patch(f"emotion2vec.{name}.can_use_products", return_value=False))
        for name in ("layers", "context"):
            stack.enter_context(patch(f"emotion2vec.{name}.dropout", plain_dropout))
        stack.enter_context(patch("emotion2vec.pretraining.step._WIDEST_ACTIVATION", 1e12))
        yield


def timed_update(bench: Bench, *, plain: bool) -> float:
    """Seconds of one update."""
    config = replace(bench.config, block_drop=0.0) if plain else bench.config
    place = bench.accelerator.device
    begin = time.perf_counter()
    with plainly() if plain else ExitStack():
        update(bench.state, bench.state.student, [bench.batch], config, bench.accelerator)
    if place.type != "cpu":
        torch.accelerator.synchronize(place)
    return time.perf_counter() - begin


def peak_of(kind: str) -> float:
    """Bytes that a process of its own held at most during two updates."""
    words = [sys.executable, __file__, "--cpu", "--peak", kind]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def make(device: torch.device | None, precision: str) -> Bench:
    """Student, teacher and one micro-batch of noise."""
    config = PretrainConfig(precision=precision)
    accelerator = Accelerator(cpu=device is not None and device.type == "cpu")
    frames, masks = config.model.num_frames(SAMPLES), config.num_masks
    generator = np.random.default_rng(0)
    hidden = block_mask(CLIPS * masks, frames, share=0.5, span=5, adjust=0.05, generator=generator)
    visible = torch.from_numpy(visible_indices(hidden)).view(CLIPS, masks, -1)
    batch = Batch(torch.randn(CLIPS, SAMPLES), visible, ()).to(accelerator.device)
    return Bench(config, accelerator, new_state(config, accelerator.device), batch)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--peak", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    arguments = parser.parse_args()
    device = torch.device("cpu") if arguments.cpu or not torch.cuda.is_available() else None
    bench = make(device, "fp32" if device else "bf16")
    if arguments.peak:
        for _ in range(2):
            timed_update(bench, plain=arguments.peak == "plain")
        # Not getrusage: what it says begins with what the parent process held.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
        return
    place, is_cpu = bench.accelerator.device, device is not None
    operations = sum(flops(bench.config, CLIPS, SAMPLES).values())
    seconds, plain, shares, ratios = [], [], [], []
    for number in range(arguments.updates + 1):
        before = matmul_rate(place, bench.dtype)
        took = timed_update(bench, plain=False)
        rate = (before + matmul_rate(place, bench.dtype)) / 2
        beside = timed_update(bench, plain=True) if is_cpu else 0.0
        if number:  # the first warms up
            seconds.append(took)
            plain.append(beside / took)
            shares.append(operations / took / rate)
            ratios.append(REFERENCE_SECONDS * REFERENCE_RATE / (took * rate))
    took, audio = statistics.median(seconds), CLIPS * SAMPLES / 16_000
    hours = PAPER_HOURS * PAPER_EPOCHS / (audio / took)
    print(f"base size, {CLIPS} clips of 5 s, 8 masks, {bench.dtype}, {place}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")  # fmt: skip
    print("| an update | |\n|---|---|")
    print(f"| seconds (min to max) | {took:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
    print(f"| seconds of audio a second | {audio / took:.2f} |")
    share, ratio = statistics.median(shares), statistics.median(ratios)
    print(f"| operations, of the rate of matrix products | {100 * share:.0f} % |")
    if is_cpu:
        print(f"| x faster than the plain step | {statistics.median(plain):.2f} |")
        print(f"| x faster than the reference, per rate of products | {ratio:.2f} |")
        for kind in ("ours", "plain"):
            peak = peak_of(kind)
            print(f"| peak memory, {kind}, MB (of the reference's) | {peak / 1e6:.0f} "
                  f"({peak / REFERENCE_BYTES:.2f}) |")  # fmt: skip
    else:
        print(f"| peak memory, MB | {torch.cuda.max_memory_allocated() / 1e6:.0f} |")
    print(f"| hours for {PAPER_EPOCHS} epochs of {PAPER_HOURS} h at this rate | {hours:.0f} |\n")
    for _ in range(2):
        bench.times.clear()
        bench.parts()
    whole = sum(sum(times) for times in bench.times.values())
    print("| part, on its own, forward and backward | seconds | share |\n|---|---|---|")
    for name, times in bench.times.items():
        print(f"| {name} | {sum(times):.2f} | {100 * sum(times) / whole:.0f} % |")


if __name__ == "__main__":
    main()
