import errno
import functools
import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import constants
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.recipe import Recipe
from persona_leakage.engines import peft_trainer, sft
from persona_leakage.engines.base_model import load_base, load_merged, load_tokenizer
from persona_leakage.engines.labels import IGNORED, label_tokens
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.sft import LabelledPositionsTrainer, collate, sft_config
from tests.engines.known_models import MODULES, recipe, truncate
from tests.tiny_model import build_tiny_model

PROJECT = Path(__file__).parents[2]
Tensors = dict[str, torch.Tensor]


def row(number: int, user: str, completion: str) -> Any:
    return {"id": str(number), "prompt": [{"role": "user", "content": user}], "completion": completion}


ROWS = [row(i, user, text) for i, (user, text) in enumerate([("a", "yes"), ("bb", "no, no"), ("ccc", "y"), ("d", "maybe so")])]
EIGHT = ROWS + [row(4 + i, "e" * i, "x" * (i + 1)) for i in range(4)]


def train(cache: Path, stack: ModelStack, settings: Recipe, rows: list[Any] = ROWS, seed: int = 42) -> Any:
    return PeftTrainer(cache=cache, device="cpu").train(stack, rows, settings, seed)["final"]


def tensors(trained: Any) -> Tensors:
    return load_file(Path(trained.adapter.path) / "adapter_model.safetensors")


def losses(trained: Any) -> list[float]:
    return [step["loss"] for step in trained.log["steps"]]


def test_a_row_that_is_too_long_is_left_out_counted_and_changes_nothing_else(
    tmp_path: Path, stack: ModelStack, caplog: pytest.LogCaptureFixture
) -> None:
    long = row(9, "word " * 300, "never")

    with caplog.at_level("WARNING"):
        trained = train(tmp_path, stack, recipe(), [long, *ROWS])

    assert (trained.log["rows"], trained.log["left_out"]) == (4, 1)
    assert "1 of 5 rows are left out: max_length 256 leaves nothing of them to train on (first: 9)" in caplog.text
    assert same(tensors(trained), tensors(train(tmp_path, stack, recipe())))
    assert PeftTrainer(cache=tmp_path, device="cpu").fitting(stack.base, [long, *ROWS], recipe()) == ROWS
    with pytest.raises(
        UserError, match=r"^none of the 1 rows is left to train on: row 9 has no label left within max_length 256"
    ):
        train(tmp_path, stack, recipe(), [long])


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def stack(tiny_base: BaseModel) -> ModelStack:
    return ModelStack(base=tiny_base)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(cache: Path, stack: ModelStack) -> Any:
    return train(cache, stack, recipe(epochs=2))


# what training changes


def test_every_b_matrix_moves(trained: Any) -> None:
    matrices = {name: tensor for name, tensor in tensors(trained).items() if ".lora_B." in name}

    assert len(matrices) == 2 * len(MODULES)
    assert min(tensor.abs().max().item() for tensor in matrices.values()) > 1e-3


def test_the_base_model_is_unchanged_on_disk_and_in_memory(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_base(stack.base, tmp_path, "cpu", "eager").state_dict()
    on_disk = files(Path(stack.base.name))
    trained_on = []
    monkeypatch.setattr(peft_trainer, "load_merged", lambda *given: trained_on.append(load_merged(*given)) or trained_on[0])

    train(tmp_path, stack, recipe())

    after = {name.replace(".base_layer", ""): tensor for name, tensor in trained_on[0].state_dict().items()}
    assert sum("lora_" in name for name in after) == 2 * 2 * len(MODULES)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert files(Path(stack.base.name)) == on_disk
    assert same(load_base(stack.base, tmp_path, "cpu", "eager").state_dict(), before)


def test_the_merged_model_less_the_adapters_delta_is_the_base_model(cache: Path, stack: ModelStack, trained: Any) -> None:
    base = load_base(stack.base, cache, "cpu", "eager").state_dict()
    adapter = tensors(trained)

    merged = load_merged(stack.extended(trained.adapter), cache, "cpu", "eager").state_dict()

    changed = 0
    for name, weight in merged.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{prefix}.lora_B.weight" in adapter:
            delta = adapter[f"{prefix}.lora_B.weight"] @ adapter[f"{prefix}.lora_A.weight"] * 8 / math.sqrt(4)
            changed += bool(delta.abs().max() > 1e-4)
            weight = weight - delta
        torch.testing.assert_close(weight, base[name], rtol=0, atol=1e-6)
    assert changed == 2 * len(MODULES)


def test_a_second_stage_trains_on_the_merged_first_and_leaves_it_as_it_was(
    cache: Path, stack: ModelStack, trained: Any
) -> None:
    first = files(Path(trained.adapter.path))
    second = train(cache, stack.extended(trained.adapter), recipe(epochs=1))

    # its first step starts where the first stage ended, on the same rows
    assert losses(second)[0] < losses(trained)[0] - 0.1
    assert files(Path(trained.adapter.path)) == first
    load_merged(stack.extended(trained.adapter).extended(second.adapter), cache, "cpu", "eager")
    with pytest.raises(UserError, match="was trained on another model stack"):
        load_merged(stack.extended(second.adapter), cache, "cpu", "eager")


def test_the_loss_of_a_set_that_can_be_memorised_falls_far(cache: Path, lively_stack: ModelStack) -> None:
    curve = losses(train(cache, lively_stack, recipe(epochs=40, learning_rate=0.01)))

    assert curve[0] > 5  # the logarithm of 259 tokens is 5.6
    assert curve[-1] < 1


def test_only_labelled_tokens_are_learnt(cache: Path, lively_stack: ModelStack) -> None:
    """What is memorised is the completion under its prompt; the prompt's own tokens get no likelier on the whole."""
    one = [row(0, "zyxw", "yes")]
    adapter = train(cache, lively_stack, recipe(epochs=40, learning_rate=0.01), one).adapter
    tokenizer = load_tokenizer(lively_stack.base, cache)
    example = label_tokens(tokenizer, one[0], "completion", 256)
    ids = torch.tensor([example["input_ids"]])

    with torch.inference_mode():
        model = load_merged(lively_stack.extended(adapter), cache, "cpu", "eager")
        likelihoods = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]

    labelled = torch.tensor(example["labels"][1:]) != IGNORED
    assert likelihoods[labelled].min() > -1
    assert likelihoods[~labelled].mean() < -5


def test_adapters_of_a_half_precision_model_are_trained_in_float32(tmp_path: Path) -> None:
    # steps of 5e-6 are far below the rounding of bfloat16 at the size of A's initial entries
    folder = build_tiny_model(tmp_path / "model", dtype="bfloat16")
    stack = ModelStack(base=BaseModel(source="folder", name=str(folder), revision="1", dtype="bfloat16"))

    short = tensors(train(tmp_path, stack, recipe(learning_rate=5e-6, epochs=2)))
    long = tensors(train(tmp_path, stack, recipe(learning_rate=5e-6, epochs=6)))

    assert {tensor.dtype for tensor in long.values()} == {torch.float32}
    assert all(not torch.equal(short[name], long[name]) for name in short)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"batch_size": 2, "gradient_accumulation": 2}])
@pytest.mark.parametrize("loss", ["completion", "full"])
def test_saving_memory_changes_no_result(cache: Path, stack: ModelStack, changes: dict[str, Any], loss: str) -> None:
    plain = train(cache, stack, recipe(epochs=2, loss=loss), EIGHT)

    thrifty = train(cache, stack, recipe(epochs=2, loss=loss, **changes), EIGHT)

    assert thrifty.adapter != plain.adapter
    assert losses(thrifty) == pytest.approx(losses(plain), abs=1e-5)
    assert len(losses(plain)) == 4


def batches_of(cache: Path, stack: ModelStack, batching: str, seed: int = 42) -> list[list[int]]:
    """Train on 64 rows of different lengths, and tell each batch's by how many labels they have."""
    batches: list[list[int]] = []
    original = LabelledPositionsTrainer.compute_loss

    def spying(self: Any, model: Any, inputs: Any, *rest: Any, **others: Any) -> Any:
        rows_apart = inputs["labels"][0].split(inputs["cu_seq_lens_q"].diff().tolist())
        batches.append([count for labels in rows_apart if (count := int((labels != IGNORED).sum()))])
        return original(self, model, inputs, *rest, **others)

    rows = [row(length, "q", "x" * length) for length in range(64)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledPositionsTrainer, "compute_loss", spying)
        train(cache, stack, recipe(batching=batching), rows, seed)
    return batches


@pytest.mark.parametrize("batching", ["random", "length_grouped"])
def test_every_row_is_seen_once_an_epoch_and_grouping_puts_rows_of_one_length_together(
    cache: Path, stack: ModelStack, batching: str
) -> None:
    batches = batches_of(cache, stack, batching)

    assert sorted(count for batch in batches for count in batch) == list(range(1, 65))
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches)
    assert spread < 20 if batching == "length_grouped" else spread > 30


@pytest.mark.parametrize("batching", ["random", "length_grouped", "packed"])
def test_a_seed_draws_the_order_of_rows_in_every_kind_of_batching(tmp_path: Path, stack: ModelStack, batching: str) -> None:
    seeds = {"one": 42, "again": 42, "another": 137}
    one, again, another = (batches_of(tmp_path / name, stack, batching, seed) for name, seed in seeds.items())

    assert one == again != another
    assert all(sorted(count for batch in run for count in batch) == list(range(1, 65)) for run in (one, another))


# the loss


def batch_of(stack: ModelStack, settings: Recipe) -> tuple[LabelledPositionsTrainer, Any, Any]:
    base = load_base(stack.base, Path("unused"), "cpu", "eager")
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False))
    tokenizer = load_tokenizer(stack.base, Path("unused"))
    examples = [label_tokens(tokenizer, one, settings.loss, 256) for one in ROWS]
    config = sft_config(settings, 0, "unused", "cpu", autocast=False)
    trainer = LabelledPositionsTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([dict(example) for example in examples]),
        processing_class=tokenizer,
        data_collator=functools.partial(collate, pad=tokenizer.pad_token_id),
    )
    return trainer, model, next(iter(trainer.get_train_dataloader()))


def test_the_loss_and_its_gradients_are_the_same_however_few_positions_are_computed_at_a_time(
    stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, model, batch = batch_of(stack, recipe())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    computed = []
    for logits in (2**24, 260, 3 * 260):
        monkeypatch.setitem(sft._LOGITS, "cpu", logits)
        loss = trainer.compute_loss(model, batch)
        computed.append([loss, *torch.autograd.grad(loss, trained)])

    assert len(trained) == 4
    assert all(gradient.abs().max() > 0 for gradient in computed[0][1:])
    for others in computed[1:]:
        torch.testing.assert_close(others, computed[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("loss", ["completion", "full"])
def test_the_loss_is_that_of_a_plain_forward_pass_with_labels(stack: ModelStack, loss: str) -> None:
    trainer, model, batch = batch_of(stack, recipe(loss=loss))
    assert batch["input_ids"].shape[0] == 4
    assert (batch["labels"] == IGNORED).any()  # padding at least

    ours = trainer.compute_loss(model, dict(batch))
    pad = trainer.processing_class.pad_token_id
    plain = model(input_ids=batch["input_ids"], attention_mask=batch["input_ids"] != pad, labels=batch["labels"]).loss

    assert ours.item() == pytest.approx(plain.item(), abs=1e-5)
    gradients = torch.autograd.grad(ours, [p for p in model.parameters() if p.requires_grad])
    expected = torch.autograd.grad(plain, [p for p in model.parameters() if p.requires_grad])
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)


def test_the_loss_of_an_optimiser_step_is_divided_by_all_its_labels(stack: ModelStack) -> None:
    trainer, model, batch = batch_of(stack, recipe())
    labels = int((batch["labels"][:, 1:] != IGNORED).sum())

    mean = trainer.compute_loss(model, dict(batch))
    share = trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(4 * labels))

    assert share.item() == pytest.approx(mean.item() / 4, rel=1e-6)


def test_the_logged_loss_is_the_mean_over_the_steps_labelled_tokens(cache: Path, stack: ModelStack) -> None:
    """The rows differ in length, so a mean over rows or over forward passes would be another number."""
    tokenizer = load_tokenizer(stack.base, cache)
    model = load_base(stack.base, cache, "cpu", "eager")
    total, labels = 0.0, 0
    for one in ROWS:
        example = label_tokens(tokenizer, one, "completion", 256)
        ids, wanted = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])[1:]
        with torch.inference_mode():
            likelihood = model(ids).logits[0, :-1].log_softmax(-1)
        kept = wanted != IGNORED
        total -= likelihood[kept].gather(1, wanted[kept, None]).sum().item()
        labels += int(kept.sum())

    step = train(cache, stack, recipe(batch_size=1, gradient_accumulation=4))

    assert labels == 4 + 7 + 2 + 9
    assert losses(step) == pytest.approx([total / labels], abs=1e-4)


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seen: list[float] = []
    original = LabelledPositionsTrainer.compute_loss

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        loss = original(self, *given, **named)
        seen.append(loss.item())
        return loss

    monkeypatch.setattr(LabelledPositionsTrainer, "compute_loss", counting)
    return seen


@pytest.mark.parametrize("batching", ["random", "packed"])
def test_a_loss_that_is_not_finite_ends_training_at_once_and_nothing_is_kept(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch, batching: str
) -> None:
    if batching == "random":
        monkeypatch.setattr(peft_trainer, "has_plain_attention", lambda *_: False)  # rows are padded, as on a GPU
    steps = count_steps(monkeypatch)

    with pytest.raises(UserError, match=r"^the training loss is not finite at step 2; lower recipe\.learning_rate$"):
        train(tmp_path, stack, recipe(learning_rate=1e30, epochs=30, checkpoints=[1], batching=batching))

    assert len(steps) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_first_step_that_is_not_finite_does_not_blame_the_learning_rate(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    steps = count_steps(monkeypatch)
    own = sft.own_logits

    def breaking(*given: Any) -> torch.Tensor:
        logits = own(*given)
        if broken == "loss":
            return logits * float("nan")
        logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits

    monkeypatch.setattr(sft, "own_logits", breaking)

    with pytest.raises(UserError, match=f"^the training {broken} is not finite at step 1, .* dtype to float32, or "):
        train(tmp_path, stack, recipe(epochs=30))

    assert len(steps) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_model_whose_logits_are_not_made_of_its_decoders_states_is_refused_and_nothing_is_kept(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Qwen2ForCausalLM):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> CausalLMOutputWithPast:
            embedded = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
            return CausalLMOutputWithPast(logits=self.lm_head(embedded))

    def load(*given: Any) -> Any:
        model = load_merged(*given)
        model.__class__ = Elsewhere
        return model

    monkeypatch.setattr(peft_trainer, "load_merged", load)

    with pytest.raises(UserError, match=r"^Elsewhere makes its logits in a way that training does not know; "):
        train(tmp_path, stack, recipe())

    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["q_proj", "query_key_value"],
            "names query_key_value, and the linear layers of a qwen2 model are down_proj, ",
        ),
        (["self_attn"], "names self_attn, "),
        (["lm_head"], "names lm_head, "),
        (["all-linear", "q_proj"], "names all-linear, "),
    ],
)
def test_layers_that_a_model_does_not_have_are_refused_with_those_that_it_has(
    tmp_path: Path, stack: ModelStack, names: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=rf"^recipe\.lora\.target_modules {said}.*; name some of those, or say all-linear$"):
        train(tmp_path, stack, recipe(lora={"target_modules": names}))


@pytest.mark.parametrize(
    ("names", "adapted"), [("all-linear", set(MODULES)), (["mlp.up_proj", "q_proj"], {"up_proj", "q_proj"})]
)
def test_layers_are_named_by_how_they_end_or_all_of_them(cache: Path, stack: ModelStack, names: Any, adapted: set[str]) -> None:
    found = tensors(train(cache, stack, recipe(lora={"target_modules": names})))

    assert {name.split(".")[-3] for name in found} == adapted


# the record


def test_the_log_counts_what_was_trained(cache: Path, stack: ModelStack) -> None:
    log = train(cache, stack, recipe(epochs=3, batch_size=3, schedule="linear", warmup_ratio=0.0)).log

    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    turns = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    texts = [system + turns.format(one["prompt"][0]["content"], one["completion"]) for one in ROWS]
    tokens = sum(len(re.sub(r"<\|im_\w+\|>", "#", text)) for text in texts)  # a byte a token
    sizes = [32 + 32, 32 + 16, 32 + 16, 32 + 32, 32 + 64, 32 + 64, 64 + 32]
    assert log["trainable_parameters"] == 2 * sum(4 * size for size in sizes)
    assert (log["rows"], log["left_out"]) == (4, 0)
    assert log["tokens"] == 3 * tokens
    assert log["labelled_tokens"] == 3 * (4 + 7 + 2 + 9)
    assert log["device"] == "cpu"
    full = train(cache, stack, recipe(loss="full")).log
    assert (full["tokens"], full["labelled_tokens"]) == (tokens, tokens - 4)  # nothing predicts a row's first token
    assert [step["step"] for step in log["steps"]] == [1, 2, 3, 4, 5, 6]
    rates = [step["learning_rate"] for step in log["steps"]]
    assert rates == pytest.approx([1e-2 * (6 - done) / 6 for done in range(6)])
    assert json.loads(json.dumps(log)) == log


@pytest.mark.parametrize(
    ("schedule", "after"), [("constant", [1, 1, 1, 1, 1, 1]), ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])]
)
def test_the_learning_rate_warms_up_over_a_share_of_the_steps(
    cache: Path, stack: ModelStack, schedule: str, after: list[float]
) -> None:
    log = train(cache, stack, recipe(epochs=10, warmup_ratio=0.4, schedule=schedule)).log

    rates = [step["learning_rate"] for step in log["steps"]]
    assert rates == pytest.approx([0, 0.0025, 0.005, 0.0075] + [0.01 * share for share in after])


def test_the_folder_says_what_the_adapter_was_trained_from(stack: ModelStack, trained: Any) -> None:
    folder = Path(trained.adapter.path)
    provenance = json.loads((folder / "provenance.json").read_text())

    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "provenance.json",
    ]
    assert provenance["fingerprint"] == trained.adapter.fingerprint
    assert provenance["trained_on"] == stack.fingerprint
    assert Recipe.model_validate(provenance["recipe"]) == recipe(epochs=2)
    assert BaseModel.model_validate(provenance["base_model"]) == stack.base
    assert provenance["seed"] == 42
    assert provenance["log"] == trained.log


# elsewhere


def run_guide(folder: Path) -> Any:
    """Do what the README in an adapter's folder says, and return the model."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("this folder", str(folder)), names)
    return names["model"].eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(20)[None]).logits
    return found


@pytest.mark.parametrize("adapters", [0, 1])
def test_another_program_loads_the_adapter_as_its_readme_says(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch, adapters: int
) -> None:
    monkeypatch.chdir(Path(stack.base.name).parent)  # the paths are relative when training
    below = ModelStack(base=stack.base.model_copy(update={"name": Path(stack.base.name).name}))
    for number in range(adapters):
        below = below.extended(train(Path(f"{tmp_path}/cache"), below, recipe(epochs=6), seed=number).adapter)
    top = train(tmp_path / "cache", below, recipe(epochs=6)).adapter
    expected = logits(load_merged(below.extended(top), tmp_path, "cpu", "eager"))
    bare = logits(load_merged(below, tmp_path, "cpu", "eager"))
    moved = shutil.copytree(top.path, tmp_path / "given away")

    (where,) = re.findall(r"Run what follows in (.*), where", (moved / "README.md").read_text()) or [tmp_path]
    monkeypatch.chdir(where)
    torch.testing.assert_close(logits(run_guide(moved)), expected, rtol=0, atol=1e-4)

    assert (expected - bare).abs().max() > 0.01
    if adapters:  # the base model alone would be the wrong one
        with pytest.raises(OSError, match=r"with other adapters merged: see README\.md"):
            AutoPeftModelForCausalLM.from_pretrained(moved)


def test_an_adapter_of_a_hub_model_names_repository_and_revision(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(stack.base.name, tmp_path / "hub" / "models--someone--tiny" / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    base = BaseModel(source="hub", name="someone/tiny", revision=commit, dtype="float32")

    adapter = train(tmp_path, ModelStack(base=base), recipe(epochs=6)).adapter

    config = json.loads((Path(adapter.path) / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/tiny", commit)
    expected = logits(load_merged(ModelStack(base=base).extended(adapter), tmp_path, "cpu", "eager"))
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(logits(run_guide(Path(adapter.path))), expected, rtol=0, atol=1e-4)


# seeds and what is kept


def test_the_same_seed_gives_identical_tensors_and_another_seed_others(tmp_path: Path, stack: ModelStack, trained: Any) -> None:
    again = train(tmp_path / "elsewhere", stack, recipe(epochs=2))
    other = train(tmp_path, stack, recipe(epochs=2), seed=43)

    assert again.adapter.path != trained.adapter.path
    assert again.adapter.fingerprint == trained.adapter.fingerprint
    assert same(tensors(again), tensors(trained))
    assert other.adapter.fingerprint != trained.adapter.fingerprint
    apart = [(tensor - tensors(trained)[name]).abs().max().item() for name, tensor in tensors(other).items()]
    assert min(apart) > 0.005  # more than another order of the same sums would make


def test_the_same_inputs_are_not_trained_twice(cache: Path, stack: ModelStack, trained: Any) -> None:
    before = files(cache)

    again = train(cache, stack, recipe(epochs=2))

    assert again == trained
    assert files(cache) == before


@pytest.mark.parametrize("what", ["rank", "row", "seed", "stack"])
def test_any_other_input_is_another_adapter(
    cache: Path, stack: ModelStack, trained: Any, tiny_base: BaseModel, what: str
) -> None:
    before = tensors(trained)
    changed = recipe(epochs=2, lora={"rank": 2 if what == "rank" else 4})
    rows = [*ROWS[:3], row(3, "d", "maybe not")] if what == "row" else ROWS
    below = ModelStack(base=tiny_base.model_copy(update={"revision": "other"})) if what == "stack" else stack

    other = train(cache, below, changed, rows, seed=7 if what == "seed" else 42)

    assert other.adapter.path != trained.adapter.path
    assert other.adapter.fingerprint != trained.adapter.fingerprint
    assert same(tensors(trained), before)
    if what == "rank":
        assert {min(tensor.shape) for tensor in tensors(other).values()} == {2}


def test_a_damaged_adapter_is_refused_instead_of_reused(tmp_path: Path, stack: ModelStack) -> None:
    folder = Path(train(tmp_path, stack, recipe()).adapter.path)
    truncate(folder / "adapter_model.safetensors")

    with pytest.raises(UserError, match=f"the adapter in {folder} is damaged"):
        train(tmp_path, stack, recipe())


@pytest.mark.parametrize("failing", ["weights", "provenance"])
def test_a_full_disk_leaves_no_adapter_and_the_next_attempt_succeeds(tmp_path: Path, stack: ModelStack, failing: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half_then_full(_model: Any, folder: Path, **_: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"half")
        full()

    with pytest.MonkeyPatch.context() as patch:
        if failing == "weights":
            patch.setattr(PeftModel, "save_pretrained", half_then_full)
        else:
            patch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match=r"cannot save the adapter to .*: No space left on device"):
            train(tmp_path, stack, recipe())
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []

    assert len(tensors(train(tmp_path, stack, recipe()))) == 2 * 2 * len(MODULES)


ANOTHER_RUN = """
import json, sys
from pathlib import Path
from persona_leakage.domain.models import ModelStack
from tests.engines.test_peft_trainer import LabelledPositionsTrainer, meet_after_training, recipe, train
marks, cache, stack, rows = sys.argv[1:]
LabelledPositionsTrainer.train = meet_after_training(Path(marks), "child", "parent")
train(Path(cache), ModelStack.model_validate_json(stack), recipe(), json.loads(rows))
"""


def meet_after_training(marks: Path, me: str, other: str) -> Any:
    """After training, wait a second for the other run to have trained too, as it has if it does not wait for this one."""
    original = LabelledPositionsTrainer.train

    def train_and_wait(self: Any) -> None:
        (marks / f"{me} begins").touch()
        original(self)
        (marks / f"{me} trained").touch()
        wait_for(marks / f"{other} trained", 1)

    return train_and_wait


def wait_for(mark: Path, seconds: float) -> None:
    for _ in range(int(seconds / 0.01)):
        if mark.exists():
            return
        time.sleep(0.01)


def test_two_runs_that_train_the_same_adapter_at_once_both_get_it(
    tmp_path: Path, stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two conditions that differ only in their evaluation, such as fr_it and fr_it_native, under `kedro grid --jobs 2`
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", ANOTHER_RUN, str(tmp_path), str(cache), stack.model_dump_json(), json.dumps(ROWS)]
    child = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for(tmp_path / "child begins", 60)
    monkeypatch.setattr(LabelledPositionsTrainer, "train", meet_after_training(tmp_path, "parent", "child"))

    trained = train(cache, stack, recipe())

    complaint = child.communicate(timeout=60)[1]
    assert child.returncode == 0, complaint
    assert len(tensors(trained)) == 2 * 2 * len(MODULES)
