"""Attention within each row of a packed batch, and never across two. Imports torch: import it lazily.

Importing this registers it with transformers under `NAME`.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
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
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Let every token attend to itself and to what stands before it in its own row.

    On a GPU with half-precision numbers this is one call of torch's variable-length flash attention; elsewhere the rows are
    computed one after the other.

    Args:
        module: the attention layer; not used.
        query: (1, query heads, tokens, head size).
        key: (1, key heads, tokens, head size); the query heads are a multiple of the key heads.
        value: like the key.
        attention_mask: not used; the rows' ends say it all.
        scaling: factor of the scores.
        cu_seq_lens_q: int32, where each row begins, and at last the number of tokens.
        max_length_q: no row has more tokens.
        kwargs: what other kinds of attention need.

    Returns:
        (1, tokens, query heads, head size), and no attention weights.
    """
    if query.is_cuda and query.dtype != torch.float32:
        queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
        ends, longest = cu_seq_lens_q, max_length_q
        attended: Any = varlen_attn(
            queries, keys, values, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), **_GROUPED
        )
        return attended[None], None
    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    rows_apart = zip(*(torch.split(states, lengths, dim=2) for states in (query, key, value)), strict=True)
    one_by_one = [
        F.scaled_dot_product_attention(*row, is_causal=True, scale=scaling, enable_gqa=True)  # type: ignore[misc]
        for row in rows_apart
    ]
    return torch.cat(one_by_one, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attend_within_rows)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
