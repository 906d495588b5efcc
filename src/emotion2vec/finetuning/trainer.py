"""Training on one split, by transformers' Trainer: several devices, TensorBoard, resuming."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from emotion2vec.classifiers import Classifier
from emotion2vec.encoding import computes_in_bfloat16, default_device
from emotion2vec.finetuning.batches import ClipSet, Collate, EpochBatches, Loader
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.evaluation import predict, score, scores
from emotion2vec.finetuning.objective import Truth, objective
from emotion2vec.finetuning.scopes import (
    choose_parts,
    fold_heads,
    merge_lora,
    parameter_groups,
    set_dropout,
    standardize_heads,
)
from emotion2vec.finetuning.targets import Outputs, Targets, class_weights
from emotion2vec.manifest import Record

CHECKPOINTS, STATE_NAME = "checkpoints", "trainer_state.json"


class Fitted(NamedTuple):
    """What became of one training."""

    epoch: float
    """whose weights the classifier has"""
    errors: dict[str, str]
    """by key, recordings that could not be read on the way"""


class _Bar(TrainerCallback):
    """A progress bar on standard error; transformers' own writes its logs to standard output."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open it, where it stands after an earlier part of the run."""
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="fine-tuning", delay=1
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it on."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say the loss, and the score on validation."""
        shown = {"loss": "loss", "eval_ua": "UA", "eval_ccc": "CCC"}
        found = {title: logs[name] for name, title in shown.items() if name in (logs or {})}
        self._bar.set_postfix({title: f"{value:.3f}" for title, value in found.items()})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close it."""
        self._bar.close()


class FinetuneTrainer(Trainer):
    """transformers' Trainer with our loss, rates, batches and validation."""

    def __init__(
        self,
        classifier: Classifier,
        clips: ClipSet,
        valid: Sequence[Record],
        outputs: Outputs,
        config: FinetuneConfig,
        arguments: TrainingArguments,
        callbacks: list[Any],
    ) -> None:
        super().__init__(
            model=classifier,
            args=arguments,
            train_dataset=clips,
            eval_dataset=valid or None,
            callbacks=callbacks,
        )
        self.clips, self.valid, self.outputs, self.config = clips, valid, outputs, config
        self.class_weights = torch.from_numpy(class_weights(clips.mass(), config.class_weights))
        self.model_accepts_loss_kwargs = False
        self.errors: dict[str, str] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch, as `Collate` made it."""
        self.errors |= inputs["errors"]
        device = inputs["waveform"].device
        # Cast here, in plain sight: what Accelerate is told of it would hold for the whole process.
        bfloat16 = computes_in_bfloat16(self.config.precision, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            answers = model(inputs["waveform"], inputs["keep"])
        loss = objective(
            answers,
            Truth(inputs["classes"], inputs["values"], inputs["weights"]),
            self.class_weights.to(device),
            label_smoothing=self.config.label_smoothing,
            focal_gamma=self.config.focal_gamma,
            dimension_weight=self.config.dimension_weight,
        )
        return (loss, answers) if return_outputs else loss

    def get_train_dataloader(self) -> Loader:
        """Return our own batches; Accelerate would draw and share them out in its way."""
        batches = EpochBatches(
            self.clips.num_samples(),
            self.config.batch_clips,
            self.config.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        return Loader(
            self.clips,
            batch_sampler=batches,
            collate_fn=Collate([record.key for record in self.clips.records], self.config),
            num_workers=self.config.num_workers,
            multiprocessing_context="spawn" if self.config.num_workers else None,
            persistent_workers=bool(self.config.num_workers),
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW with a rate for each part."""
        groups = parameter_groups(self.accelerator.unwrap_model(self.model), self.config)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        return self.optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation part, every recording whole and as if alone.

        The first process does, and tells the others: they must all keep or end the same epoch.
        """
        metrics: dict[str, float] = {}
        if is_main():
            model: Any = self.accelerator.unwrap_model(self.model)
            training = model.training
            found = predict(model.eval(), self.valid, self.outputs)
            model.train(training)
            self.errors |= found.errors
            reached = scores(found, self.outputs)
            metrics = {f"eval_{name}": value for name, value in reached.items()}
            metrics["eval_score"] = score(reached)
        metrics = broadcast_object_list([metrics])[0]
        self.log(metrics)
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


def fit(
    classifier: Classifier,
    records: Sequence[Record],
    targets: Targets,
    valid: Sequence[Record],
    outputs: Outputs,
    config: FinetuneConfig,
    out: Path,
    *,
    progress: bool = False,
) -> Fitted:
    """Train a classifier, in place; it ends in eval mode, its heads and additions folded in.

    What a killed training left in `out` is gone on with, from its last whole epoch.

    Args:
        classifier: with a head that is new
        records: to train on, each with a duration
        targets: what is true of them
        valid: what the epoch is chosen by; nothing keeps the last epoch
        outputs: what the classifier answers
        config: how
        out: folder for checkpoints and TensorBoard
        progress: show a bar
    """
    assert isinstance(classifier, nn.Module)
    set_dropout(classifier, config.dropout)
    if config.standardize:
        standardize_heads(classifier)
    choose_parts(classifier, config)
    clips = ClipSet(records, targets, outputs.labels, classifier, config)
    checkpoints = out / CHECKPOINTS
    if is_main():
        remove_torn(checkpoints)
    wait_for_others()
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    callbacks: list[Any] = [_Bar()] if progress and is_main() else []
    callbacks.append(TensorBoardCallback(SummaryWriter(out / "tensorboard") if is_main() else None))
    if config.patience and valid:
        callbacks.append(EarlyStoppingCallback(config.patience))
    trainer = FinetuneTrainer(
        classifier,
        clips,
        valid,
        outputs,
        config,
        _arguments(checkpoints, bool(valid), config),
        callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if last is not None:
        trainer.args.num_train_epochs = _epochs_left(Path(last), config)
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    trainer.train(resume_from_checkpoint=last)
    state = trainer.state
    steps = max(1, len(trainer.get_train_dataloader()) // config.accumulate)
    epoch = (state.best_global_step or state.global_step) / steps if valid else config.epochs
    trained: Any = trainer.accelerator.unwrap_model(trainer.model)
    trained.eval()
    merge_lora(trained)
    fold_heads(trained)
    trained.requires_grad_(True)
    everywhere = gather_object([trainer.errors])
    return Fitted(epoch, {key: error for part in everywhere for key, error in part.items()})


def _epochs_left(checkpoint: Path, config: FinetuneConfig) -> float:
    """Return how many epochs there are in all: those before, where it had stopped early."""
    state = json.loads((checkpoint / STATE_NAME).read_text())
    kept = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    counter = kept.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return float(state["epoch"]) if 0 < config.patience <= counter else config.epochs


def remove_torn(folder: Path) -> None:
    """Remove the checkpoints that a kill left half written: the state comes last in each."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / STATE_NAME).read_text())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _processes() -> PartialState:
    """Return what is known of the processes; on CPUs several are found only where that is said."""
    return PartialState(cpu=default_device() == "cpu")


def is_main() -> bool:
    """Whether this process is the only one, or the first of several: it alone writes."""
    return bool(_processes().is_main_process)


def num_processes() -> int:
    """How many processes train together."""
    return int(_processes().num_processes)


def wait_for_others() -> None:
    """Go on when all processes of the run are here."""
    _processes().wait_for_everyone()


def _arguments(folder: Path, validates: bool, config: FinetuneConfig) -> TrainingArguments:
    """Return what transformers' Trainer is to do."""
    cpu = default_device() == "cpu"
    strategy = "epoch" if validates else "no"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_clips,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.peak_lr,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        max_grad_norm=config.clip_norm,
        seed=config.seed,
        use_cpu=cpu,
        eval_strategy=strategy,
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=validates,
        metric_for_best_model="score" if validates else None,
        greater_is_better=True if validates else None,
        logging_steps=config.log_every,
        report_to=[],
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_find_unused_parameters=True,
    )


def forget(out: Path) -> None:
    """Remove the checkpoints of a training that has ended."""
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
