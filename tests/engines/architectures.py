"""Tiny random models of many architectures, and what holds for each: every answer beside that of the model's own forward pass.

`python -m tests.engines.architectures` writes what holds into the table of docs/models.md.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import adaptation, peft_trainer, sft
from persona_leakage.engines.base_model import chat_ids, load_base, load_merged, load_tokenizer
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from persona_leakage.engines.labels import IGNORED, label_tokens
from persona_leakage.engines.transformers_generator import TransformersGenerator
from tests.engines.known_models import folder_base, recipe
from tests.tiny_model import build_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
WINDOW = 16  # far fewer tokens than a row has
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA3 = {**MIXED, "query_pre_attn_scalar": 8}
EXPERTS = {"num_experts_per_tok": 2}

# architecture → its class of configurations, and what makes it unlike Llama
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", {}),
    "Qwen2": ("Qwen2Config", {}),
    "Qwen3": ("Qwen3Config", {}),
    "Qwen3-MoE": ("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32}),
    "Mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "Gemma 2": ("Gemma2Config", {**GEMMA3, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}),
    "Gemma 3 (text)": ("Gemma3TextConfig", GEMMA3),
    "Gemma 3 (with images)": ("Gemma3Config", GEMMA3),
    "Phi3": ("Phi3Config", {"head_dim": None}),
    "OLMo2": ("Olmo2Config", {}),
    "Granite": ("GraniteConfig", {"logits_scaling": 8, "attention_dropout": 0.1}),
    "Cohere": ("CohereConfig", {"logit_scale": 1 / 16}),
    "GPT-NeoX": ("GPTNeoXConfig", {"num_key_value_heads": None, "head_dim": None}),
    "gpt-oss": ("GptOssConfig", {**MIXED, **EXPERTS, "num_local_experts": 4, "rope_parameters": {"rope_theta": 1e4}}),
    "Gemma 3 (looks ahead)": ("Gemma3TextConfig", {**GEMMA3, "use_bidirectional_attention": True}),
    "LFM2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"], "head_dim": None}),
    "OPT": ("OPTConfig", {"ffn_dim": 64, "dropout": 0.1, "num_key_value_heads": None, "head_dim": None}),
}

CHATS: list[list[Any]] = [
    [{"role": "user", "content": "Speak in French, please, and say a little more than that."}],
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Who are you?"}],
]
ANSWERS = ["no, no, and once more no", "y", "x" * 25]
ROWS: list[Any] = [
    {"id": str(number), "prompt": chat, "completion": answer}
    for number, (chat, answer) in enumerate(zip(CHATS, ANSWERS, strict=True))
]


def build(architecture: str, folder: Path) -> BaseModel:
    """Write a model of two layers and its tokenizer."""
    name, unlike = ARCHITECTURES[architecture]
    tokenizer = transformers.AutoTokenizer.from_pretrained(build_tiny_model(folder))
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    outer = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    outer["tie_word_embeddings"] = False  # or some say the last token again and again
    given = {key: value for key, value in (shape | unlike).items() if value is not None} | outer
    if name == "Gemma3Config":
        eyes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
        given = {"text_config": given, "vision_config": {**eyes, "patch_size": 8}, "mm_tokens_per_image": 4, **outer}
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**given)).save_pretrained(folder)
    return folder_base(folder)


def own(base: BaseModel) -> Any:
    """The model as transformers has it, without anything of ours."""
    return transformers.AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.float32, attn_implementation="eager").eval()


def train(base: BaseModel, cache: Path, batching: str) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """Train three steps on all rows at once; what was trained before is found in the cache.

    Returns:
        What the trainer returns, and the adapter's parameters and their gradients in the first step.
    """
    seen: dict[str, tuple[Any, Any]] = {}

    class Spy(sft.StopWhenBroken):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for name, parameter in kwargs["model"].named_parameters():
                if parameter.requires_grad:
                    seen.setdefault(name, (parameter.detach().clone(), parameter.grad.clone()))

    settings = recipe(
        lora={"target_modules": "all-linear"}, batching=batching, batch_size=len(ROWS), epochs=3, max_grad_norm=1e9
    )
    with patch.object(sft, "StopWhenBroken", Spy):
        trained = peft_trainer.PeftTrainer(cache=cache, device="cpu").train(ModelStack(base=base), ROWS, settings, 42)
    return trained["final"], seen


def check_loss(base: BaseModel, cache: Path, batching: str) -> None:
    """The first step's loss and the gradients of the adapter."""
    trained, seen = train(base, cache, batching)

    model = get_peft_model(own(base), LoraConfig.from_pretrained(trained.adapter.path)).eval()
    total, labelled = torch.zeros(()), 0
    tokenizer = load_tokenizer(base, cache)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in seen)
        if name in seen:
            parameter.data.copy_(seen[name][0])
    for row in ROWS:
        example = label_tokens(tokenizer, row, "completion", 256)
        count = sum(label != IGNORED for label in example["labels"][1:])
        assert len(example["input_ids"]) > 3 * WINDOW
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        total, labelled = total + model(input_ids=ids, labels=labels).loss * count, labelled + count
    (total / labelled).backward()

    assert trained.log["steps"][0]["loss"] == pytest.approx(total.item() / labelled, abs=2e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == seen.keys()
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-3
    scale = torch.stack([gradient.norm() for gradient in gradients.values()]).max()
    for name, (_, gradient) in seen.items():
        assert (gradient - gradients[name]).norm() < 1e-3 * scale, name


def check_padded(base: BaseModel, cache: Path) -> None:
    with patch.object(peft_trainer, "has_plain_attention", lambda *_: False):  # or a CPU lays rows end to end
        check_loss(base, cache, "random")


def check_packed(base: BaseModel, cache: Path) -> None:
    check_loss(base, cache, "packed")


def check_layers(base: BaseModel, cache: Path) -> None:
    """The layers that the recipes of the study name."""
    wanted = recipe().lora
    assert len(adaptation.adapted_layers(load_base(base, cache, "cpu", "eager"), wanted)) >= len(wanted.target_modules)


def check_states(base: BaseModel, cache: Path) -> None:
    """The first block's output at the last token of prompts that are padded on the left."""
    found = HiddenStateExtractor(cache=cache, device="cpu").last_token_states(ModelStack(base=base), CHATS, [0], len(CHATS))

    model, tokenizer = own(base), load_tokenizer(base, cache)
    with torch.inference_mode():
        every = [model(torch.tensor([chat_ids(tokenizer, chat)]), output_hidden_states=True) for chat in CHATS]
    wanted = torch.stack([one.hidden_states[1][0, -1] for one in every]).numpy()
    assert np.abs(wanted[0] - wanted[1]).max() > 0.1
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-4)


def check_greedy(base: BaseModel, cache: Path) -> None:
    """Texts of the likeliest tokens, of prompts in one batch."""
    prompts: Any = [{"id": str(number), "messages": chat, "cell": {}} for number, chat in enumerate(CHATS)]
    likeliest = Sampling(temperature=1, top_p=1e-9, max_tokens=16)
    generator = TransformersGenerator(cache=cache, device="cpu", batch_rows=8)
    found = generator.generate(ModelStack(base=base), prompts, 1, likeliest, 42)

    model, tokenizer = own(base), load_tokenizer(base, cache)
    texts = []
    for chat in CHATS:
        ids = torch.tensor([chat_ids(tokenizer, chat)])
        new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True))
    assert len(set("".join(texts))) > 7
    assert [row["completion"] for row in found] == texts


def check_merge(base: BaseModel, cache: Path) -> None:
    """Logits of the adapter merged into the weights, and of the adapter on the model."""
    trained, _ = train(base, cache, "random")

    bare, beside = own(base), PeftModel.from_pretrained(own(base), trained.adapter.path).eval()
    merged = load_merged(ModelStack(base=base).extended(trained.adapter), cache, "cpu", "eager")
    ids = torch.tensor([chat_ids(load_tokenizer(base, cache), CHATS[0])])
    with torch.inference_mode():
        plain, wanted, found = (model(ids).logits for model in (bare, beside, merged))
    assert (wanted - plain).abs().max() > 0.01
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


CHECKS: dict[str, Callable[[BaseModel, Path], None]] = {
    "loss and gradients, rows padded": check_padded,
    "rows packed": check_packed,
    "the study's seven layers": check_layers,
    "hidden states": check_states,
    "greedy text": check_greedy,
    "merged adapter": check_merge,
}


def find(check: str, base: BaseModel, cache: Path) -> str:
    """Say whether something holds for a model.

    Returns:
        `right`, or `refused: ` and why.

    Raises:
        AssertionError: it goes on with another number than the model's own.
    """
    try:
        CHECKS[check](base, cache)
    except UserError as error:
        return f"refused: {str(error).replace(base.name, 'the model')}"
    return "right"


def read_table() -> dict[str, dict[str, str]]:
    """Read the page's table: architecture → check → what holds."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if line[:1] == "|"]
    (_, *checks), _, *found = rows
    return {name: dict(zip(checks, cells, strict=True)) for name, *cells in found}


def write_table(found: dict[str, dict[str, str]]) -> None:
    """Put a table in place of the page's."""
    lines = [["architecture", *CHECKS], ["---"] * (1 + len(CHECKS)), *([name, *row.values()] for name, row in found.items())]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    PAGE.write_text(re.sub(r"(^\|.*\n)+", lambda _: table, PAGE.read_text(), count=1, flags=re.MULTILINE))


def main() -> None:
    """Find what holds, and write it down."""
    found = {}
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as scratch:
            base = build(architecture, Path(scratch) / "model")
            found[architecture] = {check: find(check, base, Path(scratch) / "cache") for check in CHECKS}
    write_table(found)


if __name__ == "__main__":
    main()
