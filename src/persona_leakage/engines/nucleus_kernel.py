"""A GPU kernel for `vllm_nucleus.sample`: a program a row, in one launch, without memory for masks or sorted logits.

Imported only where a GPU samples: triton is not installed with the project.
"""

import torch
import triton
import triton.language as tl

_BLOCK = 2048  # with eight warps it leaves room for three programs at once on a Hopper's multiprocessor


def sample_on_gpu(logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample a token a row; see `vllm_nucleus.sample`. The host does not wait."""
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    (rows, vocabulary), draws = logits.shape, uniforms.shape[1]
    chosen = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if rows:
        arguments = (chosen, logits, logits.stride(0), top_p, uniforms, vocabulary, draws)
        _sample[(rows,)](*arguments, BLOCK=_BLOCK, num_warps=8)
    return chosen


@triton.jit
def _weights_ahead(block, places, largest, value, place):
    """Weigh those of a block that rank before a token: with a larger logit, or an equal one and a smaller id."""
    ahead = (block > value) | ((block == value) & (places < place))
    return tl.where(ahead, tl.exp(block - largest), 0.0)


@triton.jit
def _mass_ahead(logits, vocabulary, largest, value, place, BLOCK: tl.constexpr):
    lanes = tl.full((BLOCK,), 0.0, tl.float32)
    for start in range(0, vocabulary, BLOCK):
        places = start + tl.arange(0, BLOCK)
        block = tl.load(logits + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
        lanes += _weights_ahead(block, places, largest, value, place)
    return tl.sum(lanes).to(tl.float64)


@triton.jit
def _sample(chosen, logits, stride, top_p, uniforms, vocabulary, draws, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    lanes = tl.full((BLOCK,), -float("inf"), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        places = start + tl.arange(0, BLOCK)
        block = tl.load(logits + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
        lanes = tl.maximum(lanes, block)
    largest = tl.max(lanes)

    # the token that was refused last, before which the next is drawn: at first one behind all
    value = tl.full((), -float("inf"), tl.float32)
    place = tl.full((), 0, tl.int32) + vocabulary
    mass = _mass_ahead(logits, vocabulary, largest, value, place, BLOCK)
    enough = tl.load(top_p + row).to(tl.float64) * mass
    drawn = 0
    while drawn < draws:
        # in which block the cumulative mass passes the target, and what it is before that block
        target = tl.load(uniforms + row * draws + drawn) * mass
        reached = tl.full((), 0.0, tl.float64)
        before = tl.full((), 0.0, tl.float64)
        at = tl.full((), 0, tl.int32)
        for start in range(0, vocabulary, BLOCK):
            places = start + tl.arange(0, BLOCK)
            block = tl.load(logits + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
            here = tl.sum(_weights_ahead(block, places, largest, value, place)).to(tl.float64)
            hit = (reached <= target) & (target < reached + here)
            at = tl.where(hit, start, at)
            before = tl.where(hit, reached, before)
            reached += here
        places = at + tl.arange(0, BLOCK)
        block = tl.load(logits + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
        weights = _weights_ahead(block, places, largest, value, place)
        passed = (before + tl.cumsum(weights.to(tl.float64), 0) > target) & (weights > 0)
        # should rounding have left the target beyond all, what is drawn stands behind all and is refused
        place = tl.min(tl.where(passed, places, vocabulary))
        value = tl.max(tl.where(places == place, block, -float("inf")))
        mass = _mass_ahead(logits, vocabulary, largest, value, place, BLOCK)
        drawn = tl.where(mass < enough, draws, drawn + 1)
    tl.store(chosen + row, tl.minimum(place, vocabulary - 1).to(tl.int64))
