"""Copy what the tests need of the reference's golden tensors into this folder.

    python tests/parity/copy_goldens.py PATH_TO_GOLDEN

Left out: what no test reads, float64 twins, what follows from other tensors, and what `token` and
`global` share with `chunk`. `ckpt` is copied as FunASR and fairseq wrote it.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
STARTS = {
    "clone8/grad/": "clone8/grad64/",
    "fast_intended/u1/ema/": "fast_intended/u1/ema64/",
}
CKPT = (
    "fairseq_tiny.pt fairseq_tiny_expected.safetensors funasr_tiny_expected.json "
    "funasr_tiny_expected.safetensors funasr_tiny/config.yaml funasr_tiny/configuration.json "
    "funasr_tiny/model.pt funasr_tiny/tokens.txt"
)
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
    tensors = {n: t for n, t in tensors.items() if not follows(target.stem, n)}
    facts["shared_with_chunk"] = [n for n in sorted(tensors) if but and same(n, tensors[n], but)]
    kept = {n: t for n, t in tensors.items() if n not in facts["shared_with_chunk"]}
    # Of gradients under 8 masks, and of the teacher after one update where it is compared whole
    # after three, the first entries (of the gradients the norms are in the .json).
    for name in list(kept):
        for whole, start in STARTS.items():
            if name.startswith(whole):
                kept[name.replace(whole, start)] = kept.pop(name).flatten()[:64].clone()
    facts["same_as"] = same_as(kept)
    target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    save_file({n: t for n, t in kept.items() if n not in facts["same_as"]}, file_of(target))


def follows(golden: str, name: str) -> bool:
    """Whether a tensor is a twin or part of another one, or compared in another golden."""
    part = name.rsplit("/", 1)[-1]
    if part == "normalized_input":
        return golden != "base_tiny"
    if part.endswith("_f64") or part in (
        "pred_masked",
        "y_masked",
    ):  # decoder_out_all and targets at the hidden frames
        return True
    if name.startswith("state/") and ".decoder." in name:  # no part in inference
        return True
    return golden in ("token", "global") and name == "clone8/enc_x"


def same_as(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Name -> an earlier name of the very same tensor, for what is worth it."""
    first: dict[bytes, str] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.numel() > 100:
            content = repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes()
            if first.setdefault(content, name) != name:
                found[name] = first[content]
    return found


def file_of(target: Path) -> Path:
    """Where the tensors of a golden are."""
    return target.with_suffix(".safetensors")


def same(name: str, tensor: torch.Tensor, others: dict[str, torch.Tensor]) -> bool:
    """Whether `others` has this very tensor."""
    return name in others and others[name].shape == tensor.shape and others[name].equal(tensor)


def main(golden: Path) -> None:
    """Copy everything."""
    for name in INFERENCE.split():
        copy(golden / "inference" / name, HERE / "inference" / name)
    chunk = load_file(golden / "pretrain" / "chunk.safetensors")
    copy(golden / "pretrain" / "chunk", HERE / "pretrain" / "chunk")
    copy(golden / "pretrain" / "trajectory", HERE / "pretrain" / "trajectory")
    for name in ("token", "global"):
        copy(golden / "pretrain" / name, HERE / "pretrain" / name, but=chunk)
    copy(golden / "downstream" / "probe", HERE / "downstream" / "probe")
    plain = ["pretrain/init_stats.json", "masks/masks.json", "schedules/schedules.json"]
    for name in plain + [f"ckpt/{name}" for name in CKPT.split()]:
        target = HERE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(golden / name, target)
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"{size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
