"""Recognition at base size: seconds, memory and start-up, beside FunASR in one run.

python benchmarks/inference.py --peer funasr/bin/python

The peer's interpreter comes from an environment of its own:

python -m venv funasr && funasr/bin/pip install torch==2.13.0 && funasr/bin/pip install funasr

Both run float32 on the CPU with the same random weights, threads and clips, in processes of their
own that take turns, round after round; ratios are medians over rounds. Without --peer only ours is
measured. The share of GEMM is the encoder's operations a second over those of a 2048 x 2048 x 2048
product, measured in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS = (2, 5, 10, 30)
CLIPS, SHORTEST, LONGEST = 200, 1.0, 12.0  # the set of mixed lengths, in seconds
SET, SET_PARTS = "quarter of the set", 4
LABELS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "<unk>")
RATE = 16_000

# What FunASR wants to know of the base model, beyond what is the same in all published ones.
AUDIO = {
    "type": "AUDIO",
    "prenet_depth": 4,
    "prenet_layerdrop": 0.05,
    "prenet_dropout": 0.1,
    "start_drop_path_rate": 0.0,
    "end_drop_path_rate": 0.0,
    "num_extra_tokens": 10,
    "init_extra_token_zero": True,
    "mask_noise_std": 0.01,
    "mask_prob_min": None,
    "mask_prob": 0.5,
    "inverse_mask": False,
    "mask_prob_adjust": 0.05,
    "keep_masked_pct": 0.0,
    "mask_length": 5,
    "add_masks": False,
    "remove_masks": False,
    "mask_dropout": 0.0,
    "encoder_zero_mask": True,
    "mask_channel_prob": 0.0,
    "mask_channel_length": 64,
    "ema_local_encoder": False,
    "local_grad_mult": 1.0,
    "use_alibi_encoder": True,
    "alibi_scale": 1.0,
    "learned_alibi": False,
    "alibi_max_pos": None,
    "learned_alibi_scale": True,
    "learned_alibi_scale_per_head": True,
    "learned_alibi_scale_per_layer": False,
    "num_alibi_heads": 12,
    "model_depth": 8,
    "decoder": None,
    "extractor_mode": "layer_norm",
    "feature_encoder_spec": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
    "conv_pos_width": 95,
    "conv_pos_groups": 16,
    "conv_pos_depth": 5,
    "conv_pos_pre_ln": False,
}
MODEL = {
    "loss_beta": 0.0,
    "loss_scale": None,
    "depth": 8,
    "start_drop_path_rate": 0.0,
    "end_drop_path_rate": 0.0,
    "num_heads": 12,
    "norm_eps": 1e-5,
    "norm_affine": True,
    "encoder_dropout": 0.1,
    "post_mlp_drop": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "layerdrop": 0.05,
    "embed_dim": 768,
    "mlp_ratio": 4.0,
    "layer_norm_first": False,
    "average_top_k_layers": 8,
    "end_of_block_targets": False,
    "clone_batch": 8,
    "normalize": True,
    "modalities": {"audio": AUDIO},
}


def write_models(folder: Path) -> None:
    """Write the same random base classifier for both: FOLDER/ours and FOLDER/peer."""
    import torch
    import yaml

    from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig
    from emotion2vec.published.reference import reference_table

    torch.manual_seed(0)
    config = Emotion2vecConfig(labels=LABELS)
    model = Emotion2vecClassifier(config).eval()
    torch.nn.init.normal_(model.classifier.weight, std=0.1)
    model.save_pretrained(folder / "ours")
    own = model.state_dict()
    state = {
        origin.names[0]: own[name].reshape(origin.shape)
        for name, origin in reference_table(config).items()
        if name in own
    }
    (folder / "peer").mkdir()
    torch.save({"model": state}, folder / "peer" / "model.pt")
    settings = {
        "model": "Emotion2vec",
        "model_conf": MODEL,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    (folder / "peer" / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "peer" / "tokens.txt").write_text("\n".join(LABELS))
    facts = {
        "framework": "pytorch",
        "file_path_metas": {
            "init_param": "model.pt",
            "tokenizer_conf": {"token_list": "tokens.txt"},
            "config": "config.yaml",
        },
    }
    (folder / "peer" / "configuration.json").write_text(json.dumps(facts))


def write_clips(folder: Path) -> dict[str, list[str]]:
    """Write the clips of each case as .npy; return their files."""
    import numpy as np

    random = np.random.default_rng(0)
    cases = {f"{seconds} s": [float(seconds)] for seconds in SECONDS}
    cases[SET] = list(random.uniform(SHORTEST, LONGEST, CLIPS))
    files: dict[str, list[str]] = {}
    for name, lengths in cases.items():
        files[name] = []
        for number, seconds in enumerate(lengths):
            file = folder / f"{name.replace(' ', '')}-{number}.npy"
            np.save(file, random.normal(0, 0.1, int(seconds * RATE)).astype(np.float32))
            files[name].append(str(file))
    return files


def serve(kind: str, folder: str, threads: int) -> None:
    """Load a model, then answer requests on standard input, a JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    recognize = (load_peer if kind == "peer" else load_ours)(folder, threads)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    import numpy as np
    import torch

    left, right = torch.randn(2, 2048, 2048)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "gemm":
            left @ right
            start = time.perf_counter()
            for _ in range(5):
                left @ right
            answer: dict[str, Any] = {"rate": 5 * 2 * 2048**3 / (time.perf_counter() - start)}
        else:
            clips = [np.load(file) for file in request["files"]]
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            start = time.perf_counter()
            scores = recognize(clips)
            answer = {"seconds": time.perf_counter() - start, "scores": scores}
            status = Path("/proc/self/status").read_text()
            answer["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        print(json.dumps(answer), file=answers, flush=True)


def load_ours(folder: str, threads: int) -> Any:
    """Return a function from clips to lists of scores."""
    import torch

    from emotion2vec import Recognizer

    torch.set_num_threads(threads)
    recognizer = Recognizer.from_pretrained(folder, device="cpu")

    def recognize(clips: list[Any]) -> list[list[float]]:
        found = recognizer(clips, sampling_rate=RATE)
        return [list(one.scores.values()) for one in found]

    return recognize


def load_peer(folder: str, threads: int) -> Any:
    """Return a function from clips to lists of scores."""
    from funasr import AutoModel

    model = AutoModel(
        model=folder, ncpu=threads, device="cpu", disable_update=True, disable_pbar=True
    )

    def recognize(clips: list[Any]) -> list[list[float]]:
        return [
            model.generate(clip, granularity="utterance", extract_embedding=False)[0]["scores"]
            for clip in clips
        ]

    return recognize


class Worker:
    """A process that serves one of the two."""

    def __init__(self, python: str, kind: str, folder: Path, threads: int) -> None:
        command = [python, __file__, "--serve", kind, str(folder / kind), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._answer()
        self.startup = time.perf_counter() - start

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"{self.process.args} ended; run it by hand to see why.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def operations(samples: int) -> float:
    """Floating-point operations of the base encoder: convolutions, projection, blocks."""
    from emotion2vec import Emotion2vecConfig

    config = Emotion2vecConfig()
    width, total, length = config.embed_dim, 0.0, samples
    inputs = (1, *config.conv_channels)
    for i, (kernel, stride) in enumerate(
        zip(config.conv_kernels, config.conv_strides, strict=True)
    ):
        length = (length - kernel) // stride + 1
        total += 2 * length * inputs[i] * inputs[i + 1] * kernel
    total += 2 * length * inputs[-1] * width
    group = width // config.position_groups
    total += config.position_depth * 2 * length * width * group * config.position_kernel
    tokens = length + config.num_utterance_tokens
    weights = (4 + 2 * config.mlp_ratio) * width**2
    blocks = config.prenet_depth + config.depth
    return total + blocks * (2 * tokens * weights + 4 * tokens**2 * width)


def measure(workers: dict[str, Worker], turns: list[list[str]]) -> dict[str, Any]:
    """Take turns; return what each gave. A turn is the files of one request."""
    import numpy as np

    found: dict[str, Any] = {"share": []} | {f"{kind}_s": [] for kind in workers}
    for files in turns:
        rate = workers["ours"].ask(do="gemm")["rate"]
        for kind, worker in workers.items():
            found[kind] = worker.ask(do="recognize", files=files)
            found[f"{kind}_s"].append(found[kind]["seconds"])
        work = sum(operations(len(np.load(file, mmap_mode="r"))) for file in files)
        found["share"].append(work / found["ours"]["seconds"] / rate)
    return found


def report(name: str, found: dict[str, Any]) -> str:
    """The table's row of a case."""
    ours = found["ours_s"]
    share = statistics.median(found["share"])
    cells = [
        name,
        f"{statistics.median(ours):.3f}",
        f"{share:.0%}",
        f"{found['ours']['peak_mb']:.0f}",
    ]
    if "peer" in found:
        ratio = statistics.median(b / a for a, b in zip(ours, found["peer_s"], strict=True))
        difference = max(
            abs(a - b)
            for both in zip(found["ours"]["scores"], found["peer"]["scores"], strict=True)
            for a, b in zip(*both, strict=True)
        )
        seconds = statistics.median(found["peer_s"])
        cells += [
            f"{seconds:.3f}",
            f"{found['peer']['peak_mb']:.0f}",
            f"{ratio:.2f}",
            f"{difference:.0e}",
        ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="Python interpreter that has FunASR")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="*", help="such as '5 s'; all if none")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], options.serve[1], int(options.serve[2]))
        return
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        cases = write_clips(folder)
        pythons = {"ours": sys.executable} | ({"peer": options.peer} if options.peer else {})
        startups: dict[str, list[float]] = {kind: [] for kind in pythons}
        for _ in range(3):  # the first starts read from the disk
            workers = {}
            for kind, python in pythons.items():
                workers[kind] = Worker(python, kind, folder, threads)
                startups[kind].append(workers[kind].startup)
            if len(startups["ours"]) < 3:
                for worker in workers.values():
                    worker.close()
        fastest = {kind: round(min(times), 2) for kind, times in startups.items()}
        print(f"base size, float32, {threads} threads; start-up (import and load), s: {fastest}\n")
        header = ["case", "ours, s", "of GEMM", "ours, peak MB"]
        header += (
            ["peer, s", "peer, peak MB", "x faster", "largest difference"] if options.peer else []
        )
        print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
        for case, files in cases.items():
            if options.cases and case not in options.cases:
                continue
            turns = [files] * options.rounds
            if case == SET:  # in parts, so that both meet the same other load
                turns = [files[part::SET_PARTS] for part in range(SET_PARTS)]
            else:
                measure(workers, [files])  # warms up
            print(report(case, measure(workers, turns)), flush=True)
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
