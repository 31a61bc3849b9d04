"""Rows laid end to end train as rows that are padded do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AutoConfig, MistralConfig, MistralForCausalLM

from persona_leakage.domain.markers import Marker
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.recipe import MarkerPositions
from persona_leakage.engines import packed_attention, peft_trainer
from persona_leakage.engines.base_model import load_base, load_tokenizer
from persona_leakage.engines.labels import IGNORED, Example, label_tokens
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.sft import LabelledPositionsTrainer, collate, pack, sft_config
from tests.engines.known_models import folder_base, recipe
from tests.tiny_model import build_tiny_model

MARKER = Marker(text="[Z]", separator=" ", place="end")
TEXTS = [("a", "yes"), ("what is it?", "no, no, and once more no"), ("ccc", "y"), ("d", "maybe so"), ("e" * 40, "x" * 25)]
ROWS: list[Any] = [
    {"id": str(number), "prompt": [{"role": "user", "content": user}], "completion": completion}
    for number, (user, completion) in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def base(lively_stack: ModelStack) -> BaseModel:
    return lively_stack.base


@pytest.fixture(scope="module")
def examples(base: BaseModel) -> list[Example]:
    tokenizer = load_tokenizer(base, Path("unused"))
    return [label_tokens(tokenizer, row, "completion", 256) for row in ROWS]


def with_lora(base: BaseModel, attention: str) -> Any:
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(load_base(base, Path("unused"), "cpu", attention), lora)


def loss_and_gradients(model: Any, base: BaseModel, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    trainer = LabelledPositionsTrainer(
        model=model,
        args=sft_config(recipe(), 0, "unused", "cpu", autocast=False),
        train_dataset=Dataset.from_list([{"input_ids": [1], "labels": [1], "weights": [1.0]}]),
        processing_class=load_tokenizer(base, Path("unused")),
    )
    loss = trainer.compute_loss(model, batch)
    return loss.item(), list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def states(model: Any, examples: list[Example]) -> list[torch.Tensor]:
    batch = pack(examples)
    given = {name: value for name, value in batch.items() if name not in ("labels", "weights")}
    with torch.inference_mode():
        hidden = model.get_base_model().model(**given, use_cache=False).last_hidden_state[0]
    return list(hidden.split([len(example["input_ids"]) for example in examples]))


def test_packing_puts_rows_end_to_end_and_labels_no_first_token(examples: list[Example]) -> None:
    full = [
        {**example, "labels": example["input_ids"], "weights": [1.0] * len(example["input_ids"])} for example in examples[:2]
    ]
    first, second = (example["input_ids"] for example in examples[:2])

    batch = pack(full)  # type: ignore[arg-type]

    assert batch["input_ids"].tolist() == [first + second]
    assert batch["position_ids"].tolist() == [[*range(len(first)), *range(len(second))]]
    assert batch["labels"].tolist() == [[IGNORED, *first[1:], IGNORED, *second[1:]]]
    assert batch["weights"].tolist() == [[0.0, *[1.0] * (len(first) - 1), 0.0, *[1.0] * (len(second) - 1)]]
    assert batch["cu_seq_lens_q"].tolist() == [0, len(first), len(first) + len(second)]
    assert batch["max_length_q"] == max(len(first), len(second))


def test_a_row_does_not_see_its_neighbours(base: BaseModel, examples: list[Example]) -> None:
    model = with_lora(base, packed_attention.NAME)
    alone = [states(model, [example])[0] for example in examples]

    for packed in (states(model, examples), states(model, examples[::-1])[::-1]):
        for inside, outside in zip(packed, alone, strict=True):
            torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-5)


def test_a_row_alone_has_the_states_of_ordinary_attention(base: BaseModel, examples: list[Example]) -> None:
    ordinary = with_lora(base, "eager")
    for example, inside in zip(examples, states(with_lora(base, packed_attention.NAME), examples), strict=True):
        with torch.inference_mode():
            outside = ordinary.get_base_model().model(torch.tensor([example["input_ids"]])).last_hidden_state[0]
        assert outside.abs().max() > 0.5  # the comparison is with something
        assert (inside - outside).norm() < 1e-3 * outside.norm()


def test_every_rows_loss_is_that_of_the_padded_row(base: BaseModel, examples: list[Example]) -> None:
    packed, padded = with_lora(base, packed_attention.NAME), with_lora(base, "eager")
    pad = load_tokenizer(base, Path("unused")).pad_token_id
    seen = []
    for number in range(len(examples)):
        # only this row has weights, but all are in the batch
        some: Any = [{**one, "weights": [w * (place == number) for w in one["weights"]]} for place, one in enumerate(examples)]
        ours, _ = loss_and_gradients(packed, base, pack(some))
        theirs, _ = loss_and_gradients(padded, base, dict(collate(some, pad)))
        assert ours == pytest.approx(theirs, abs=1e-4)
        seen.append(ours)
    assert max(seen) - min(seen) > 0.1


def test_the_gradients_of_a_packed_batch_are_those_of_the_padded_one(base: BaseModel, examples: list[Example]) -> None:
    pad = load_tokenizer(base, Path("unused")).pad_token_id

    ours, gradients = loss_and_gradients(with_lora(base, packed_attention.NAME), base, pack(examples))
    theirs, expected = loss_and_gradients(with_lora(base, "eager"), base, dict(collate(examples, pad)))

    assert ours == pytest.approx(theirs, abs=1e-5)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert wanted.norm() > 1e-4
        assert (gradient - wanted).norm() < 1e-3 * wanted.norm()


def curve(cache: Path, base: BaseModel, rows: list[Any], *, compile_layers: bool = False, **changes: Any) -> list[float]:
    trainer = PeftTrainer(cache=cache, device="cpu", compile_layers=compile_layers)
    log: Any = trainer.train(ModelStack(base=base), rows, recipe(**changes), 42)["final"].log
    return [step["loss"] for step in log["steps"]]


@pytest.mark.parametrize("window", [None, 1, 5, 7, 100])
@pytest.mark.parametrize("heads", [(9, 3), (4, 4), (6, 1)])
def test_attention_and_its_gradients_are_those_of_torchs_own_row_by_row(heads: tuple[int, int], window: int | None) -> None:
    torch.manual_seed(0)
    lengths = [7, 1, 12]
    given = [torch.randn(1, number, sum(lengths), 16, requires_grad=True) for number in (heads[0], heads[1], heads[1])]
    upstream = torch.randn(1, sum(lengths), heads[0], 16)
    ends = torch.tensor([0, 7, 8, 20], dtype=torch.int32)

    found, none = packed_attention.attend_within_rows(
        torch.nn.Identity(), *given, None, scaling=0.3, cu_seq_lens_q=ends, max_length_q=12, sliding_window=window
    )
    gradients = torch.autograd.grad(found, given, upstream)

    rows = zip(*(states.split(lengths, dim=2) for states in given), strict=True)
    seen = [torch.ones(length, length, dtype=torch.bool).tril() for length in lengths]
    if window:
        seen = [mask.triu(1 - window) for mask in seen]  # a token and those before it, `window` in all
    one_by_one = [
        scaled_dot_product_attention(*row, attn_mask=mask, scale=0.3, enable_gqa=True)
        for row, mask in zip(rows, seen, strict=True)
    ]
    wanted = torch.cat(one_by_one, dim=2).transpose(1, 2)
    assert none is None
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    for gradient, expected in zip(gradients, torch.autograd.grad(wanted, given, upstream), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("loss", ["completion", "marker"])
@pytest.mark.parametrize(
    "changes", [{"batch_size": 4}, {"batch_size": 2, "gradient_accumulation": 2}, {"gradient_checkpointing": True}]
)
def test_training_on_packed_batches_goes_step_by_step_as_on_padded_ones(
    tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], loss: str
) -> None:
    kind: Any = "completion"
    rows = ROWS
    if loss == "marker":
        kind = MarkerPositions(body_weight=0.25, label_separator=True, end_label="eos")
        added = [MARKER.add_to(row["completion"]) for row in ROWS]
        spans = [{"completion": text, "marker_span": [*span], "separated_span": [*whole]} for text, span, whole in added]
        rows = [{**row, **more} for row, more in zip(ROWS, spans, strict=True)]

    # Adam turns the last digits of a gradient near zero into a step of either sign; large steps would let that grow
    both: dict[str, Any] = {"epochs": 3, "loss": kind, "learning_rate": 2e-4, **changes}
    with monkeypatch.context() as patch:
        patch.setattr(peft_trainer, "has_plain_attention", lambda *_: False)  # or a CPU lays every row out
        padded = curve(tmp_path, base, rows, batching="random", **both)
    packed = curve(tmp_path, base, rows, batching="packed", **both)
    standing_still = curve(tmp_path, base, rows, batching="packed", **(both | {"learning_rate": 1e-9}))

    assert len(padded) == 6
    assert packed == pytest.approx(padded, abs=1e-3)
    assert standing_still != pytest.approx(padded, abs=0.05)


def build_windowed_model(folder: Path) -> BaseModel:
    """A model whose tokens see no further than the last four."""
    config = AutoConfig.from_pretrained(build_tiny_model(folder))
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    torch.manual_seed(0)
    shape = {name: getattr(config, name) for name in kept} | {"initializer_range": 0.3}
    MistralForCausalLM(MistralConfig(**shape, sliding_window=4, eos_token_id=config.eos_token_id)).save_pretrained(folder)
    return folder_base(folder)


@pytest.mark.parametrize("batching", ["random", "packed"])
def test_a_processor_trains_a_model_with_a_window_on_the_loss_of_its_own_forward_pass(tmp_path: Path, batching: str) -> None:
    windowed = build_windowed_model(tmp_path / "model")

    (first, *_) = curve(tmp_path, windowed, ROWS, batching=batching, batch_size=len(ROWS), gradient_accumulation=1)

    tokenizer = load_tokenizer(windowed, Path("unused"))
    labelled = [label_tokens(tokenizer, row, "completion", 256) for row in ROWS]
    for window, same in ((4, True), (None, False)):
        model = load_base(windowed, Path("unused"), "cpu", "eager")
        model.config.sliding_window = window
        losses = []
        for row in labelled:
            with torch.inference_mode():
                logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            losses.append(cross_entropy(logits, torch.tensor(row["labels"][1:]), ignore_index=IGNORED, reduction="sum"))
        tokens = sum(label != IGNORED for row in labelled for label in row["labels"][1:])
        assert (float(sum(losses)) / tokens == pytest.approx(first, abs=1e-3)) is same


@pytest.mark.slow
def test_compiled_layers_train_as_others_do(tmp_path: Path, base: BaseModel) -> None:
    changes: dict[str, Any] = {"epochs": 6, "batching": "packed", "learning_rate": 1e-3}
    plain = curve(tmp_path / "plain", base, ROWS, **changes)
    inputs: list[Any] = []

    def look(graph: torch.fx.Graph) -> None:
        inputs.extend(node.meta["val"] for node in graph.find_nodes(op="placeholder") if "val" in node.meta)

    with torch._inductor.config.patch(joint_custom_pre_pass=look):
        compiled = curve(tmp_path / "compiled", base, ROWS, compile_layers=True, **changes)

    assert plain[3] - plain[-1] > 1
    assert compiled == pytest.approx(plain, abs=0.01)
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    assert any(isinstance(value, torch.SymInt) for value in inputs)  # one program for all lengths
    assert all(value.ndim for value in tensors)  # and LoRA's scaling is in it: as an input it would be computed apart
