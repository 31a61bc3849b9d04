"""TRL's SFT trainer, set up for rows that are already tokenised and labelled. Imports torch: import it lazily."""

import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.utils import ModelOutput
from trl import SFTConfig, SFTTrainer

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import CheckpointUnit, ModelStack, checkpoint_name
from persona_leakage.domain.recipe import Lora, Recipe
from persona_leakage.engines.adaptation import adapted_layers
from persona_leakage.engines.adapter_folder import PROVENANCE, README, portable_base, reading_guide, saving
from persona_leakage.engines.base_model import own_decoder
from persona_leakage.engines.labels import IGNORED, Example

_LOGITS = {"cpu": 2**24, "cuda": 2**27}  # that exist at once


class LabelledPositionsTrainer(SFTTrainer):
    """Computes logits only where there are labels.

    The output layer is the most expensive one of a small model; over prompts and padding its work is wasted. The loss is
    the weighted mean negative log-likelihood over the labelled tokens of an optimiser step; with all weights 1 it is that of
    the parent class.
    """

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Sum the weights of an optimiser step, over all its forward passes."""
        return torch.stack([batch["weights"][:, 1:].sum() for batch in batch_samples]).sum().to(device)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "labels", "weights"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of one forward pass (nats per labelled token of the optimiser step)."""
        causal = self.accelerator.unwrap_model(model).get_base_model()
        given = {name: value for name, value in inputs.items() if name not in ("labels", "weights")}
        targets = inputs["labels"][:, 1:]
        labelled = targets != IGNORED
        with self.accelerator.autocast():
            found = own_decoder(causal)(**given, use_cache=False)
            hidden = found.last_hidden_state[:, :-1][labelled]
            weights = inputs["weights"][:, 1:][labelled]
            head = functools.partial(own_logits, causal, type(found))
            vocabulary = causal.config.get_text_config().vocab_size
            total = _SummedLoss.apply(hidden, head, vocabulary, targets[labelled], weights)
        loss = total / (weights.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss


def own_logits(model: PreTrainedModel, output: type[ModelOutput], states: torch.Tensor) -> torch.Tensor:
    """Have a model's own forward pass go on from its last hidden states: some models scale or cap what the output layer gives.

    Args:
        model: a causal language model.
        output: what its decoder returns.
        states: (positions, hidden size).

    Returns:
        (positions, vocabulary).

    Raises:
        UserError: it does not make its logits from what its decoder returns.
    """
    with patch.object(own_decoder(model), "forward", return_value=output(last_hidden_state=states[None])) as decoder:
        logits: torch.Tensor = model(inputs_embeds=states[None], use_cache=False).logits[0]
    if not decoder.called:
        raise UserError(f"{type(model).__name__} makes its logits in a way that training does not know; use another base model")
    return logits


class _SummedLoss(torch.autograd.Function):
    """Weighted sum of the labelled tokens' negative log-likelihoods and its gradient, some positions at a time.

    The logits of all positions, their softmax and its gradient would be most of the memory that a small model's training takes.
    The output layer is frozen: TRL refuses an adapter on it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: Callable[[torch.Tensor], torch.Tensor],
        vocabulary: int,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        total, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden)
        positions = max(1, _LOGITS[hidden.device.type] // vocabulary)
        for begin in range(0, len(hidden), positions):
            some = slice(begin, begin + positions)
            states = hidden[some].detach().requires_grad_()
            with torch.enable_grad():
                losses = F.cross_entropy(head(states).float(), targets[some], reduction="none")
                part = (losses * weights[some]).sum()
            (gradient[some],) = torch.autograd.grad(part, states)
            total += part.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None, None


def collate(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Pad examples on the right to the longest.

    No token of a causal model sees the padding after it, so there is no mask; some GPUs' attention gives NaN with one.

    Returns:
        input_ids, labels and weights, each of shape (examples, longest).
    """

    def padded(rows: Iterable[list[Any]], value: float, dtype: torch.dtype) -> torch.Tensor:
        return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True, padding_value=value)

    return {
        "input_ids": padded([row["input_ids"] for row in examples], pad, torch.long),
        "labels": padded([row["labels"] for row in examples], IGNORED, torch.long),
        "weights": padded([row["weights"] for row in examples], 0.0, torch.float32),
    }


def pack(examples: Sequence[Example]) -> dict[str, Any]:
    """Lay examples end to end in a single row, without padding; `packed_attention` keeps them apart.

    Returns:
        input_ids, position_ids, labels and weights, each of shape (1, tokens); cu_seq_lens_q, of shape (examples + 1), where
        each example begins and the last one ends; max_length_q, the tokens of the longest.
    """
    lengths = [len(row["input_ids"]) for row in examples]
    # nothing before an example's first token predicts it
    columns = {
        "input_ids": ([token for row in examples for token in row["input_ids"]], torch.long),
        "position_ids": ([place for length in lengths for place in range(length)], torch.long),
        "labels": ([label for row in examples for label in (IGNORED, *row["labels"][1:])], torch.long),
        "weights": ([weight for row in examples for weight in (0.0, *row["weights"][1:])], torch.float32),
    }
    return {name: torch.tensor([values], dtype=dtype) for name, (values, dtype) in columns.items()} | {
        "cu_seq_lens_q": torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32),
        "max_length_q": max(lengths),
    }


class ProgressCallback(TrainerCallback):
    """A bar over the optimiser steps with the latest loss, until it is closed."""

    def __init__(self) -> None:
        """Prepare the bar."""
        loss = TextColumn("{task.fields[loss]}")
        self._bar = Progress(TextColumn("training"), BarColumn(), MofNCompleteColumn(), loss, TimeRemainingColumn())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        self._task = self._bar.add_task("", total=state.max_steps, loss="")
        self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Advance the bar."""
        loss = (logs or {}).get("loss")
        if loss is not None:
            self._bar.update(self._task, completed=state.global_step, loss=f"loss {float(loss):.3f}")

    def close(self) -> None:
        """Put the bar away, however training ended: it hides the cursor."""
        self._bar.stop()


class StopWhenBroken(TrainerCallback):
    """Ends training at the first step whose loss or gradient is not finite: no later step could mend it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Look at the step that was just made."""
        step = state.global_step
        for name, key in (("loss", "loss"), ("gradient", "grad_norm")):
            if not math.isfinite((logs or {}).get(key, 0.0)):
                if step > 1:
                    raise UserError(f"the training {name} is not finite at step {step}; lower recipe.learning_rate")
                raise UserError(
                    f"the training {name} is not finite at step 1, before any weight has changed; "
                    "set the base model's dtype to float32, or train on another device"
                )


@dataclass(eq=False)
class KeepCheckpoints(TrainerCallback):
    """Saves the adapter at chosen times and at the end of the training, with the record of its training up to there.

    Attributes:
        folder: gets a folder for every checkpoint.
        below: what the adapter is trained on.
        kept: name → when, see `Recipe.kept`.
        unit: of when.
        identity: of the training; with a checkpoint's name it makes the adapter's fingerprint.
        provenance: what is the same for every checkpoint.
        examples: what is trained on.
        device: where.
    """

    folder: Path
    below: ModelStack
    kept: Mapping[str, float | None]
    unit: CheckpointUnit
    identity: str
    provenance: dict[str, Any]
    examples: Sequence[Example]
    device: str

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Find the step of every chosen time, and start the clock.

        Raises:
            UserError: two of them are one step, or one lies beyond the training.
        """
        of_epoch = 1 if self.unit == "steps" else state.max_steps / args.num_train_epochs
        self._names: dict[int, str] = {}
        for name, when in self.kept.items():
            if when is None:  # the end
                continue
            step = max(1, round(when * of_epoch))
            if step > state.max_steps:
                raise UserError(f"checkpoint {when} lies beyond the {state.max_steps} steps of this training; leave it out")
            if step in self._names:
                raise UserError(
                    f"checkpoints {self._names[step]} and {name} are one step, {step} of {state.max_steps}; leave one out"
                )
            self._names[step] = name
        self._started = time.perf_counter()

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Save, if the step that was just made, and whose loss is known, is a chosen one."""
        if "loss" in (logs or {}) and (name := self._names.get(state.global_step)):
            self._save(name, state, kwargs["model"])

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Save the last one."""
        self._save(checkpoint_name(None), state, kwargs["model"])

    def _save(self, name: str, state: TrainerState, model: Any) -> None:
        steps = [entry for entry in state.log_history if "loss" in entry]
        epochs, seconds = round(state.epoch or 0, 4), time.perf_counter() - self._started
        epochs = int(epochs) if epochs == int(epochs) else epochs
        tokens = round(epochs * sum(len(example["input_ids"]) for example in self.examples))
        log = {
            "trainable_parameters": model.get_nb_trainable_parameters()[0],
            "rows": len(self.examples),
            "left_out": len(self.provenance["left_out"]),
            "epochs": epochs,
            "tokens": tokens,
            "labelled_tokens": round(
                epochs * sum(label != IGNORED for example in self.examples for label in example["labels"][1:])
            ),
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "device": self.device,
            "steps": [{key: entry[key] for key in ("step", "loss", "learning_rate")} for entry in steps],
        }
        provenance = {"fingerprint": fingerprint(self.identity, name), **self.provenance, "log": log}
        with saving(self.folder / name):
            config = model.peft_config["default"]
            config.base_model_name_or_path, config.revision = portable_base(self.below)
            model.save_pretrained(self.folder / name, save_embedding_layers=False)  # nor ask a hub whether to
            (self.folder / name / README).write_text(reading_guide(self.below))  # in place of PEFT's empty model card
            (self.folder / name / PROVENANCE).write_text(json.dumps(provenance, indent=1))


def require_causal(model: PreTrainedModel, tokens: Sequence[int], pad: int) -> None:
    """Refuse a model whose tokens see what follows them: padding, and the answer that they are to predict.

    Args:
        model: without an adapter, in evaluation mode.
        tokens: of one example.
        pad: token that rows are padded with.

    Raises:
        UserError: padding on the right changes the states before it.
    """
    longer = torch.tensor([[*tokens, *[pad] * 8]], device=model.device)
    with torch.inference_mode():
        alone, padded = (
            own_decoder(model)(input_ids=ids, use_cache=False).last_hidden_state[0, : len(tokens)].float()
            for ids in (longer[:, :-8], longer)
        )
    if not (alone - padded).norm() < (1e-3 if model.dtype == torch.float32 else 0.1) * alone.norm():
        raise UserError(f"{type(model).__name__} is no causal model: its tokens see what follows; use another base model")


def fresh_adapter(base: PreTrainedModel, lora: Lora) -> Any:
    """Put a new adapter on a model.

    Raises:
        UserError: the recipe adapts layers that the model does not have.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        target_modules=adapted_layers(base, lora),
    )
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"recipe.lora.target_modules cannot be adapted in a {base.config.model_type} model: {reason}"
        ) from error
    # Steps of lr 5e-6 vanish in bfloat16's rounding, so the adapter itself is trained in float32.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def sft_config(recipe: Recipe, seed: int, scratch: str, device: str, *, autocast: bool) -> SFTConfig:
    """Translate a recipe into TRL's arguments; whatever is not named here keeps TRL's default."""
    return SFTConfig(
        output_dir=scratch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule,
        warmup_steps=recipe.warmup_ratio,  # below 1 it is a share of the steps
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        max_length=recipe.max_length,
        train_sampling_strategy="group_by_length" if recipe.batching == "length_grouped" else "random",
        gradient_checkpointing=recipe.gradient_checkpointing,
        optim="adamw_torch_fused",
        bf16=autocast,
        use_cpu=device == "cpu",
        seed=seed,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=device != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
