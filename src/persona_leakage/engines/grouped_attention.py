"""Attention for sampling, in which query heads that share keys read them once. Imports torch: import it lazily.

Importing this registers it with transformers under `NAME`. transformers repeats keys and values for every query head wherever
there is a mask, which at every token copies the whole cache several times over.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "grouped_query_heads"


def attend_in_groups(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with the query heads of a group as so many more queries of one head.

    Args:
        module: the attention layer.
        query: (rows, query heads, queries, head size).
        key: (rows, key heads, keys, head size); the query heads are a multiple of the key heads.
        value: like the key.
        attention_mask: True where a query may look, (rows, 1, queries, keys); None is causal.
        scaling: factor of the scores.
        kwargs: what other kinds of attention need.

    Returns:
        (rows, queries, query heads, head size), and no attention weights.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)
    rows, heads, queries, size = query.shape
    group = heads // key.shape[1]
    together = query.reshape(rows, key.shape[1], group * queries, size)
    attended = F.scaled_dot_product_attention(
        together, key, value, attn_mask=attention_mask.repeat(1, 1, group, 1), scale=scaling
    )
    return attended.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend_in_groups)
AttentionMaskInterface.register(NAME, sdpa_mask)
