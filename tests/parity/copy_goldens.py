"""Copy what the tests need of the reference's golden tensors into this folder.

    python tests/parity/copy_goldens.py PATH_TO_GOLDEN

Left out: what no test reads, float64 twins, and what `token` and `global` share with `chunk`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
INFERENCE = (
    "alibi base_full_formula base_tiny perlayer_tiny pluslarge_like_tiny preln_tiny "
    "v_groupnorm_extractor v_noalibi_noextra v_preln_posconv_evenk v_scalar_alibi_extra1 waveforms"
)


def copy(source: Path, target: Path, *, but: dict[str, torch.Tensor] | None = None) -> None:
    """Copy a pair of .json and .safetensors without descriptions, twins and shared tensors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = json.loads(source.with_suffix(".json").read_text())
    facts.pop("tensors", None)
    tensors = load_file(source.with_suffix(".safetensors"))
    facts["shared_with_chunk"] = [n for n in sorted(tensors) if but and same(n, tensors[n], but)]
    target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith("_f64") and name not in facts["shared_with_chunk"]
    }
    # Of gradients under 8 masks the first entries (their norms are in the .json); all under 2.
    for name in [name for name in kept if name.startswith("clone8/grad/")]:
        start = kept.pop(name).flatten()[:64].clone()
        kept[name.replace("clone8/grad/", "clone8/grad64/")] = start
    save_file(kept, target.with_suffix(".safetensors"))


def same(name: str, tensor: torch.Tensor, others: dict[str, torch.Tensor]) -> bool:
    """Whether `others` has this very tensor."""
    return name in others and others[name].shape == tensor.shape and others[name].equal(tensor)


def drop_decoder(file: Path) -> None:
    """Remove the frame decoder, which takes no part in inference."""
    save_file({k: v for k, v in load_file(file).items() if ".decoder." not in k}, file)


def main(golden: Path) -> None:
    """Copy everything."""
    for name in INFERENCE.split():
        copy(golden / "inference" / name, HERE / "inference" / name)
    chunk = load_file(golden / "pretrain" / "chunk.safetensors")
    for file in (HERE / "inference").glob("*.safetensors"):
        drop_decoder(file)
    copy(golden / "pretrain" / "chunk", HERE / "pretrain" / "chunk")
    copy(golden / "pretrain" / "trajectory", HERE / "pretrain" / "trajectory")
    for name in ("token", "global"):
        copy(golden / "pretrain" / name, HERE / "pretrain" / name, but=chunk)
    copy(golden / "downstream" / "probe", HERE / "downstream" / "probe")
    for name in ("pretrain/init_stats", "masks/masks", "schedules/schedules"):
        target = HERE / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(golden / f"{name}.json", target)
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"{size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
