"""What a fine-tuning run does: a frozen dataclass, read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emotion2vec.settings import check_names, check_whole_numbers, read_settings

SCOPES = ("full", "partial", "head", "lora")
"""What is trained besides the head: all, the top blocks, nothing, low-rank additions (LoRA)."""

CLASS_WEIGHTS = ("none", "balanced")
VALIDATIONS = ("speakers", "clips", "none")


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a run; the defaults suit some hours of speech and a pre-trained encoder.

    Raises:
        ValueError: when made, if a value is out of range or two contradict each other

    >>> FinetuneConfig(scope="top")
    Traceback (most recent call last):
    ...
    ValueError: scope is 'top'; choose one of full, partial, head, lora.
    """

    seed: int = 1
    """Of the head, the order, the augmentation, the dropouts."""
    emotions: tuple[str, ...] = ()
    """Classes, in the order of the outputs; recordings of others are left out. Empty: all that
    come in the data."""
    dimensions: tuple[str, ...] = ()
    """Values to learn, such as arousal and valence: labels of these names."""
    classes: bool = True
    """Whether emotions are learned; false for dimensions alone."""

    scope: str = "full"
    """One of `SCOPES`."""
    top_blocks: int = 4
    """Blocks that "partial" trains, from the top."""
    lora_rank: int = 8
    lora_alpha: float = 16.0
    """LoRA's addition is scaled by alpha / rank."""
    train_convolutions: bool = False
    """Whether "full" also trains what leads from waveform to frames; Chen and Rudnicky (2021) and
    most others keep it."""
    standardize: bool = True
    """Standardize each number of the pooled vector over the batch while the head learns; folded
    into the head's weights at the end. Pooled vectors are nearly equal for all clips, so that a
    head on them as they are learns slowly."""

    epochs: int = 20
    batch_clips: int = 16
    """Clips a step and process."""
    accumulate: int = 1
    """Batches before an update."""
    max_clip_seconds: float = 10.0
    """Longer clips are cropped at random while training; scores are of whole clips."""
    peak_lr: float = 1e-4
    head_lr: float = 1e-3
    layer_decay: float = 1.0
    """Learning rate of a block over that of the block above it."""
    warmup: float = 0.1
    """Part of the updates; then the rate falls along a cosine to 0."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    dropout: float = -1.0
    """Of the encoder of this package, in its blocks; negative leaves the model's own."""
    patience: int = 0
    """Epochs without a better score on validation (UA, or CCC) before it stops; 0 never stops. The
    best epoch is kept either way."""
    validation: str = "speakers"
    """Where it comes from where no data is given for it: a fifth of the "speakers" (of the clips
    where speakers are not known), of the "clips", or "none", and the last epoch is kept."""

    class_weights: str = "none"
    """"balanced": each class counts alike, however often it comes."""
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    """Focal loss (Lin et al. 2017): clips that are right already count (1 - p) ** gamma."""
    soft_share: float = 0.5
    """Weight of a teacher's scores beside the label, for recordings that have both."""
    dimension_weight: float = 1.0
    """Of the values' loss, 1 - CCC, beside that of the classes."""

    mixup: float = 0.0
    """Alpha of the Beta distribution that two clips and their labels are mixed by; 0: never."""
    speeds: tuple[float, ...] = (1.0,)
    """One is drawn for each clip; 1.1 is a tenth faster, and higher."""
    noise_share: float = 0.0
    """Part of the clips that gets white, pink or speech-shaped noise."""
    noise_snr: tuple[float, float] = (5.0, 35.0)
    """dB over the noise, drawn between the two."""
    equalize_db: float = 0.0
    """Standard deviation of a random, smooth frequency response."""
    band_stop: float = 0.0
    """Widest band that is taken out of a clip, as a part of the mel scale; 0: none."""
    hide_share: float = 0.0
    """Part of a clip that is silenced, in stretches of 0.2 s."""
    unknown_share: float = 0.0
    """Part of the clips that is noise, tones, music and near silence, made, of a class "unknown"
    of its own: so the model learns to say so."""

    precision: str = "auto"
    """"fp32", "bf16", or "auto": bf16 where the device computes in it."""
    num_workers: int = 2
    """Processes that load audio; 0 loads between steps."""
    log_every: int = 10
    """Updates."""

    def __post_init__(self) -> None:
        """Turn lists from TOML into tuples, then refuse what cannot be."""
        for name in ("emotions", "dimensions", "speeds", "noise_snr"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, known in (
            ("scope", SCOPES),
            ("class_weights", CLASS_WEIGHTS),
            ("validation", VALIDATIONS),
            ("precision", ("auto", "fp32", "bf16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}."
                )
        for name in ("classes", "train_convolutions", "standardize"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; write true or false.")
        self._check_numbers()
        if not self.classes and not self.dimensions:
            raise ValueError("classes is false and dimensions is empty; learn one or the other.")
        if not self.classes and (self.emotions or self.unknown_share):
            raise ValueError(
                "classes is false, but emotions or unknown_share are set; leave them out."
            )
        for name in ("emotions", "dimensions"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} has a name twice; give each once.")

    def _check_numbers(self) -> None:
        check_whole_numbers(
            self, ("epochs", "batch_clips", "accumulate", "top_blocks", "lora_rank", "log_every"), 1
        )
        check_whole_numbers(self, ("seed", "patience", "num_workers"), 0)
        for name in (
            *("label_smoothing", "unknown_share", "hide_share", "band_stop", "warmup"),
            *("soft_share", "noise_share"),
        ):
            most = 1.0 if name in ("soft_share", "noise_share") else 0.999
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to {most}.")
        for name in (
            *("peak_lr", "head_lr", "layer_decay", "lora_alpha", "max_clip_seconds", "clip_norm"),
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be over 0.")
        for name in ("mixup", "focal_gamma", "equalize_db", "weight_decay", "dimension_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; it must be under 1.")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds is {self.speeds}; give some from 0.5 to 2.")
        if len(self.noise_snr) != 2 or self.noise_snr[0] > self.noise_snr[1]:
            raise ValueError(f"noise_snr is {self.noise_snr}; give the lower and the upper bound.")


def read_finetune_config(
    path: str | Path | None, overrides: Mapping[str, Any] | None = None
) -> FinetuneConfig:
    """The config in a TOML file (the defaults without one), with `overrides` laid over it.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is no TOML, names an unknown field, or holds contradictions

    >>> read_finetune_config(None, {"scope": "lora"}).lora_rank
    8
    """
    values = read_settings(path)[0] if path is not None else {}
    values |= dict(overrides or {})
    source = path or "the settings given"
    check_names(values, FinetuneConfig, source)
    try:
        return FinetuneConfig(**values)
    except TypeError as error:  # a string where a number belongs, say
        raise ValueError(f"{source} has a value of the wrong type ({error}); mend it.") from error


def write_finetune_config(config: FinetuneConfig, path: Path) -> None:
    """Write the config as TOML that `read_finetune_config` reads back."""
    import tomli_w

    path.write_text(tomli_w.dumps(asdict(config)), encoding="utf-8")
