"""Whether a recipe can train a base model, and which of its layers it adapts. Imports torch: import it lazily."""

import functools
import re
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.recipe import ALL_LINEAR, Lora, Recipe
from persona_leakage.engines.base_model import decoder_blocks, is_plain, own_decoder, read_config
from persona_leakage.engines.turns import fit_turns


def require_fit(plan: Plan, cache: Path) -> None:
    """Refuse a plan whose base model cannot do what it asks, before anything is computed for it.

    Raises:
        UserError: the chat template cannot be used, or takes no system turn and there are personas; or see `require_trainable`.
    """
    fit_turns(plan.base_model, cache, plan.chats)
    for stage in plan.stages.values():
        require_trainable(plan.base_model, cache, stage.recipe)


@functools.lru_cache(maxsize=16)  # command line, hook and trainer ask the same of every point; a refusal is not kept
def require_trainable(base: BaseModel, cache: Path, recipe: Recipe) -> None:
    """Refuse a recipe that a base model cannot be trained by, as far as its configuration tells; loads no weights.

    Raises:
        UserError: it is no causal language model or quantised, packed rows do not know its attention, or it does not have the
            layers that are to be adapted.
    """
    config = read_config(base, cache)
    if recipe.batching == "packed" and not is_plain(config):
        raise UserError(
            f"recipe.batching is packed, and packed rows do not know the attention of {base.name} ({config.model_type}); "
            "set it to random or length_grouped"
        )
    with torch.device("meta"):  # modules with names and shapes, and no numbers in them
        adapted_layers(AutoModelForCausalLM.from_config(config), recipe.lora)


def adapted_layers(base: PreTrainedModel, lora: Lora) -> list[str] | str:
    """Find the linear layers of a model's blocks that a recipe adapts, as PEFT wants to be told.

    Returns:
        How their names end; for a model that has more than a decoder, a pattern that keeps the rest as it is.

    Raises:
        UserError: the blocks have no linear layer of such a name. PEFT would leave it out as long as it finds another.
    """
    inside = decoder_blocks(base).named_modules()
    linear = [name for name, part in inside if isinstance(part, nn.Linear | Conv1D) and not name.endswith("router")]
    known = sorted({name.rpartition(".")[2] for name in linear})
    wanted = known if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules)
    if unknown := [name for name in wanted if not any(f".{layer}".endswith(f".{name}") for layer in linear)]:
        raise UserError(
            f"recipe.lora.target_modules names {', '.join(unknown)}, and the linear layers of a {base.config.model_type} model "
            f"are {', '.join(known)}; name some of those, or say {ALL_LINEAR}"
        )
    if (decoder := own_decoder(base)) is base.base_model:
        return wanted
    place = next(name for name, module in base.named_modules() if module is decoder)
    return rf"{re.escape(place)}\.(.*\.)?({'|'.join(map(re.escape, wanted))})"
