"""What a configuration alone tells about training a model: no test here has weights."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.engines.adaptation import require_trainable
from tests.engines.known_models import folder_base, recipe

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
LORA = {"rank": 2, "alpha": 4, "rslora": True}
CONFIGS: dict[str, Any] = {
    "gemma2": transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "gpt_neox": transformers.GPTNeoXConfig(**SMALL),
    "mistral": transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8),
    "t5": transformers.T5Config(d_model=32, num_layers=1, vocab_size=64),
    "quantised": transformers.LlamaConfig(**SMALL, quantization_config={"quant_method": "gptq", "bits": 4}),
}


def described(kind: str, folder: Path) -> BaseModel:
    CONFIGS[kind].save_pretrained(folder)
    return folder_base(folder)


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("gemma2", {"batching": "packed"}, r"recipe\.batching is packed, .* \(gemma2\); set it to random or length_grouped$"),
        ("gpt_neox", {}, r"names q_proj, v_proj, and the linear layers of a gpt_neox model are .*query_key_value; name some"),
        ("t5", {}, r"\(t5\) is no causal language model; name another one$"),
        ("quantised", {}, "has quantised weights"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, kind: str, changes: dict[str, Any], why: str) -> None:
    asked = recipe(lora={**LORA, "target_modules": ["q_proj", "v_proj"]}, **changes)

    with pytest.raises(UserError, match=why):
        require_trainable(described(kind, tmp_path / "model"), tmp_path, asked)


@pytest.mark.parametrize(
    ("kind", "batching", "layers"),
    [
        ("gemma2", "random", ["q_proj", "down_proj"]),
        ("gpt_neox", "packed", "all-linear"),
        ("mistral", "packed", ["o_proj"]),
    ],
)
def test_what_can_be_trained_is_not(tmp_path: Path, kind: str, batching: str, layers: Any) -> None:
    asked = recipe(lora={**LORA, "target_modules": layers}, batching=batching)

    require_trainable(described(kind, tmp_path / "model"), tmp_path, asked)

    assert [file.name for file in (tmp_path / "model").iterdir()] == ["config.json"]
