"""Sample completions of a batch token by token. Imports torch: import it lazily."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import is_plain, left_padded
from persona_leakage.engines.nucleus import sample_nucleus

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROOM = 64  # positions that a layer's cache grows by
_ENOUGH = 0.8  # share of the rows of a step that must be unfinished, or the finished ones are dropped


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, written into a buffer with room; transformers' own copies them all at every step."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin without positions, like the first states otherwise."""
        super().lazy_initialization(key_states, value_states)
        self._buffers = self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions and return all of them, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            held = self.keys, self.values
            keys, values = (one.new_empty((*one.shape[:2], end + _ROOM, one.shape[3])) for one in held)
            keys[:, :, :begin], values[:, :, :begin] = held
            self._buffers = keys, values
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows, or repeat them."""
        super().batch_select_indices(indices)
        self._buffers = self.keys, self.values


def sample_batch(
    model: "PreTrainedModel", rows: Sequence[Sequence[int]], uniforms: np.ndarray, sampling: Sampling, ends: set[int], pad: int
) -> list[list[int]]:
    """Sample one completion a row; rows with the same prompt share its prefill.

    Args:
        model: on the device that computes.
        rows: token ids of the prompts.
        uniforms: shape (rows, max_tokens), in [0, 1); a row's tokens follow from its own.
        sampling: temperature, nucleus and the most tokens.
        ends: tokens that end a completion.
        pad: token that prompts are padded with.

    Returns:
        Token ids of every completion, with the one that ends it.
    """
    device = model.device
    unique: dict[tuple[int, ...], int] = {}
    owner = torch.tensor([unique.setdefault(tuple(row), len(unique)) for row in rows], device=device)
    draws, stop = torch.tensor(uniforms, device=device), torch.tensor(sorted(ends), device=device)
    cache = _roomy_cache(model)
    going = torch.arange(len(rows), device=device)  # rows that the step computes; some of them may have ended
    ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
    completions: list[list[int]] = [[] for _ in rows]
    with torch.inference_mode():
        ids, mask = (tensor.to(device) for tensor in left_padded([list(row) for row in unique], pad))
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = _next_logits(model, cache, ids, mask, place)[owner]
        cache.batch_select_indices(owner)
        mask, place = mask[owner], place[owner, -1:]
        for step in range(sampling.max_tokens):
            tokens = sample_nucleus(logits, draws[going, step], sampling.temperature, sampling.top_p)
            for row, token, over in zip(going.tolist(), tokens.tolist(), ended[going].tolist(), strict=True):
                if not over:
                    completions[row].append(token)
            ended[going] |= torch.isin(tokens, stop)
            left = (~ended[going]).nonzero()[:, 0]
            if not len(left) or step + 1 == sampling.max_tokens:
                break
            if len(left) < _ENOUGH * len(going):
                going, tokens, mask, place = going[left], tokens[left], mask[left], place[left]
                cache.batch_select_indices(left)
            mask, place = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1), place + 1
            logits = _next_logits(model, cache, tokens[:, None], mask, place)
    return completions


def require_own_answers(model: "PreTrainedModel", rows: Sequence[list[int]], pad: int) -> None:
    """Refuse a model that answers otherwise when prompts are padded on the left or its cache is gone on from.

    Models with states in place of keys and values do, and some that count positions. What the tests cover is not tried again.

    Args:
        model: on the device that computes.
        rows: token ids of prompts; the shortest and the longest are tried.
        pad: token that prompts are padded with.

    Raises:
        UserError: its logits are others than for each row alone.
    """
    if not rows or is_plain(model.config):
        return
    pair, device = [min(rows, key=len), max(rows, key=len)], model.device
    with torch.inference_mode():
        try:
            ids, mask = (tensor.to(device) for tensor in left_padded(pair, pad))
            place, cache = (mask.cumsum(-1) - 1).clamp(min=0), _roomy_cache(model)
            following = _next_logits(model, cache, ids, mask, place).argmax(-1, keepdim=True)
            cache.batch_select_indices(torch.arange(2, device=device))
            mask, place = torch.cat([mask, mask.new_ones(2, 1)], dim=1), place[:, -1:] + 1
            found = _next_logits(model, cache, following, mask, place)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(_OTHERWISE.format(type(model).__name__, model.config.model_type)) from error
        alone = [torch.tensor([row], device=device) for row in pair]
        whole = [torch.cat([row, token[None]], dim=1) for row, token in zip(alone, following, strict=True)]
        own = torch.cat([model(input_ids=row, use_cache=False).logits[:, -1].float() for row in whole])
    apart = (found - own).norm(dim=-1) / (own - own.mean(-1, keepdim=True)).norm(dim=-1)
    if not (apart < (1e-3 if model.dtype == torch.float32 else 0.2)).all():  # half precision alone makes some hundredths
        raise UserError(_OTHERWISE.format(type(model).__name__, model.config.model_type))


_OTHERWISE = "{} ({}) answers otherwise when prompts are padded or its cache is gone on from; use another base model"


def _roomy_cache(model: "PreTrainedModel") -> DynamicCache:
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _next_logits(
    model: "PreTrainedModel", cache: DynamicCache, ids: torch.Tensor, mask: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Compute the logits after the last of `ids`; float32, of shape (rows, vocabulary)."""
    found = model(
        input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return found.logits[:, -1].float()
