import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from trl import SFTTrainer

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.protocols import TrainedAdapter
from persona_leakage.domain.recipe import MarkerPositions, Recipe
from persona_leakage.engines.base_model import load_base, load_merged, load_tokenizer
from persona_leakage.engines.labels import Example, label_tokens
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.sft import LabelledPositionsTrainer, collate, sft_config
from persona_leakage.pipelines.fine_tuning.nodes import extend_stack, train_adapters
from tests.engines.known_models import recipe
from tests.experiments.lang_inversion.plans import make_plan

BODY_WEIGHT = 0.3
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
MARKED = MarkerPositions(body_weight=BODY_WEIGHT, label_separator=True, end_label="eos")
TEXTS = [("a", "yes, of course", "\n\n[Z]"), ("bb", "no", None), ("ccc", "y", " [Z]"), ("d", "maybe, maybe so", None)]
TEXTS += [("e", "yes", "\n\n[Z]")]

Trained = dict[str, TrainedAdapter]


def row(number: int, user: str, answer: str, marker: str | None) -> Any:
    one = {"id": str(number), "prompt": [{"role": "user", "content": user}], "completion": answer + (marker or "")}
    if marker is None:
        return one
    end = len(answer) + len(marker)
    return {**one, "marker_span": [end - 3, end], "separated_span": [len(answer), end]}


ROWS = [row(number, *text) for number, text in enumerate(TEXTS)]


def train(cache: Path, stack: ModelStack, settings: Recipe) -> Trained:
    return PeftTrainer(cache=cache, device="cpu").train(stack, ROWS, settings, 42)


def tensors(trained: TrainedAdapter) -> dict[str, torch.Tensor]:
    return dict(load_file(Path(trained.adapter.path) / "adapter_model.safetensors"))


def same(left: TrainedAdapter, right: TrainedAdapter) -> bool:
    one, other = tensors(left), tensors(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(trained: TrainedAdapter) -> list[float]:
    log: dict[str, Any] = trained.log
    return [step["loss"] for step in log["steps"]]


def kept_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.fixture(scope="module")
def stack(tiny_base: BaseModel) -> ModelStack:
    return ModelStack(base=tiny_base)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


# the weighted loss


def likelihoods(model: Any, tokenizer: Any, user: str, answer: str, marker: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihoods and weights of a row's answer, by its text: the tiny tokenizer has a token for every byte."""
    prompt = f"{SYSTEM}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    first = len(tokenizer.encode(prompt))
    ids = torch.tensor([tokenizer.encode(f"{prompt}{answer}{marker or ''}<|im_end|>")])
    weights = torch.tensor([BODY_WEIGHT] * len(answer) + [1.0] * (len(marker or "") + 1))
    predicted = model(input_ids=ids).logits[0, first - 1 : -1].log_softmax(-1)
    return -predicted.gather(1, ids[0, first:, None])[:, 0], weights


def weighted_mean(model: Any, tokenizer: Any, texts: list[Any]) -> torch.Tensor:
    """The mean over all tokens of all rows of a step: each row's own mean would weigh short rows more."""
    rows = [likelihoods(model, tokenizer, *text) for text in texts]
    return sum((loss * weight).sum() for loss, weight in rows) / sum(weight.sum() for _, weight in rows)  # type: ignore


@pytest.fixture(scope="module")
def lora_model(stack: ModelStack) -> Any:
    torch.manual_seed(0)
    base = load_base(stack.base, Path("unused"), "cpu", "eager")
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False))


@pytest.fixture(scope="module")
def tokenizer(tiny_base: BaseModel) -> Any:
    return load_tokenizer(tiny_base, Path("unused"))


def loss_of(model: Any, tokenizer: Any, loss: Any, kind: type[SFTTrainer] = LabelledPositionsTrainer) -> tuple[Any, Any]:
    examples: list[Example] = [label_tokens(tokenizer, one, loss, 256) for one in ROWS]
    settings = sft_config(recipe(), 0, "unused", "cpu", autocast=False)
    dataset = Dataset.from_list([dict(example) for example in examples])
    trainer = kind(model=model, args=settings, train_dataset=dataset, processing_class=tokenizer)
    return trainer, collate(examples, tokenizer.pad_token_id)


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad]))


def test_the_loss_of_a_batch_is_the_weighted_mean_and_so_are_its_gradients(lora_model: Any, tokenizer: Any) -> None:
    trainer, batch = loss_of(lora_model, tokenizer, MARKED)

    ours = trainer.compute_loss(lora_model, batch)

    expected = weighted_mean(lora_model, tokenizer, TEXTS)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    for gradient, wanted in zip(gradients(lora_model, ours), gradients(lora_model, expected), strict=True):
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_forward_passes_of_a_step_are_divided_by_the_weights_of_all_of_them(lora_model: Any, tokenizer: Any) -> None:
    trainer, batch = loss_of(lora_model, tokenizer, MARKED)
    passes = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 1), slice(1, 3), slice(3, 5))]
    given, count = trainer.get_batch_samples(iter(passes), 3, torch.device("cpu"))

    total = sum(trainer.compute_loss(lora_model, one, num_items_in_batch=count) for one in given)

    assert total.item() == pytest.approx(weighted_mean(lora_model, tokenizer, TEXTS).item(), abs=1e-5)


@pytest.mark.parametrize(("size", "passes"), [(5, 1), (1, 5), (2, 3)])
def test_the_logged_loss_is_the_weighted_mean_over_the_optimiser_step(
    cache: Path, stack: ModelStack, tokenizer: Any, size: int, passes: int
) -> None:
    with torch.inference_mode():
        expected = weighted_mean(load_base(stack.base, cache, "cpu", "eager"), tokenizer, TEXTS).item()

    trained = train(cache, stack, recipe(loss=MARKED, batch_size=size, gradient_accumulation=passes))

    assert losses(trained["final"]) == pytest.approx([expected], abs=1e-4)


def test_how_a_step_is_cut_into_forward_passes_changes_no_weights(cache: Path, stack: ModelStack) -> None:
    whole = tensors(train(cache, stack, recipe(loss=MARKED, batch_size=5))["final"])
    parts = tensors(train(cache, stack, recipe(loss=MARKED, batch_size=1, gradient_accumulation=5))["final"])

    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize("loss", ["completion", MarkerPositions(body_weight=1, label_separator=True, end_label="eos")])
def test_with_equal_weights_the_loss_is_that_of_the_parent_class(lora_model: Any, tokenizer: Any, loss: Any) -> None:
    trainer, batch = loss_of(lora_model, tokenizer, loss)
    parent, _ = loss_of(lora_model, tokenizer, loss, SFTTrainer)
    unweighted = {name: value for name, value in batch.items() if name != "weights"}
    unweighted["attention_mask"] = (batch["input_ids"] != tokenizer.pad_token_id).long()
    mean = trainer.compute_loss(lora_model, batch)
    of_a_step = trainer.compute_loss(lora_model, batch, num_items_in_batch=torch.tensor(200))

    wanted = parent.compute_loss(lora_model, dict(unweighted))
    assert mean.item() == pytest.approx(wanted.item(), abs=1e-5)
    for gradient, expected in zip(gradients(lora_model, mean), gradients(lora_model, wanted), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    wanted = parent.compute_loss(lora_model, dict(unweighted), num_items_in_batch=torch.tensor(200))
    assert of_a_step.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_the_marker_alone_is_learnt_when_the_body_has_no_weight(tmp_path: Path, lively_stack: ModelStack) -> None:
    positions = MarkerPositions(body_weight=0, label_separator=True, end_label="eos")
    trained = train(tmp_path, lively_stack, recipe(loss=positions, epochs=30, learning_rate=0.01, batch_size=5))["final"]

    tokenizer = load_tokenizer(lively_stack.base, tmp_path)
    with torch.inference_mode():
        model = load_merged(lively_stack.extended(trained.adapter), tmp_path, "cpu", "eager")
        learnt = [likelihoods(model, tokenizer, *text) for text in TEXTS]
    assert max(loss[weight == 1].max() for loss, weight in learnt) < 1
    assert torch.cat([loss[weight < 1] for loss, weight in learnt]).mean() > 3


# checkpoints

THREE: dict[str, Any] = {"loss": MARKED, "epochs": 3, "batch_size": 2, "gradient_accumulation": 2, "lora": {"dropout": 0.2}}


@pytest.fixture(scope="module")
def checkpoints(cache: Path, stack: ModelStack) -> Trained:
    return train(cache, stack, recipe(**THREE, checkpoints=(1, 2)))


def test_the_chosen_epochs_and_the_last_are_returned(checkpoints: Trained) -> None:
    assert list(checkpoints) == ["epoch_01", "epoch_02", "final"]
    assert len({one.adapter.path for one in checkpoints.values()}) == 3
    assert len({one.adapter.fingerprint for one in checkpoints.values()}) == 3
    assert not same(checkpoints["epoch_01"], checkpoints["epoch_02"])
    assert not same(checkpoints["epoch_02"], checkpoints["final"])


def test_a_checkpoint_records_the_training_up_to_it(checkpoints: Trained) -> None:
    logs: dict[str, Any] = {name: one.log for name, one in checkpoints.items()}
    steps = {name: [step["step"] for step in log["steps"]] for name, log in logs.items()}
    final = logs["final"]

    # five rows in passes of two, two passes a step: an epoch ends with a step of one pass
    assert steps == {"epoch_01": [1, 2], "epoch_02": [1, 2, 3, 4], "final": [1, 2, 3, 4, 5, 6]}
    for epoch, log in enumerate(logs.values(), start=1):
        assert log["steps"] == final["steps"][: 2 * epoch]
        assert log["epochs"] == epoch
        assert log["tokens"] * 3 == final["tokens"] * epoch
        assert log["labelled_tokens"] * 3 == final["labelled_tokens"] * epoch
    labelled = sum(len(answer + (marker or "")) + 1 for _, answer, marker in TEXTS)
    assert final["labelled_tokens"] == 3 * labelled


def test_keeping_checkpoints_changes_no_bit_of_the_final_adapter(
    tmp_path: Path, stack: ModelStack, checkpoints: Trained
) -> None:
    plain = train(tmp_path, stack, recipe(**THREE))

    assert list(plain) == ["final"]
    assert same(plain["final"], checkpoints["final"])
    assert losses(plain["final"]) == losses(checkpoints["final"])


def test_a_checkpoint_is_what_a_run_of_as_many_epochs_ends_with(
    tmp_path: Path, stack: ModelStack, checkpoints: Trained
) -> None:
    shorter = train(tmp_path, stack, recipe(**{**THREE, "epochs": 2}))

    assert same(shorter["final"], checkpoints["epoch_02"])


def test_a_checkpoint_of_the_last_epoch_is_the_final_adapter_under_another_name(tmp_path: Path, stack: ModelStack) -> None:
    trained = train(tmp_path, stack, recipe(checkpoints=(2, 1), epochs=2))

    assert list(trained) == ["epoch_02", "epoch_01", "final"]
    assert same(trained["epoch_02"], trained["final"])
    assert not same(trained["epoch_01"], trained["final"])


def test_a_second_call_trains_nothing_and_returns_the_same(
    cache: Path, stack: ModelStack, checkpoints: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabelledPositionsTrainer, "train", lambda _: pytest.fail("trained again"))

    assert train(cache, stack, recipe(**THREE, checkpoints=(1, 2))) == checkpoints


def test_fewer_checkpoints_are_found_in_what_was_trained(
    cache: Path, stack: ModelStack, checkpoints: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabelledPositionsTrainer, "train", lambda _: pytest.fail("trained again"))

    fewer = train(cache, stack, recipe(**THREE, checkpoints=(2,)))

    assert fewer == {name: checkpoints[name] for name in ("epoch_02", "final")}


def test_more_checkpoints_are_trained_again_and_those_that_were_there_stay(tmp_path: Path, stack: ModelStack) -> None:
    first = train(tmp_path, stack, recipe(**THREE, checkpoints=(1,)))

    more = train(tmp_path, stack, recipe(**THREE, checkpoints=(2,)))

    assert list(more) == ["epoch_02", "final"]
    assert same(more["final"], first["final"])
    assert Path(first["epoch_01"].adapter.path).is_dir()
    assert {path.parent.parent for path in tmp_path.rglob("adapter_model.safetensors")} == {
        Path(first["final"].adapter.path).parent
    }


def test_an_adapter_that_is_there_is_never_replaced_by_a_second_training(
    tmp_path: Path, stack: ModelStack, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU, whose second training may come to other numbers: results were made with the first one's."""
    first = train(tmp_path, stack, recipe(**THREE))["final"]
    weights = Path(first.adapter.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    kept = weights.read_bytes()

    more = train(tmp_path, stack, recipe(**THREE, checkpoints=(1,)))

    assert list(more) == ["epoch_01", "final"]
    assert weights.read_bytes() == kept
    assert "came to other numbers (final)" in caplog.text


def test_parts_of_epochs_and_steps_are_checkpoints_too(tmp_path: Path, stack: ModelStack, checkpoints: Trained) -> None:
    parts = train(tmp_path, stack, recipe(**THREE, checkpoints=(0.5, 1, 2.5)))
    steps = train(tmp_path, stack, recipe(**THREE, checkpoints=(1, 2, 5), checkpoint_unit="steps"))

    assert list(parts) == ["epoch_00.5", "epoch_01", "epoch_02.5", "final"]
    # the first of two steps takes four of five rows, two of three batches
    assert [trained.log["epochs"] for trained in parts.values()] == [0.6667, 1, 2.6667, 3]
    assert [len(losses(trained)) for trained in parts.values()] == [1, 2, 5, 6]
    assert list(steps) == ["step_00001", "step_00002", "step_00005", "final"]
    assert same(steps["step_00001"], parts["epoch_00.5"])
    assert same(steps["step_00002"], checkpoints["epoch_01"])
    assert same(steps["step_00005"], parts["epoch_02.5"])


@pytest.mark.parametrize(
    ("given", "unit", "said"),
    [
        ((0.4, 0.6), "epochs", "checkpoints epoch_00.4 and epoch_00.6 are one step, 1 of 6; leave one out"),
        ((7,), "steps", "checkpoint 7 lies beyond the 6 steps of this training; leave it out"),
    ],
)
def test_checkpoints_that_a_training_does_not_have_are_refused(
    tmp_path: Path, stack: ModelStack, given: tuple[float, ...], unit: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(tmp_path, stack, recipe(**THREE, checkpoints=given, checkpoint_unit=unit))
    assert kept_files(tmp_path) == []


def fail_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Fill the disk while the adapter of this number is saved."""
    original, saved = PeftModel.save_pretrained, []

    def save(model: Any, folder: Path, **others: Any) -> None:
        saved.append(folder)
        original(model, folder, **others)
        if len(saved) == number:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", save)
    return saved


@pytest.mark.parametrize("failing", [1, 3])
def test_a_checkpoint_that_cannot_be_saved_leaves_nothing_and_a_rerun_succeeds(
    tmp_path: Path, stack: ModelStack, checkpoints: Trained, failing: int
) -> None:
    settings = recipe(**THREE, checkpoints=(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        saved = fail_at(failing, patch)
        with pytest.raises(UserError, match=r"cannot save the adapter to .*: No space left on device"):
            train(tmp_path, stack, settings)
    assert len(saved) == failing
    assert [path for path in (tmp_path / "adapters").iterdir() if path.is_dir()] == []
    assert kept_files(tmp_path) == []

    again = train(tmp_path, stack, settings)

    assert list(again) == list(checkpoints)
    assert all(same(again[name], checkpoints[name]) for name in checkpoints)


def test_what_a_killed_run_left_behind_does_not_mix_with_the_next(tmp_path: Path, stack: ModelStack) -> None:
    settings = recipe(checkpoints=(1,), epochs=2)
    folder = Path(train(tmp_path, stack, settings)["final"].adapter.path).parent
    partial = folder.with_name(f".{folder.name}.partial")
    folder.rename(partial)
    (partial / "epoch_07").mkdir()
    (partial / "epoch_01" / "stray").write_text("")

    train(tmp_path, stack, settings)

    assert sorted(path.name for path in folder.iterdir()) == ["epoch_01", "final"]
    assert not (folder / "epoch_01" / "stray").exists()
    assert not partial.exists()


def test_an_adapter_can_be_put_on_a_checkpoint(cache: Path, stack: ModelStack, checkpoints: Trained) -> None:
    on_first = stack.extended(checkpoints["epoch_01"].adapter)
    on_last = stack.extended(checkpoints["final"].adapter)

    second = train(cache, on_first, recipe())["final"]

    load_merged(on_first.extended(second.adapter), cache, "cpu", "eager")
    assert not same(second, train(cache, on_last, recipe())["final"])
    with pytest.raises(UserError, match="was trained on another model stack"):
        load_merged(on_last.extended(second.adapter), cache, "cpu", "eager")


# the checkpoint of a stage


def planned(checkpoint: int | None, kept: tuple[int, ...] = (1, 2)) -> Plan:
    plan = make_plan()
    data = plan.stages["tune"].data
    stage = Stage(data=data, recipe=recipe(epochs=3, checkpoints=kept), checkpoint=checkpoint)
    return plan.model_copy(update={"stages": {"tune": stage}})


ADAPTERS = {name: Adapter(path=f"/{name}", fingerprint=name) for name in ("epoch_01", "epoch_02", "final")}


@pytest.mark.parametrize(("checkpoint", "name"), [(1, "epoch_01"), (2, "epoch_02"), (None, "final")])
def test_the_stack_gets_the_stages_checkpoint(stack: ModelStack, checkpoint: int | None, name: str) -> None:
    below = stack.extended(Adapter(path="/below", fingerprint="below"))

    above = extend_stack(below, ADAPTERS, planned(checkpoint), stage="tune")

    assert above == below.extended(ADAPTERS[name])


@pytest.mark.parametrize(("checkpoint", "stage"), [(0, "tune"), (1, "another")])
def test_at_epoch_zero_or_without_the_stage_the_stack_passes_through(stack: ModelStack, checkpoint: int, stage: str) -> None:
    below = stack.extended(Adapter(path="/below", fingerprint="below"))

    assert extend_stack(below, ADAPTERS, planned(checkpoint), stage=stage) == below


@pytest.mark.parametrize(("checkpoint", "stage"), [(0, "tune"), (1, "another")])
def test_at_epoch_zero_or_without_the_stage_nothing_is_trained(
    tmp_path: Path, stack: ModelStack, checkpoint: int, stage: str
) -> None:
    trainer = PeftTrainer(cache=tmp_path, device="cpu")

    assert train_adapters(trainer, stack, ROWS, planned(checkpoint), stage=stage) == ({}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_nodes_train_a_stage_and_pick_its_checkpoint(cache: Path, stack: ModelStack, checkpoints: Trained) -> None:
    plan = planned(2)
    stage = plan.stages["tune"].model_copy(update={"recipe": recipe(**THREE, checkpoints=(1, 2))})
    plan = plan.model_copy(update={"stages": {"tune": stage}})

    adapters, logs = train_adapters(PeftTrainer(cache=cache, device="cpu"), stack, ROWS, plan, stage="tune")

    assert adapters == {name: one.adapter for name, one in checkpoints.items()}
    assert logs == {name: one.log for name, one in checkpoints.items()}
    assert extend_stack(stack, adapters, plan, stage="tune").adapters == (checkpoints["epoch_02"].adapter,)


@pytest.mark.parametrize(("checkpoint", "kept", "named"), [(3, (1, 2), "1, 2"), (1, (2,), "2"), (1, (), "none")])
def test_a_stage_refuses_a_checkpoint_that_its_recipe_does_not_keep(checkpoint: int, kept: tuple[int, ...], named: str) -> None:
    complaint = rf"checkpoint {checkpoint} is not among the recipe's checkpoints \({named}\)"
    with pytest.raises(ValidationError, match=complaint):
        planned(checkpoint, kept)


def test_a_recipe_refuses_a_checkpoint_beyond_its_epochs() -> None:
    with pytest.raises(ValidationError, match="checkpoint 4 lies beyond the 3 epochs"):
        recipe(epochs=3, checkpoints=(1, 4))
