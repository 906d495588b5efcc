"""emotion2vec-mini, from the corpora to the folder that ships in the package.

python recipes/mini.py CORPORA runs/mini

CORPORA holds ravdess, emodb and urdu, each with manifest.jsonl, the first with folds.json. Every
step is skipped where it has been done: a run that was stopped goes on when it is started again.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from emotion2vec import Emotion2vecClassifier
from emotion2vec.finetuning.config import read_finetune_config
from emotion2vec.finetuning.evaluation import Predictions, details, join
from emotion2vec.finetuning.targets import Outputs
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import Record, read_manifest, write_manifest
from emotion2vec.weights import write_folder

CONFIGS = Path(os.path.relpath(Path(__file__).parent.parent / "configs"))
"""As the card shall name it: from where the recipe is started."""
LANGUAGES = {"ravdess": "en", "emodb": "de", "urdu": "ur"}
PAIRS = ((1, 2), (3, 4), (5, 6))
"""Folds that share an encoder: it heard RAVDESS's test speakers of neither."""
DOMAIN = Path(__file__).parent / "mini_domain.md"
"""What the card says of where the model is of use."""
LICENCE = (
    "RAVDESS (Livingstone and Russo 2018) CC BY-NC-SA 4.0; EmoDB (Burkhardt et al. 2005) CC0; URDU "
    "(Latif et al. 2018), heard without labels, research purposes only, no formal licence"
)


def corpus(folder: Path, name: str) -> list[Record]:
    """The recordings of a corpus, with keys and speakers that no other has."""
    return [
        replace(r, key=f"{name}/{r.key}", speaker=f"{name}-{r.speaker}", language=LANGUAGES[name])
        for r in read_manifest(folder / name / "manifest.jsonl")
    ]


def make_folds(folder: Path, ravdess: list[Record], emodb: list[Record], path: Path) -> list:
    """RAVDESS's official folds; EmoDB's speakers are spread over them."""
    official = json.loads((folder / "ravdess" / "folds.json").read_text())["emobox"]["folds"]
    speakers = sorted({r.speaker for r in emodb})
    folds = []
    for number, fold in enumerate(official):
        tested = {f"ravdess/{key}" for key in fold["test"]}
        tested |= {r.key for r in emodb if speakers.index(r.speaker) % len(official) == number}
        both = [*ravdess, *emodb]
        train = [r.key for r in both if r.key not in tested]
        folds.append({"train": train, "test": [r.key for r in both if r.key in tested]})
    path.write_text(json.dumps({"mini": {"folds": folds}}))
    return folds


def pretrain(records: list[Record], out: Path) -> None:
    """Pre-train an encoder on recordings, without their labels."""
    if (out / "final" / "config.json").is_file():
        return
    data = out.with_suffix(".jsonl")
    write_manifest(records, data)
    run("pretrain", CONFIGS / "mini_pretrain.toml", "--data", data, "--out", out, "--resume")


def run(*words: object) -> None:
    """Run a command of this package."""
    subprocess.run([sys.executable, "-m", "emotion2vec", *map(str, words)], check=True)


def scores_of(out: Path, name: str, outputs: Outputs) -> dict:
    """Scores of one corpus in the tests of all folds."""
    files = sorted((out / "folds").glob("*.jsonl"))
    rows = [row for file in files for row in list(read_jsonl(file))[1:]]
    chosen = [row for row in rows if row["key"].startswith(name)]
    return details(join([Predictions.from_rows(chosen, outputs)]), outputs)


def main(corpora: Path, out: Path) -> None:
    """Make the model."""
    emotions = read_finetune_config(CONFIGS / "mini_finetune.toml").emotions
    ravdess, emodb, urdu = (corpus(corpora, name) for name in LANGUAGES)
    spoken = [r for r in emodb if r.emotion in emotions]  # boredom is in no other corpus
    out.mkdir(parents=True, exist_ok=True)
    folds = make_folds(corpora, ravdess, spoken, out / "folds.json")
    (out / "encoders").mkdir(exist_ok=True)
    pretrain([*ravdess, *emodb, *urdu], out / "pretrain-all")
    link(out / "encoders" / "all", out / "pretrain-all")
    for pair in PAIRS:
        tested = {key for number in pair for key in folds[number - 1]["test"]}
        rest = [r for r in ravdess if r.key not in tested]
        place = out / f"pretrain-without-{pair[0]}{pair[1]}"
        pretrain([*rest, *emodb, *urdu], place)
        for number in pair:
            link(out / "encoders" / str(number), place)
    write_manifest([*ravdess, *spoken], out / "labelled.jsonl")
    tuned = out / "finetune"
    if not (tuned / "final" / "config.json").is_file():
        run(
            *("finetune", "--model", f"{out}/encoders/{{fold}}"),
            *("--data", out / "labelled.jsonl", "--folds", out / "folds.json"),
            *("--config", CONFIGS / "mini_finetune.toml", "--out", tuned),
            *("--licence", LICENCE, "--weights-licence", "cc-by-nc-sa-4.0"),
            *(["--resume"] if (tuned / "run.json").is_file() else []),
        )
    outputs = Outputs((*emotions, "unknown"), ())
    found = {name: scores_of(tuned, name, outputs) for name in ("ravdess", "emodb")}
    (out / "corpora.json").write_text(json.dumps(found, indent=2) + "\n")
    for name, scores in found.items():
        low, high = scores["intervals"]["wa"]
        print(f"{name}: WA {scores['scores']['wa']:.3f} ({low:.3f} to {high:.3f})")
    ship(tuned / "final", out / "mini", found)


def link(place: Path, run: Path) -> None:
    """Let an encoder be found under the number of a fold."""
    if not place.is_symlink():
        place.symlink_to((run / "final").resolve())


def card(text: str, found: dict) -> str:
    """The card of the fine-tuning with the scores of each corpus, and what the model is for."""
    rows = ["## Scores of each corpus", "", "| corpus | clips | WA | WA, 95 % | UA | ECE |"]
    rows.append("|---|---|---|---|---|---|")
    for name, title in (("ravdess", "RAVDESS, official folds"), ("emodb", "EmoDB, 2 s")):
        scores = found[name]
        low, high = (100 * bound for bound in scores["intervals"]["wa"])
        wa, ua = (100 * scores["scores"][score] for score in ("wa", "ua"))
        rows.append(
            f"| {title} | {scores['clips']} | {wa:.1f} | {low:.1f} to {high:.1f} | {ua:.1f} | "
            f"{scores['scores']['ece']:.3f} |"
        )
    rows += [
        "",
        "No fold's classifier or encoder heard RAVDESS's test speakers, not even without labels. "
        "The encoders heard EmoDB's, without labels. EmoDB is without boredom and cut to 2 s: not "
        "comparable with published scores. ECE is before the temperature.",
    ]
    head, made, rest = text.partition("## How it was made")
    front, _, head = head.partition("# Emotion in speech, from ")
    head = f"{front}# emotion2vec-mini{head[head.index(chr(10)) :]}"
    return "\n\n".join([head.rstrip(), "\n".join(rows), DOMAIN.read_text().strip(), made + rest])


def ship(model: Path, folder: Path, found: dict) -> None:
    """Write the model in half precision, as it ships, with its card."""
    classifier = Emotion2vecClassifier.from_pretrained(model)
    halves = {name: v.to(torch.float16) for name, v in classifier.state_dict().items()}
    write_folder(classifier.config, halves, folder)
    size = (folder / "model.safetensors").stat().st_size
    (folder / "README.md").write_text(card((model / "README.md").read_text(), found))
    print(f"{folder}: {size / 1e6:.2f} MB; copy it to src/emotion2vec/mini to let it ship.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
