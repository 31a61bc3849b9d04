"""Attention within each row of a packed batch, and never across two. Imports torch: import it lazily.

Importing this registers it with transformers under `NAME`.
"""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "within_packed_rows"

# older versions of torch take fewer key heads than query heads without being told
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def attend_within_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Let every token attend to itself and to what stands before it in its own row, as far as the layer's window goes.

    On a GPU with half-precision numbers this is one call of torch's variable-length flash attention; elsewhere the rows are
    computed one after the other, see `_RowsApart`.

    Args:
        module: the attention layer; not used.
        query: (1, query heads, tokens, head size).
        key: (1, key heads, tokens, head size); the query heads are a multiple of the key heads.
        value: like the key.
        attention_mask: not used; the rows' ends say it all.
        scaling: factor of the scores.
        cu_seq_lens_q: int32, where each row begins, and at last the number of tokens.
        max_length_q: no row has more tokens.
        sliding_window: tokens that one attends to, itself included; None is all.
        kwargs: what other kinds of attention need.

    Returns:
        (1, tokens, query heads, head size), and no attention weights.
    """
    if query.is_cuda and query.dtype != torch.float32:
        queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
        ends, longest = cu_seq_lens_q, max_length_q
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        attended: Any = varlen_attn(
            queries, keys, values, ends, ends, longest, longest, scale=scaling, window_size=window, **_GROUPED
        )
        return attended[None], None
    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    attended = _RowsApart.apply(query[0], key[0], value[0], lengths, scaling, sliding_window)
    return attended.transpose(0, 1)[None], None


class _RowsApart(torch.autograd.Function):
    """Attention row by row, which keeps no weights for its backward pass but computes them again.

    Kept for all layers, they would be most of what training takes. torch's own attention keeps none either, but its backward
    pass takes several times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: list[int],
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        attended = torch.empty_like(query)
        for row in _places(lengths):
            weights = _weights(_grouped(query[:, row], len(key)), key[:, row], scaling, window).to(value.dtype)
            attended[:, row] = (weights @ value[:, row]).view(len(query), -1, value.shape[-1])
        ctx.save_for_backward(query, key, value, attended)
        ctx.lengths, ctx.scaling, ctx.window = lengths, scaling, window
        return attended

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, attended = ctx.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for row in _places(ctx.lengths):
            of_output, k, v = _grouped(upstream[:, row], len(key)), key[:, row], value[:, row]
            q, output = _grouped(query[:, row], len(key)), _grouped(attended[:, row], len(key))
            weights = _weights(q, k, ctx.scaling, ctx.window)
            of_value[:, row] = weights.to(v.dtype).transpose(1, 2) @ of_output
            # through the softmax: the mean of the weights' gradients is that of outputs and their gradients
            mean = (of_output * output).sum(-1, dtype=torch.float32, keepdim=True)
            of_scores = (weights * (of_output @ v.transpose(1, 2) - mean) * ctx.scaling).to(k.dtype)
            of_query[:, row] = (of_scores @ k).view(len(query), -1, k.shape[-1])
            of_key[:, row] = of_scores.transpose(1, 2) @ q
        return of_query, of_key, of_value, None, None, None


def _places(lengths: list[int]) -> Iterator[slice]:
    for end, length in zip(itertools.accumulate(lengths), lengths, strict=True):
        yield slice(end - length, end)


def _grouped(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Lay the query heads that share a key head one after the other: (query heads, tokens, size) → (heads, …, size)."""
    return states.reshape(heads, -1, states.shape[-1])


def _weights(query: torch.Tensor, key: torch.Tensor, scaling: float, window: int | None) -> torch.Tensor:
    """Weigh a row's tokens: float32, of shape (key heads, query heads of each x tokens, tokens)."""
    tokens = key.shape[1]
    unseen = torch.full((tokens, tokens), -torch.inf, device=key.device).triu(1)
    if window is not None and window < tokens:
        unseen += torch.full_like(unseen, -torch.inf).tril(-window)
    scores = (query @ key.transpose(1, 2)).float().mul_(scaling)
    scores.view(len(key), -1, tokens, tokens).add_(unseen)
    return scores.softmax(-1)


AttentionInterface.register(NAME, attend_within_rows)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
