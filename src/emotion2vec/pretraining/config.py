"""What a pre-training run does: a frozen dataclass, read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.losses import UTTERANCE_LOSSES
from emotion2vec.pretraining.ablations import overrides_of
from emotion2vec.pretraining.masking import MASKERS
from emotion2vec.pretraining.teacher import UTTERANCE_TARGETS
from emotion2vec.settings import check_names, check_whole_numbers, read_settings

COLD = "cold"
"""The `init` that draws all weights from the seed."""


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a run; the defaults are the paper's, for one device.

    Raises:
        ValueError: when made, if a value is out of range or two contradict each other

    >>> PretrainConfig(top_k=12)
    Traceback (most recent call last):
    ...
    ValueError: top_k is 12, but model.depth is 8; targets come from main blocks only, lower top_k.
    """

    model: Emotion2vecConfig = field(default_factory=Emotion2vecConfig)
    seed: int = 1
    """Of weights, order, crops, masks and dropouts."""
    init: str = COLD
    """What student and teacher start from: "cold", or a checkpoint as in `start.start_from`."""
    max_updates: int = 100_000

    max_batch_seconds: float = 62.5
    """Audio in a micro-batch: clips times the longest one. Paper, section 4.1: 1e6 samples."""
    accumulate: int = 1
    """Micro-batches an update and process. Paper: 4, on 4 GPUs."""
    max_clip_seconds: float = 20.0
    """Longer clips are cropped at random. Reference: max_sample_size 320000."""
    min_clip_seconds: float = 0.25
    """Shorter clips are left out."""
    num_workers: int = 2
    """Processes that load audio; 0 loads between updates."""
    shards_together: int = 8
    """Shards from afar that are fetched and shuffled together; where all sound is at hand, all of
    it is shuffled."""
    shard_cache_gb: float = 20.0
    """Room for fetched shards on a machine, in 1e9 bytes: two groups of them must fit."""
    sharding: str = "none"
    """"none": each process holds the whole model (DDP); "full": parameters, gradients, moments and
    the teacher are split over the processes (FSDP), for models that do not fit one device."""

    num_masks: int = 8
    """Masks a clip; the convolutions and the teacher run once for all of them. Released
    configuration: clone_batch 8."""
    masker: str = "block"
    """"block": exactly `mask_share` hidden; "span": random starts, 28 to 42 % at a share of 0.5."""
    mask_share: float = 0.5
    mask_span: int = 5
    """Frames a span hides. Paper, section 4.1."""
    mask_adjust: float = 0.05
    mask_noise_std: float = 0.01
    """Of the noise that stands at hidden frames in the decoder."""

    frame_weight: float = 1.0
    """Of the frame loss; 0 leaves the utterance loss only (the paper's ablation: collapses)."""
    utterance_loss: str = "chunk"
    """"token", "chunk", "global" or "none"."""
    utterance_weight: float = 1.0
    """Alpha, paper equation 9."""
    utterance_reduction: str = "mean"
    """"mean" over rows, so that alpha does not depend on the batch; "sum" as the reference ran."""

    utterance_target: str = "normed"
    """"normed": the mean of the frame targets, as the reference, which is zero for every clip;
    "pooled": the mean of the teacher's outputs before they are normalized over time."""

    clusters: tuple[int, ...] = ()
    """Pseudo-labels instead of a teacher (P-TAPT): how many clusters each head tells apart, such
    as [64, 512, 4096], the paper's (arXiv 2110.06309). Empty distils."""
    cluster_model: str = ""
    """Folder or name of the encoder whose features are clustered; "" for the run's own as it
    begins."""
    cluster_layer: int = -1
    """Of that encoder: a block's output, from 1; 0 for what enters the first; -1 its output."""
    cluster_frames: int = 200_000
    """Frames that k-means is fitted on, 67 minutes: 49 a cluster of 4096, 0.6 GB of base size."""

    top_k: int = 8
    """Main blocks over which targets are averaged. Paper, section 4.1."""
    ema_start: float = 0.999
    ema_end: float = 0.99999
    ema_anneal_updates: int = 20_000

    peak_lr: float = 7.5e-5
    warmup_updates: int = 5_000
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    decay: str = "weights"
    """"weights": none on biases, norms, ALiBi scales and tokens; "all" as the reference ran."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 does not clip, as the base configuration."""
    block_drop: float = 0.05
    """Probability that a block is skipped for an update. Reference: layerdrop."""

    precision: str = "auto"
    """"fp32", "bf16", or "auto": bf16 where the device computes in it."""
    gradient_checkpointing: bool = False
    log_every: int = 10
    save_every: int = 500
    collapse_after: int = 5_000
    """Updates after which a low spread stops the run. Reference: 5000."""
    min_target_spread: float = 0.1
    min_prediction_spread: float = 0.01

    def __post_init__(self) -> None:
        """Turn lists into tuples, then refuse contradictions."""
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "clusters", tuple(self.clusters))
        self._check_choices()
        self._check_ranges()
        if self.top_k > self.model.depth:
            raise ValueError(
                f"top_k is {self.top_k}, but model.depth is {self.model.depth}; "
                "targets come from main blocks only, lower top_k."
            )
        self._check_clusters()
        tokens = self.model.num_utterance_tokens
        if self.utterance_loss == "token" and tokens != 1:
            raise ValueError(
                'utterance_loss is "token", which has one token, but model.num_utterance_tokens '
                f'is {tokens}; set it to 1 or choose "chunk".'
            )
        if self.utterance_loss == "chunk" and tokens == 0:
            raise ValueError(
                'utterance_loss is "chunk", but model.num_utterance_tokens is 0; '
                'raise it or choose "global".'
            )

    def _check_choices(self) -> None:
        for name, choices in (
            ("masker", MASKERS),
            ("utterance_loss", (*UTTERANCE_LOSSES, "none")),
            ("utterance_reduction", ("mean", "sum")),
            ("utterance_target", UTTERANCE_TARGETS),
            ("decay", ("weights", "all")),
            ("precision", ("auto", "fp32", "bf16")),
            ("sharding", ("none", "full")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}."
                )

    def _check_clusters(self) -> None:
        if not self.clusters:
            if self.cluster_model:
                raise ValueError(
                    f"cluster_model is {self.cluster_model}, but clusters is empty; say how many, "
                    "such as clusters = [64, 512]."
                )
            return
        if not all(isinstance(count, int) and count >= 2 for count in self.clusters):
            raise ValueError(
                f"clusters is {list(self.clusters)}; each must be a whole number from 2."
            )
        if self.utterance_loss != "none":
            raise ValueError(
                f'utterance_loss is "{self.utterance_loss}", but clusters have no target for it; '
                'set utterance_loss to "none", or clusters to [].'
            )
        if self.cluster_frames < max(self.clusters):
            raise ValueError(
                f"cluster_frames is {self.cluster_frames}, under the {max(self.clusters)} "
                "clusters; raise it, or ask for fewer."
            )

    def _check_ranges(self) -> None:
        if not isinstance(self.init, str) or not self.init:
            raise ValueError(f'init is {self.init!r}; write "cold" or name a checkpoint.')
        check_whole_numbers(
            self,
            (
                *("max_updates", "accumulate", "num_masks", "mask_span", "top_k"),
                *("log_every", "save_every", "shards_together"),
            ),
            1,
        )
        check_whole_numbers(self, ("seed", "num_workers", "warmup_updates"), 0)
        for name in ("mask_share", "block_drop", "ema_start"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1).")
        if self.masker == "span" and self.min_clip_seconds * 50 < self.mask_span + 2:
            raise ValueError(
                f"min_clip_seconds is {self.min_clip_seconds}: a span of {self.mask_span} frames "
                "would hide so short a clip whole; raise it or take block masks."
            )
        if self.min_clip_seconds > self.max_clip_seconds:
            raise ValueError(
                f"min_clip_seconds is {self.min_clip_seconds}, over max_clip_seconds "
                f"{self.max_clip_seconds}; swap them."
            )
        if self.min_clip_seconds * 50 * self.mask_share < 1.5:
            raise ValueError(
                f"min_clip_seconds is {self.min_clip_seconds}: so short a clip has no frame to "
                f"hide at mask_share {self.mask_share}; raise one of them."
            )
        if self.max_clip_seconds > self.max_batch_seconds:
            raise ValueError(
                f"max_clip_seconds is {self.max_clip_seconds}, over max_batch_seconds "
                f"{self.max_batch_seconds}; one clip must fit a batch."
            )


def read_config(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    r"""The config in a TOML file, with `flags` and then `overrides` laid over it.

    Args:
        path: a file whose keys are fields of `PretrainConfig`, and of its model under `[model]`
        overrides: values by name, "model.depth" for a field of the model
        flags: ablations by name, see `ablations.overrides_of`

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is no TOML, or names an unknown field, or holds contradictions

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tiny.toml"
    >>> _ = path.write_text("seed = 3\n[model]\ndepth = 8\n")
    >>> read_config(path, {"model.prenet_depth": 2}).model.prenet_depth
    2
    """
    path = Path(path)
    values, model = read_settings(path, "model")
    top_k = values.get("top_k", PretrainConfig.top_k)
    shorthands = overrides_of(flags or {}, top_k=top_k if isinstance(top_k, int) else None)
    for name, value in (shorthands | dict(overrides or {})).items():
        if name.startswith("model."):
            model[name.removeprefix("model.")] = value
        else:
            values[name] = value
    check_names(values, PretrainConfig, path)
    check_names(model, Emotion2vecConfig, path, "model.")
    try:
        return PretrainConfig(model=Emotion2vecConfig(**model), **values)
    except TypeError as error:  # a string where a number belongs, say
        raise ValueError(f"{path} has a value of the wrong type ({error}); mend it.") from error


def write_config(config: PretrainConfig, path: Path) -> None:
    """Write the config as TOML that `read_config` reads back."""
    import tomli_w

    values = asdict(config)
    values["model"] = {name: value for name, value in values["model"].items() if value != ()}
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
