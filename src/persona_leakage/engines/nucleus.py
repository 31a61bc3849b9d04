"""Exact nucleus sampling without sorting the whole vocabulary, from random numbers that belong to the row."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

_FIRST_WIDTH = 256


def row_uniforms(identities: Sequence[str], draws: int) -> np.ndarray:
    """Draw each row's random numbers from its own generator.

    Args:
        identities: names a row by seed, prompt and sample index; the same name gives the same numbers in any batch.
        draws: how many numbers a row needs.

    Returns:
        float64 array of shape (rows, draws), uniform in [0, 1).
    """
    keys = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:16]) for name in identities]
    return np.stack([np.random.Generator(np.random.Philox(key=key)).random(draws) for key in keys])


def sample_nucleus(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Sample one token a row from its nucleus: the smallest set of most likely tokens with mass at least `top_p`.

    Inverts the cumulative distribution at the row's uniform number. The sorted head of the distribution is widened until
    it holds the nucleus, so the result is that of a full sort (Holtzman et al. 2020).

    Args:
        logits: float32, shape (rows, vocabulary).
        uniforms: float64 in [0, 1), shape (rows,).
        temperature: divides the logits.
        top_p: in (0, 1].

    Returns:
        Token ids, shape (rows,).
    """
    scaled = logits / temperature if temperature != 1 else logits
    log_total = torch.logsumexp(scaled, dim=-1, keepdim=True)
    vocabulary = logits.shape[-1]
    chosen = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    open_rows = torch.arange(len(logits), device=logits.device)
    width = vocabulary if top_p >= 1 else min(_FIRST_WIDTH, vocabulary)
    while len(open_rows):
        head, tokens = torch.topk(scaled, width, dim=-1) if top_p < 1 else (scaled, None)
        mass = (head - log_total).exp().double()
        reached = mass.cumsum(dim=-1)
        full = (reached[:, -1] >= top_p) | (width == vocabulary)
        reached, kept = reached[full], reached[full] - mass[full] < top_p
        # within the nucleus the cumulative mass rises to its total; beyond it no draw can land
        total = torch.where(kept, reached, 0).amax(dim=-1, keepdim=True)
        place = torch.searchsorted(reached, uniforms[full, None] * total, right=True)
        place = place.clamp(max=kept.sum(dim=-1, keepdim=True) - 1)
        chosen[open_rows[full]] = (place if tokens is None else tokens[full].gather(1, place)).squeeze(1)
        # few rows have a wider nucleus
        scaled, log_total, uniforms, open_rows = scaled[~full], log_total[~full], uniforms[~full], open_rows[~full]
        width = min(width * 8, vocabulary)
    return chosen
