"""One round of pseudo-labels on real speech: six speakers are labelled, fourteen are not.

python recipes/labelling_round.py runs/mini runs/round

runs/mini is what recipes/mini.py left: RAVDESS, its folds, and an encoder that never heard the test
speakers of folds 1 and 2. A teacher learns from the labelled speakers, labels the others, and a
student learns from both; teacher and student are tested on the four speakers of fold 1.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from emotion2vec.manifest import read_manifest, write_manifest

CONFIG = Path(__file__).parent.parent / "configs" / "mini_finetune.toml"


def run(*words: object) -> None:
    """Run a command of this package; exit code 3 is for recordings left out."""
    done = subprocess.run([sys.executable, "-m", "emotion2vec", *map(str, words)])
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)


def finetune(encoder: Path, out: Path, data: list[Path], test: Path) -> None:
    """Fine-tune on lists as mini is, and test."""
    if not (out / "final" / "config.json").is_file():
        run(
            *("finetune", "--model", encoder, "--data", *data, "--test", test, "--out", out),
            *("--config", CONFIG),
            *(["--resume"] if (out / "run.json").is_file() else []),
        )


def main(mini: Path, out: Path) -> None:
    """Make the lists, run the round, print what came of it."""
    folds = json.loads((mini / "folds.json").read_text())["mini"]["folds"]
    tested = set(folds[0]["test"])
    records = [r for r in read_manifest(mini / "labelled.jsonl") if r.key.startswith("ravdess")]
    rest = [r for r in records if r.key not in tested]
    told = sorted({r.speaker for r in rest})[:6]
    lists = {
        "labelled": [r for r in rest if r.speaker in told],
        "unlabelled": [replace(r, labels={}) for r in rest if r.speaker not in told],
        "test": [r for r in records if r.key in tested],
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / f"{name}.jsonl" for name in (*lists, "round2")}
    for name, chosen in lists.items():
        write_manifest(chosen, paths[name])
    encoder = mini / "encoders" / "1"
    finetune(encoder, out / "teacher", [paths["labelled"]], paths["test"])
    if not paths["round2"].is_file():
        run(
            *("label", paths["unlabelled"], "--teacher", out / "teacher" / "final"),
            *("--out", paths["round2"], "--min-score", 0.4),
            *("--min-agreement", 0.8, "--max-ratio", 0),
        )
    finetune(encoder, out / "student", [paths["labelled"], paths["round2"]], paths["test"])
    truth = {r.key: r.emotion for r in rest}
    kept = read_manifest(paths["round2"])
    right = sum(r.emotion == truth[r.key] for r in kept)
    print(f"{len(kept)} of {len(lists['unlabelled'])} labelled, {right / len(kept):.1%} rightly")
    for name in ("teacher", "student"):
        found = json.loads((out / name / "scores.json").read_text())
        low, high = found["intervals"]["wa"]
        print(f"{name}: WA {found['scores']['wa']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
