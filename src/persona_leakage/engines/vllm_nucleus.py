"""Have vLLM sample from the exact nucleus without sorting or masking logits, and without the host waiting for the GPU.

A token is drawn from the whole distribution and taken if it is of the nucleus; else the next is drawn from those that rank
before it, and so on. What is of the nucleus is never refused, and every draw is in proportion to probability, so what is taken
is distributed as the nucleus is, however wide. The first draw is taken with probability `top_p` or more, so that most rows are
read four times and none is written.
"""

import logging
import sys
from typing import Any

import torch

logger = logging.getLogger(__name__)

# a refusal leaves some part of the mass, any as likely as another: a nucleus of one token in a million takes 15 draws on
# average, and more than these with a probability below 1e-18
DRAWS = 64


def sample(logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample one token a row from its nucleus: the tokens that have less than `top_p` before them (Holtzman et al. 2020).

    Of equal logits the smaller id ranks first. It is vLLM's nucleus: its sort leaves out a token if it and all that rank behind
    it have `1 - top_p` or less together.

    Args:
        logits: divided by the temperature, shape (rows, vocabulary).
        top_p: in (0, 1], shape (rows,).
        uniforms: float64 in [0, 1), shape (rows, draws): what a row's first draw takes, its second and so on.

    Returns:
        Token ids, shape (rows,).
    """
    if logits.is_cuda:
        from persona_leakage.engines.nucleus_kernel import sample_on_gpu

        return sample_on_gpu(logits, top_p, uniforms)
    return sample_in_torch(logits, top_p, uniforms)


def sample_in_torch(logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Do what `sample` does with torch alone: on a CPU, and to check the kernel, for here the host waits in every round."""
    logits = logits.float()
    places = torch.arange(logits.shape[1], device=logits.device)
    weights = (logits - logits.amax(dim=1, keepdim=True)).exp()
    enough = top_p.double() * weights.sum(dim=1, dtype=torch.float64)
    chosen = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    open_rows = torch.arange(len(logits), device=logits.device)
    for draws in uniforms.T:
        reached = weights.cumsum(dim=1, dtype=torch.float64)
        target = draws[open_rows, None] * reached[:, -1:]
        place = torch.searchsorted(reached, target, right=True).clamp(max=logits.shape[1] - 1)
        chosen[open_rows] = place[:, 0]
        value = logits.gather(1, place)
        weights = torch.where((logits > value) | ((logits == value) & (places < place)), weights, 0)
        refused = weights.sum(dim=1, dtype=torch.float64) >= enough
        if not refused.any():
            break
        logits, weights, enough, open_rows = logits[refused], weights[refused], enough[refused], open_rows[refused]
    return chosen


def use_nucleus(llm: Any) -> None:
    """Have a started engine of this process sample with `sample` where rows have a `top_p` below 1 and nothing else is asked.

    Where vLLM has no such place, or the kernel does not do what it should, its own sampler stays and a warning says so.
    """
    try:
        llm.collective_rpc(_install)
    except Exception as error:  # whatever it is, vLLM still samples
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        logger.warning("vLLM keeps its own sampler, which is slow for a large vocabulary and top_p below 1 (%s)", reason)


def _install(worker: Any) -> None:
    if worker.device.type == "cuda":
        _check_kernel(worker.device)
    sampler = worker.model_runner.sampler
    if hasattr(sampler, "topk_topp_sampler"):
        _install_in_module(sampler.topk_topp_sampler)
    else:
        _install_for_flashinfer(sampler, sys.modules[type(sampler).__module__])


def _install_in_module(module: Any) -> None:
    """Put it into vLLM's first model runner, whose sampler has a torch module for this step."""
    own = module.forward
    if own == module.forward_cuda:  # FlashInfer, which does not sort either
        return

    def forward(logits: torch.Tensor, generators: Any, k: Any, p: Any) -> Any:
        if p is None or k is not None or generators:
            return own(logits, generators, k, p)
        return _draw(logits, p), None

    module.forward = forward


def _install_for_flashinfer(sampler: Any, module: Any) -> None:
    """Put it into vLLM's second model runner in FlashInfer's place.

    There the sampler asks itself whether a batch is one for FlashInfer: with top_k or top_p, no greedy row, no seed of a
    request and no processed logprobs.
    """
    if sampler.use_flashinfer:
        return
    from vllm.v1.sample.ops.topk_topp_sampler import random_sample

    masked = module.apply_top_k_top_p

    def flashinfer_sample(logits: torch.Tensor, k: Any, p: Any, generators: Any = None) -> torch.Tensor:
        if p is None or k is not None or generators:
            return random_sample(masked(logits, k, p).softmax(dim=-1, dtype=torch.float32), generators or {})
        return _draw(logits, p)

    module.flashinfer_sample  # noqa: B018 - without it nothing would be called
    module.flashinfer_sample = flashinfer_sample
    sampler.use_flashinfer = True


def _draw(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    return sample(logits, top_p, torch.rand(len(logits), DRAWS, dtype=torch.float64, device=logits.device))


def _check_kernel(device: torch.device) -> None:
    """Compile the kernel and hold it to torch: rounding may move a draw to a neighbour, so nearly all tokens have to agree.

    Raises:
        RuntimeError: it samples other tokens.
    """
    logits = 3 * torch.randn(256, 16384, device=device)
    top_p = torch.linspace(0.01, 1, 256, device=device)
    uniforms = torch.rand(256, DRAWS, dtype=torch.float64, device=device)
    agree = (sample(logits, top_p, uniforms) == sample_in_torch(logits, top_p, uniforms)).float().mean().item()
    if agree < 0.98:
        raise RuntimeError(f"the kernel agrees with torch on {agree:.0%} of tokens")
