"""Models, adapters and recipes whose behaviour is known beforehand."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.recipe import Recipe
from tests.tiny_model import build_tiny_model

END = "<|im_end|>"
HEADS_OF_32 = {"hidden": 64, "heads": 2}  # the smallest heads that vLLM computes on a CPU
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def folder_base(folder: Path) -> BaseModel:
    return BaseModel(source="folder", name=str(folder), revision="test", dtype="float32")


def build_lively_model(folder: Path) -> Path:
    """A three-block model with weights so large that its output depends on every token of the prompt."""
    import torch
    from transformers import AutoConfig, Qwen2ForCausalLM

    config = AutoConfig.from_pretrained(build_tiny_model(folder, **HEADS_OF_32))
    config.update({"num_hidden_layers": 3, "tie_word_embeddings": False, "initializer_range": 0.3, "layer_types": None})
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(type(config)(**{**config.to_dict(), "layer_types": None}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    return folder


def build_chain_model(folder: Path, chain: dict[str, dict[str, float]]) -> Path:
    """A model in which the last token alone decides the distribution of the next: token → next token → probability.

    Both of its special tokens end a turn.
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

    config = AutoConfig.from_pretrained(build_tiny_model(folder, **HEADS_OF_32))
    config.tie_word_embeddings = False
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def number(token: str) -> int:
        (one,) = tokenizer.encode(token, add_special_tokens=False)
        return one

    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:  # the blocks add nothing
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        root = math.sqrt(config.hidden_size)  # RMSNorm turns a one-hot vector into one of this length
        for place, (token, following) in enumerate(chain.items()):
            model.model.embed_tokens.weight[number(token), place] = 1
            model.lm_head.weight[:, place] = -60 / root
            for successor, probability in following.items():
                model.lm_head.weight[number(successor), place] = math.log(probability) / root
    model.generation_config.eos_token_id = [number(END), number("<|endoftext|>")]
    model.save_pretrained(folder)
    return folder


def make_adapter(
    folder: Path, below: ModelStack, *, seed: int, rank: int = 4, alpha: int = 8, rslora: bool = True, scale: float = 1.0
) -> Adapter:
    """An adapter with random A and B on every linear layer of the blocks."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(below.base.name)
    model = get_peft_model(
        base,
        LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=list(MODULES)),
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale / 10
    model.save_pretrained(folder)
    provenance = {"fingerprint": f"adapter-{seed}", "trained_on": below.fingerprint, "log": {}}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return Adapter(path=str(folder), fingerprint=f"adapter-{seed}")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def copy_adapter(adapter: Adapter, folder: Path) -> Adapter:
    shutil.copytree(adapter.path, folder)
    return Adapter(path=str(folder), fingerprint=adapter.fingerprint)


def recipe(*, lora: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe that moves the tiny model within a few steps."""
    values = {
        "loss": "completion",
        "lora": {"rank": 4, "alpha": 8, "rslora": True, "dropout": 0.0, "target_modules": MODULES, **(lora or {})},
        "learning_rate": 1e-2,
        "schedule": "constant",
        "warmup_ratio": 0,
        "epochs": 1,
        "batch_size": 4,
        "gradient_accumulation": 1,
        "weight_decay": 0,
        "max_grad_norm": 1.0,
        "max_length": 256,
        "batching": "random",
        "gradient_checkpointing": False,
    }
    return Recipe.model_validate({**values, **changes})
