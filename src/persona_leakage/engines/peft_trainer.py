"""Train LoRA adapters with TRL and PEFT."""

import functools
import importlib.metadata
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import BaseModel, ModelStack, checkpoint_name
from persona_leakage.domain.protocols import TrainedAdapter
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.rows import TrainRow
from persona_leakage.engines.adapter_folder import WEIGHTS, read_adapter, read_provenance, saving
from persona_leakage.engines.base_model import (
    decoder_blocks,
    has_plain_attention,
    load_merged,
    load_tokenizer,
    pick_device,
)
from persona_leakage.engines.labels import label_rows
from persona_leakage.engines.turns import fit_turns

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "peft", "trl")


@dataclass(frozen=True, kw_only=True)
class PeftTrainer:
    """Trains adapters and keeps them by content: the same stack, rows, recipe and seed are never trained twice.

    Attributes:
        cache: where finished adapters are kept.
        device: `auto`, `cpu` or `cuda`.
        compile_layers: compile the decoder layers, which takes some 14 s once a process and pays for large models.
    """

    cache: Path
    device: str
    compile_layers: bool = False

    def train(self, stack: ModelStack, rows: Sequence[TrainRow], recipe: Recipe, seed: int) -> dict[str, TrainedAdapter]:
        """Train a fresh adapter on top of the stack; see `domain.protocols.Trainer`.

        Raises:
            UserError: the chat template does not fit, no row has labels, the loss is not finite, or a kept adapter is damaged.
        """
        identity = fingerprint(stack.fingerprint, recipe.training, seed, list(rows))
        folder = self.cache / "adapters" / identity
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # conditions that differ in evaluation only share their adapter
            if all((folder / name).is_dir() for name in recipe.kept):
                logger.info("Adapter %s was trained before; nothing to train", identity)
            else:
                partial = folder.with_name(f".{identity}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    self._train(stack, rows, recipe, seed, partial, identity)
                    with saving(folder):  # the adapters exist whole or not at all
                        _put(partial, folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                log = read_provenance(folder / checkpoint_name(None))["log"]
                size, tokens, speed = log["trainable_parameters"], log["tokens"], log["tokens_per_second"]
                logger.info("Trained %s parameters on %s tokens, %.0f tokens/s", f"{size:,}", f"{tokens:,}", speed)
        return {
            name: TrainedAdapter(read_adapter(folder / name), read_provenance(folder / name)["log"]) for name in recipe.kept
        }

    def fitting(self, base: BaseModel, rows: Sequence[TrainRow], recipe: Recipe) -> Sequence[TrainRow]:
        """Keep the rows that leave something to train on; see `domain.protocols.Trainer`."""
        _, left_out = label_rows(load_tokenizer(base, self.cache), rows, recipe)
        return [row for row in rows if row["id"] not in left_out]

    def _train(
        self, stack: ModelStack, rows: Sequence[TrainRow], recipe: Recipe, seed: int, folder: Path, identity: str
    ) -> None:
        """Write the adapter of every checkpoint into a folder of its own."""
        from datasets import Dataset
        from peft.helpers import disable_input_dtype_casting
        from transformers import PrinterCallback, set_seed

        from persona_leakage.engines import packed_attention, sft
        from persona_leakage.engines.adaptation import require_trainable

        require_trainable(stack.base, self.cache, recipe)
        fit_turns(stack.base, self.cache, (row["prompt"] for row in rows))
        device = pick_device(self.device)
        autocast = stack.base.dtype == "bfloat16" and device != "cpu"  # a CPU multiplies the adapter's float32 as fast
        tokenizer = load_tokenizer(stack.base, self.cache)
        examples, left_out = label_rows(tokenizer, rows, recipe)
        if left_out:
            said = "%d of %d rows are left out: max_length %d leaves nothing of them to train on (first: %s)"
            logger.warning(said, len(left_out), len(rows), recipe.max_length, left_out[0])
        plain = has_plain_attention(stack.base, self.cache)
        # a CPU has no use for padding; where rows are padded, eager attention's backward pass is faster there than SDPA's
        on_cpu = device == "cpu"
        laid_out = recipe.batching == "packed" or (on_cpu and plain)
        attention = packed_attention.NAME if laid_out else "eager" if on_cpu else "sdpa"
        base = load_merged(stack, self.cache, device, attention)
        if not plain:
            sft.require_causal(base, examples[0]["input_ids"], tokenizer.pad_token_id)
        set_seed(seed)  # the adapter's initial weights
        model = sft.fresh_adapter(base, recipe.lora)
        provenance = {
            "trained_on": stack.fingerprint,
            "base_model": stack.base.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "seed": seed,
            "rows": fingerprint(list(rows)),
            "left_out": left_out,
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        }
        keep = sft.KeepCheckpoints(folder, stack, recipe.kept, recipe.checkpoint_unit, identity, provenance, examples, device)
        with (
            tempfile.TemporaryDirectory() as scratch,
            closing(sft.ProgressCallback()) as progress,
            _compiled(base) if self.compile_layers else nullcontext(),
            # autocast gives the adapter its inputs in bfloat16; PEFT would copy each to float32 first
            disable_input_dtype_casting(model, active=autocast),
        ):
            trainer = sft.LabelledPositionsTrainer(
                model=model,
                args=sft.sft_config(recipe, seed, scratch, device, autocast=autocast),
                train_dataset=Dataset.from_list([dict(example) for example in examples]),
                processing_class=tokenizer,
                data_collator=sft.pack if laid_out else functools.partial(sft.collate, pad=tokenizer.pad_token_id),
                callbacks=[progress, sft.StopWhenBroken(), keep],
            )
            trainer.remove_callback(PrinterCallback)  # the bar shows the loss
            trainer.train()


def _put(made: Path, folder: Path) -> None:
    """Put the adapters of a training in their place.

    Those that an earlier one with other checkpoints left there stay: other steps, or another process, may be reading them, and
    results were made with them. On a processor both trainings come to the same numbers.
    """
    if not folder.is_dir():
        made.rename(folder)
        return
    for adapter in made.iterdir():
        if not (there := folder / adapter.name).is_dir():
            adapter.rename(there)
        elif (there / WEIGHTS).read_bytes() != (adapter / WEIGHTS).read_bytes():
            said = (
                "The second training of %s came to other numbers (%s), as some GPUs do; its further checkpoints are of that one"
            )
            logger.warning(said, folder.name, adapter.name)


@contextmanager
def _compiled(model: "PreTrainedModel") -> Iterator[None]:
    """Have every decoder layer compiled when it first computes, into one program for all layers and lengths of batches."""
    import torch._dynamo

    model.enable_input_require_grads()  # the first layer's input would need no gradient, and a program of its own
    for layer in decoder_blocks(model):
        layer.compile(dynamic=True)  # a batch is as long as its rows
    # LoRA's scaling, taken for variable too, would be multiplied on the CPU, by C++ that takes most of a minute to set up
    with torch._dynamo.config.patch(specialize_float=True):
        yield
