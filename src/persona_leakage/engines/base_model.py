"""Load base models, and merge the adapters of a stack into one."""

import copy
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.protocols import KEEP_BASE_MODEL
from persona_leakage.engines.adapter_folder import at_hand, require_trained_on
from persona_leakage.engines.conversion import convert
from persona_leakage.engines.turns import apply_template, read_ending

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def pick_device(device: str) -> str:
    """Resolve `auto` to the GPU where there is one, else the CPU."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device '{device}' is asked for and no GPU is visible; set device to auto or cpu")
    return device


def weights_folder(base: BaseModel, cache: Path) -> str:
    """Find the folder or repository that transformers loads the base model from.

    A model that lies as GGUF in Python packages is converted once, to float32 numbers that every dtype is made of.

    Raises:
        UserError: the folder is missing, or what `convert` raises.
    """
    if base.source == "hub":
        return base.name
    if base.source == "folder":
        if not (Path(base.name) / "config.json").is_file():
            remedy = f"make it with: {base.made_by}" if base.made_by else "put one there, or name another folder in models.yml"
            raise UserError(f"there is no model in the folder {base.name}; {remedy}")
        return base.name
    converted = cache / "base_models" / f"{base.name}-{base.revision}"
    converted.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{converted.name}.lock"):  # two points of a grid may want it at once
        if not converted.is_dir():
            convert(base, converted)
    return str(converted)


@functools.lru_cache(maxsize=2)  # reading one takes longer than what many a call does with it
def load_tokenizer(base: BaseModel, cache: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer, padding on the left so that the last position is the last token of every row.

    Its chat template is applied as the base model asks for it; see `turns.apply_template`.

    Raises:
        UserError: there is no tokenizer, or the hub does not hand it out.
    """
    from transformers import AutoTokenizer

    place = weights_folder(base, cache)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **_revision(base))
    except (OSError, ValueError) as error:  # missing, damaged, or a hub that does not answer
        raise UserError(f"the tokenizer of {base.name} cannot be read: {str(error).strip().splitlines()[0]}") from error
    tokenizer.apply_chat_template = apply_template(tokenizer, base)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(read_ending(tokenizer).token)
    return tokenizer


# whose attention is a causal softmax over the row or a window of it; others have sinks, caps, chunks, or states
_PLAIN_ATTENTION = frozenset(
    (
        *("cohere", "gemma3", "gemma3_text", "gpt_neox", "granite", "llama"),
        *("mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe"),
    )
)


def has_plain_attention(base: BaseModel, cache: Path) -> bool:
    """Tell whether attention functions of ours compute what the model's own does; they know windows, neither sinks nor caps."""
    return is_plain(read_config(base, cache))


def is_plain(config: "PretrainedConfig") -> bool:
    """Tell whether a model's attention is plain, as `has_plain_attention` does of one that is not loaded."""
    text = config.get_text_config()
    peculiar = any(getattr(text, name, None) for name in ("attn_logit_softcapping", "use_bidirectional_attention"))
    return config.model_type in _PLAIN_ATTENTION and not peculiar


def read_config(base: BaseModel, cache: Path) -> "PretrainedConfig":
    """Read a base model's configuration.

    Raises:
        UserError: it is of an unknown kind, no causal language model, or quantised.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(weights_folder(base, cache), **_revision(base))
    except ValueError as error:
        raise UserError(f"{base.name} is of a kind that this transformers does not know; name another model") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{base.name} ({config.model_type}) is no causal language model; name another one")
    if getattr(config, "quantization_config", None):
        raise UserError(f"{base.name} has quantised weights, into which no adapter can be merged; name a copy in bfloat16")
    return config


_kept: dict[str, "PreTrainedModel"] = {}  # the base model that this process has read last


def load_base(base: BaseModel, cache: Path, device: str, attention: str) -> "PreTrainedModel":
    """Load the base model for inference; its own generation defaults are dropped in favour of the plan's.

    Its attention is the one asked for; in place of `sdpa`, `eager` where a model's own is more than that computes.
    In a process that computes many points it is read from disk once, and every caller gets a copy of its own.
    """
    if not os.environ.get(KEEP_BASE_MODEL):
        model = _read_base(base, cache, device)
    else:
        name = fingerprint(base, device)
        if name not in _kept:
            _kept.clear()
            _kept[name] = _read_base(base, cache, device)
        model = copy.deepcopy(_kept[name])
    # torch's own attention leaves caps out, and transformers does not offer it to models with sinks
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    model.set_attn_implementation("eager" if attention == "sdpa" and (capped or not model._supports_sdpa) else attention)
    return model


def _read_base(base: BaseModel, cache: Path, device: str) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # loading takes a moment; our own bars show what takes longer
    config = read_config(base, cache)
    text = config.get_text_config()
    for name, value in text.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(text, name, 0.0)  # the only dropout is the recipe's
    model = AutoModelForCausalLM.from_pretrained(
        weights_folder(base, cache),
        config=config,
        dtype=getattr(torch, base.dtype),
        attn_implementation="eager",
        **_revision(base),
    )
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model.to(device).eval()


def load_merged(stack: ModelStack, cache: Path, device: str, attention: str) -> "PreTrainedModel":
    """Load the base model and merge the stack's adapters into its weights, in order.

    Raises:
        UserError: an adapter is damaged or was trained on another stack.
    """
    from peft import PeftModel

    model = load_base(stack.base, cache, device, attention)
    below = ModelStack(base=stack.base)
    for adapter in stack.adapters:
        require_trained_on(adapter, below)
        with at_hand(adapter.path) as folder:
            model = PeftModel.from_pretrained(model, folder).merge_and_unload()
        below = below.extended(adapter)
    return model


def own_decoder(model: "PreTrainedModel") -> "torch.nn.Module":
    """Find what computes a model's last hidden states of text.

    Raises:
        UserError: there is no such part.
    """
    decoder: torch.nn.Module = model.get_decoder()
    if decoder is model:
        decoder = getattr(model, "model", model)
    if decoder is model:
        raise UserError(f"{type(model).__name__} has no decoder apart from its output layer; use another base model")
    return decoder


def decoder_blocks(model: "PreTrainedModel") -> "torch.nn.ModuleList":
    """Find the blocks of a model's decoder, whatever it calls them.

    Raises:
        UserError: there is no list of as many modules as the model has layers.
    """
    from torch.nn import ModuleList

    layers = model.config.get_text_config().num_hidden_layers
    for module in own_decoder(model).children():
        if isinstance(module, ModuleList) and len(module) == layers:
            return module
    raise UserError(f"{type(model).__name__} has no list of {layers} blocks that could be read; use another base model")


def chat_ids(tokenizer: "PreTrainedTokenizerBase", messages: list) -> list[int]:  # type: ignore[type-arg]
    """Apply the chat template to a prompt; the ids end with the generation prompt."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)  # type: ignore[return-value]


def left_padded(rows: list[list[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Pad token ids on the left.

    Returns:
        Ids and attention mask, both of shape (rows, longest row).
    """
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _revision(base: BaseModel) -> dict[str, str]:
    return {"revision": base.revision} if base.source == "hub" else {}
