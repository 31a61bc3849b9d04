"""Train LoRA adapters with TRL and PEFT."""

import functools
import importlib.metadata
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack, checkpoint_name
from persona_leakage.domain.protocols import TrainedAdapter
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.rows import TrainRow
from persona_leakage.engines.adapter_folder import PROVENANCE, read_adapter, read_provenance
from persona_leakage.engines.base_model import load_merged, load_tokenizer, pick_device
from persona_leakage.engines.labels import IGNORED, label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "peft", "trl")


class PeftTrainer:
    """Trains adapters and keeps them by content: the same stack, rows, recipe and seed are never trained twice."""

    def __init__(self, *, cache: Path, device: str, compile_layers: bool = False) -> None:
        """Say how to train.

        Args:
            cache: where finished adapters are kept.
            device: `auto`, `cpu` or `cuda`.
            compile_layers: compile the decoder layers, which takes some 14 s once a process and pays for large models.
        """
        self._cache = cache
        self._device = device
        self._compile_layers = compile_layers

    def train(self, stack: ModelStack, rows: Sequence[TrainRow], recipe: Recipe, seed: int) -> dict[str, TrainedAdapter]:
        """Train a fresh adapter on top of the stack; see `domain.protocols.Trainer`.

        Raises:
            UserError: the loss is not finite, a row has no labels, or a kept adapter is damaged.
        """
        identity = fingerprint(stack.fingerprint, recipe, seed, list(rows))
        folder = self._cache / "adapters" / identity
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # conditions that differ in evaluation only share their adapter
            if folder.is_dir():
                logger.info("Adapter %s was trained before; nothing to train", identity)
            else:
                self._train(stack, rows, recipe, seed, folder, identity)
        return {
            name: TrainedAdapter(read_adapter(folder / name), read_provenance(folder / name)["log"])
            for name in map(checkpoint_name, (*recipe.checkpoints, None))
        }

    def _train(
        self, stack: ModelStack, rows: Sequence[TrainRow], recipe: Recipe, seed: int, folder: Path, identity: str
    ) -> None:
        from datasets import Dataset
        from peft import LoraConfig, get_peft_model
        from peft.helpers import disable_input_dtype_casting
        from transformers import PrinterCallback, set_seed

        from persona_leakage.engines import packed_attention
        from persona_leakage.engines.sft import (
            KeepCheckpoints,
            LabelledPositionsTrainer,
            ProgressCallback,
            collate,
            pack,
            sft_config,
        )

        device = pick_device(self._device)
        autocast = stack.base.dtype == "bfloat16" and device != "cpu"  # a CPU multiplies the adapter's float32 as fast
        tokenizer = load_tokenizer(stack.base, self._cache)
        examples = [label_tokens(tokenizer, row, recipe.loss, recipe.max_length) for row in rows]
        packed = recipe.batching == "packed"
        # On a CPU the eager attention's backward pass is several times faster than SDPA's (benchmarks/main_job.py).
        attention = packed_attention.NAME if packed else "eager" if device == "cpu" else "sdpa"
        base = load_merged(stack, self._cache, device, attention)
        set_seed(seed)  # the adapter's initial weights
        lora = recipe.lora
        model = get_peft_model(
            base,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.rank,
                lora_alpha=lora.alpha,
                use_rslora=lora.rslora,
                lora_dropout=lora.dropout,
                target_modules=list(lora.target_modules),
            ),
        )
        # Steps of lr 5e-6 vanish in bfloat16's rounding, so the adapter itself is trained in float32.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

        tokens = sum(len(example["input_ids"]) for example in examples)
        labelled = sum(label != IGNORED for example in examples for label in example["labels"][1:])
        started = time.perf_counter()

        def write(name: str, epochs: int) -> None:
            """Write the adapter as it is now, with the record of its training up to here."""
            steps = [entry for entry in trainer.state.log_history if "loss" in entry]
            if broken := [entry["step"] for entry in steps if not abs(float(entry["loss"])) < float("inf")]:
                raise UserError(f"the training loss is not finite at step {broken[0]}; lower recipe.learning_rate")
            seconds = time.perf_counter() - started
            log: dict[str, Any] = {
                "trainable_parameters": trainable,
                "rows": len(rows),
                "epochs": epochs,
                "tokens": epochs * tokens,
                "labelled_tokens": epochs * labelled,
                "seconds": round(seconds, 2),
                "tokens_per_second": round(epochs * tokens / seconds, 1),
                "device": device,
                "steps": [
                    {"step": entry["step"], "loss": float(entry["loss"]), "learning_rate": float(entry["learning_rate"])}
                    for entry in steps
                ],
            }
            provenance = {
                "fingerprint": fingerprint(identity, name),
                "trained_on": stack.fingerprint,
                "base_model": stack.base.model_dump(mode="json"),
                "recipe": recipe.model_dump(mode="json"),
                "seed": seed,
                "rows": fingerprint(list(rows)),
                "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
                "log": log,
            }
            _save(model, provenance, partial / name)

        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with (
                tempfile.TemporaryDirectory() as scratch,
                _compiled(base) if self._compile_layers else nullcontext(),
                # autocast gives the adapter its inputs in bfloat16; PEFT would copy each to float32 first
                disable_input_dtype_casting(model, active=autocast),
            ):
                keep = KeepCheckpoints(recipe.checkpoints, lambda epoch: write(checkpoint_name(epoch), epoch))
                trainer = LabelledPositionsTrainer(
                    model=model,
                    args=sft_config(recipe, seed, scratch, device, autocast=autocast),
                    train_dataset=Dataset.from_list([dict(example) for example in examples]),
                    processing_class=tokenizer,
                    data_collator=pack if packed else functools.partial(collate, pad=tokenizer.pad_token_id),
                    callbacks=[ProgressCallback(), keep],
                )
                trainer.remove_callback(PrinterCallback)  # the bar shows the loss
                trainer.train()
            write(checkpoint_name(None), recipe.epochs)
            _move(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        done = recipe.epochs * tokens
        speed = done / (time.perf_counter() - started)
        logger.info("Trained %s parameters on %s tokens, %.0f tokens/s", f"{trainable:,}", f"{done:,}", speed)


@contextmanager
def _compiled(model: "PreTrainedModel") -> Iterator[None]:
    """Have every decoder layer compiled when it first computes, into one program for all layers and lengths of batches."""
    import torch._dynamo

    model.enable_input_require_grads()  # the first layer's input would need no gradient, and a program of its own
    for layer in model.model.layers:
        layer.compile(dynamic=True)  # a batch is as long as its rows
    # LoRA's scaling, taken for variable too, would be multiplied on the CPU, by C++ that takes most of a minute to set up
    with torch._dynamo.config.patch(specialize_float=True):
        yield


def _save(model: Any, provenance: dict[str, Any], folder: Path) -> None:
    """Write an adapter's folder."""
    try:
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1))
    except OSError as error:
        raise UserError(f"cannot save the adapter to {folder}: {error.strerror or error}; make room and run again") from error


def _move(partial: Path, folder: Path) -> None:
    """Put the finished adapters in place: they exist whole or not at all."""
    try:
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"cannot save the adapter to {folder}: {error.strerror or error}; make room and run again") from error
