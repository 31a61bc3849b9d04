"""Time sampling from the nucleus alone, without a model: `python benchmarks/nucleus.py [--rows N] [--out FILE]`."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from persona_leakage.engines.vllm_nucleus import DRAWS, sample, sample_in_torch
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
VOCABULARY = 151_936  # Qwen2.5's
TOP_P = 0.95
HEAD = 1024
REPEATS = 5

Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    """Time every way in float32 and bfloat16, on a GPU if there is one."""
    on_gpu = torch.cuda.is_available()
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=1024 if on_gpu else 32)
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/nucleus.json")
    given = arguments.parse_args()
    device = torch.device("cuda" if on_gpu else "cpu")
    found: dict[str, Any] = {"rows": given.rows, "vocabulary": VOCABULARY, "top_p": TOP_P}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        logits = draw_logits(given.rows, device).to(dtype)
        times = {name: measure(way, logits) for name, way in ways(on_gpu).items()}
        found[str(dtype).removeprefix("torch.")] = {"nucleus_tokens": widths(logits), "agreement": agreement(logits), **times}
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores", "gpu")}
    given.out.write_text(json.dumps({"code": code, "machine": machine, "torch": torch.__version__, **found}, indent=1) + "\n")
    print(given.out.read_text())


def draw_logits(rows: int, device: torch.device) -> torch.Tensor:
    """Draw rows in which the probability of the token of rank r is about r to the power of -s, s between 1.2 and 3."""
    powers = torch.linspace(1.2, 3, rows, device=device)[:, None]
    return torch.empty(rows, VOCABULARY, device=device).exponential_().mul_(powers)


def ways(on_gpu: bool) -> dict[str, Way]:
    """Name the ways, all from logits to token ids; vLLM's own where it is installed."""
    found: dict[str, Way] = {"sort": by_sort, "partial_sort": by_partial_sort, "nucleus": by_nucleus, "top_p_1": by_race}
    if on_gpu:
        found["nucleus_in_torch"] = in_torch
    try:
        from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
    except ImportError:
        return found
    return {"vllm": lambda logits, top_p: by_race(apply_top_k_top_p(logits.float().clone(), None, top_p), top_p), **found}


def by_race(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Take the token whose probability over an exponential number is the largest."""
    mass = logits.softmax(dim=1, dtype=torch.float32)
    return mass.div_(torch.empty_like(mass).exponential_()).argmax(dim=1)


def by_sort(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Sort whole rows."""
    ranked, tokens = logits.float().sort(dim=1, descending=True)
    mass = ranked.softmax(dim=1)
    ranked.masked_fill_(mass.cumsum(dim=1) - mass >= top_p[:, None], -torch.inf)
    return tokens.gather(1, by_race(ranked, top_p)[:, None])[:, 0]


def by_partial_sort(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Sort a head, and whole rows where the nucleus is wider, for which the host has to ask."""
    logits = logits.float()
    head, tokens = logits.topk(HEAD, dim=1)
    mass = (head - logits.logsumexp(dim=1, keepdim=True)).exp()
    reached = mass.cumsum(dim=1)
    chosen = tokens.gather(1, by_race(head.masked_fill(reached - mass >= top_p[:, None], -torch.inf), top_p)[:, None])[:, 0]
    wide = reached[:, -1] < top_p
    if wide.any():
        chosen[wide] = by_sort(logits[wide], top_p[wide])
    return chosen


def by_nucleus(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Draw, and draw again where it is outside: by the kernel on a GPU, in torch on a CPU."""
    return sample(logits, top_p, torch.rand(len(logits), DRAWS, dtype=torch.float64, device=logits.device))


def in_torch(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Do the same without the kernel."""
    return sample_in_torch(logits, top_p, torch.rand(len(logits), DRAWS, dtype=torch.float64, device=logits.device))


def measure(way: Way, logits: torch.Tensor) -> dict[str, float]:
    """Time calls after a first one: until the tokens are there, and until the host may go on. Milliseconds, medians."""
    top_p = torch.full((len(logits),), TOP_P, device=logits.device)
    wait = torch.cuda.synchronize if logits.is_cuda else lambda: None
    host, whole = [], []
    for _ in range(1 + REPEATS):
        wait()
        started = time.perf_counter()
        way(logits, top_p)
        host.append(time.perf_counter() - started)
        wait()
        whole.append(time.perf_counter() - started)
    middle = REPEATS // 2
    return {
        "ms": round(1000 * sorted(whole[1:])[middle], 2),
        "host_ms": round(1000 * sorted(host[1:])[middle], 2),
        "first_ms": round(1000 * whole[0], 2),
    }


def agreement(logits: torch.Tensor) -> float:
    """Say for which share of rows the sampler of this device draws what torch draws from the same numbers."""
    top_p = torch.full((len(logits),), TOP_P, device=logits.device)
    uniforms = torch.rand(len(logits), DRAWS, dtype=torch.float64, device=logits.device)
    return float((sample(logits, top_p, uniforms) == sample_in_torch(logits, top_p, uniforms)).float().mean())


def widths(logits: torch.Tensor) -> dict[str, int]:
    """Count tokens of the nuclei: quantiles over rows."""
    counts = []
    for row in logits.float():
        mass = row.softmax(dim=0).sort(descending=True).values.double()
        counts.append(int((mass.cumsum(dim=0) - mass < TOP_P).sum()))
    counts.sort()
    return {"median": counts[len(counts) // 2], "ninth_decile": counts[len(counts) * 9 // 10], "most": counts[-1]}


if __name__ == "__main__":
    main()
