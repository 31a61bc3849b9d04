"""Read the hidden states of prompts with one forward hook a layer."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.rows import Message
from persona_leakage.engines.base_model import (
    chat_ids,
    decoder_blocks,
    left_padded,
    load_merged,
    load_tokenizer,
    own_decoder,
    pick_device,
)
from persona_leakage.engines.turns import fit_turns


@dataclass(frozen=True, kw_only=True)
class HiddenStateExtractor:
    """Runs prompts through the model once for all layers and keeps one vector a prompt and layer.

    Attributes:
        cache: where base models are.
        device: `auto`, `cpu` or `cuda`.
    """

    cache: Path
    device: str

    def last_token_states(
        self, stack: ModelStack, chats: Sequence[list[Message]], layers: Sequence[int], batch_size: int
    ) -> dict[int, np.ndarray]:
        """Return the last prompt token's hidden states; see `domain.protocols.Extractor`.

        Raises:
            UserError: the chat template does not fit, the model has no such layer, or an adapter is damaged.
        """
        return self.completion_states(stack, chats, [""] * len(chats), layers, batch_size)

    def completion_states(
        self,
        stack: ModelStack,
        chats: Sequence[list[Message]],
        completions: Sequence[str],
        layers: Sequence[int],
        batch_size: int,
    ) -> dict[int, np.ndarray]:
        """Return the mean hidden states of completions; see `domain.protocols.Extractor`.

        Of an empty one it is the last prompt token's.

        Raises:
            UserError: as `last_token_states`.
        """
        import torch

        from persona_leakage.engines.decoding import require_own_answers

        fit_turns(stack.base, self.cache, chats)
        device = pick_device(self.device)
        tokenizer = load_tokenizer(stack.base, self.cache)
        model = load_merged(stack, self.cache, device, "sdpa")
        blocks, decoder = decoder_blocks(model), own_decoder(model)
        if unknown := [layer for layer in layers if layer >= len(blocks)]:
            raise UserError(f"geometry.layers names {unknown}; {stack.base.name} has the blocks 0 to {len(blocks) - 1}")
        prompts = [chat_ids(tokenizer, chat) for chat in chats]
        require_own_answers(model, prompts, tokenizer.pad_token_id)
        written = [tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in completions]
        ids = [prompt + own for prompt, own in zip(prompts, written, strict=True)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        states = {layer: np.empty((len(ids), model.config.get_text_config().hidden_size), dtype=np.float32) for layer in layers}
        seen: dict[int, torch.Tensor] = {}
        lengths: list[int] = []  # of the batch's completions

        def keep_mean(_module: Any, _inputs: Any, output: Any, *, layer: int) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.ndim != 3:
                raise UserError(f"the blocks of {type(model).__name__} give more than one vector a token; leave geometry out")
            # left padding: the last positions are the last tokens
            means = [row[-length:].float().mean(dim=0) for row, length in zip(hidden, lengths, strict=True)]
            seen[layer] = torch.stack(means).cpu()

        with ExitStack() as hooks, torch.inference_mode():
            for layer in layers:
                hooks.enter_context(blocks[layer].register_forward_hook(partial(keep_mean, layer=layer)))
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                lengths[:] = [max(1, len(written[index])) for index in batch]
                tokens, mask = left_padded([ids[index] for index in batch], tokenizer.pad_token_id)  # type: ignore[arg-type]
                tokens, mask = tokens.to(device), mask.to(device)
                positions = (mask.cumsum(-1) - 1).clamp(min=0)
                decoder(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False)
                for layer in layers:
                    states[layer][batch] = seen[layer].numpy()
        return states
