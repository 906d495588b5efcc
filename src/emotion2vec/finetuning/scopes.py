"""Which parts of a classifier are trained, how fast, and what is folded away afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.classifiers import Classifier, NativeClassifier
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.layers import Attention, Block

HEADS = ("classifier", "regressor")
"""Names of the last layers in a classifier's model."""


class Standardize(nn.BatchNorm1d):
    """Zero mean and unit variance over the batch, (B, D) -> (B, D); over what was seen in eval."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` standardized; a single clip, which has no variance, by what was seen."""
        if len(x) > 1 or not self.training:
            # The first batches alone tell what is usual: it begins far from zero mean.
            assert self.num_batches_tracked is not None
            self.momentum = max(0.1, 1 / (int(self.num_batches_tracked) + 1))
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)


def standardize_heads(classifier: Classifier) -> None:
    """Let the last layers see standardized vectors, until `fold_heads`."""
    for name, layer in _heads(classifier):
        setattr(classifier.model, name, nn.Sequential(Standardize(layer.in_features), layer))  # type: ignore[attr-defined]


@torch.no_grad()
def fold_heads(classifier: Classifier) -> None:
    """Put the standardization into the last layers' weights; in eval mode nothing else changes."""
    for name, layers in _heads(classifier):
        if isinstance(layers, nn.Sequential):
            norm, layer = layers
            assert isinstance(norm, Standardize) and isinstance(layer, nn.Linear)
            assert norm.running_var is not None and norm.running_mean is not None
            scale = (norm.running_var + norm.eps).rsqrt()
            layer.bias.sub_(layer.weight @ (norm.running_mean * scale))
            layer.weight.mul_(scale)
            setattr(classifier.model, name, layer)  # type: ignore[attr-defined]


def _heads(classifier: Classifier) -> Iterator[tuple[str, Any]]:
    for name in HEADS:
        layer = getattr(classifier.model, name, None)  # type: ignore[attr-defined]
        if layer is not None:
            yield name, layer


def choose_parts(classifier: Classifier, config: FinetuneConfig) -> None:
    """Freeze what `config.scope` does not train; for LoRA, add what it does.

    Raises:
        ModuleNotFoundError: for LoRA without the extra `finetune`
    """
    parts = classifier.parts()
    _train([classifier], False)  # type: ignore[list-item]
    if config.scope == "full":
        _train([classifier], True)  # type: ignore[list-item]
        _train(parts.convolutions, config.train_convolutions)
    elif config.scope == "partial":
        _train(parts.blocks[-config.top_blocks :], True)
    elif config.scope == "lora":
        add_lora(classifier, config)
    _train(classifier.parts().head, True)


def _train(modules: Iterable[nn.Module], trained: bool) -> None:
    for module in modules:
        module.requires_grad_(trained)


def add_lora(classifier: Classifier, config: FinetuneConfig) -> None:
    """Put low-rank additions beside the attention's linear layers; they alone will learn.

    Source: Hu et al. 2022, "LoRA"; peft's implementation.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(classifier.lora_layers),
    )
    inject_adapter_in_model(settings, classifier)


def merge_lora(classifier: Classifier) -> None:
    """Add what LoRA learned to the weights beside it, and take it away."""
    assert isinstance(classifier, nn.Module)
    for name, module in list(classifier.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(classifier.get_submodule(parent), last, module.base_layer)


def set_dropout(classifier: Classifier, probability: float) -> None:
    """Give the blocks of an encoder of ours another dropout; of attention weights none.

    Negative leaves what the model has. Others keep their own.
    """
    if probability < 0 or not isinstance(classifier, NativeClassifier):
        return
    for module in classifier.modules():
        if isinstance(module, Block):
            module.mlp_dropout = probability
        elif isinstance(module, Attention):
            module.projection_dropout, module.dropout = probability, 0.0


def parameter_groups(classifier: Classifier, config: FinetuneConfig) -> list[dict[str, Any]]:
    """What the optimizer takes: rates falling from the top block down, no decay on vectors.

    The head learns at `head_lr`; the top block at `peak_lr`; each block below at `layer_decay` of
    the one above, what is below the blocks likewise.
    """
    parts = classifier.parts()
    blocks = [parts.convolutions + parts.embedding, *([block] for block in parts.blocks)]
    rates: dict[int, float] = {}
    for depth, modules in enumerate(reversed(blocks)):
        rate = config.peak_lr * config.layer_decay**depth
        rates |= {id(p): rate for module in modules for p in module.parameters()}
    rates |= {id(p): config.head_lr for module in parts.head for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    assert isinstance(classifier, nn.Module)
    for parameter in classifier.parameters():
        if parameter.requires_grad:
            rate = rates.get(id(parameter), config.peak_lr)
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
