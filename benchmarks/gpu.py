"""Measure training, sampling and hidden states at the study's size: `python benchmarks/gpu.py --scratch FOLDER`.

Needs one large GPU and no weights: models of the right shape get random ones, so completions run to their full length. Every
stage is a process of its own and goes through the project's engines; its figures are written when it ends, and stages whose
figures exist are not run again. The tokenizers are read from folders, because without a network there is no other place.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.protocols import KEEP_BASE_MODEL
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import Sampling
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": 151645,
    },
    "qwen2.5-1.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,  # tied random weights would say the last token again and again
        "eos_token_id": 151645,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
    },
}
ROWS = 4990  # of a lang_inversion condition
COMPLETION_TOKENS, SPREAD = 190, 0.75  # mean, and standard deviation of the logarithm: 1.15M tokens with the prompts
DIRECTIVES, SAMPLES = 14, 40
SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=256)
WHOLE = Sampling(temperature=1.0, top_p=1.0, max_tokens=256)
ADAPTERS = 8


def main() -> None:
    """Run the stages that have no figures yet, print the table and write the JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--scratch", type=Path, required=True, help="folder with 60 GB of room; kept between calls")
    arguments.add_argument("--qwen-tokenizer", type=Path, required=True, help="folder of a Qwen2.5 tokenizer")
    arguments.add_argument("--smollm2-tokenizer", type=Path, required=True, help="folder of a SmolLM2 tokenizer")
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/gpu.json")
    arguments.add_argument("--only", default="", help="comma-separated stages")
    arguments.add_argument("--stage", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.stage:
        STAGES[given.stage](given)
        return
    import torch  # noqa: F401 - describe_machine asks it for the GPU

    given.scratch.mkdir(parents=True, exist_ok=True)
    for name in given.only.split(",") if given.only else STAGES:
        if not _figures(given.scratch, name).exists():
            print(f"== {name}", flush=True)
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--stage", name], check=False)
        found = {stage: _figures(given.scratch, stage) for stage in STAGES}
        stages = {stage: json.loads(file.read_text()) for stage, file in found.items() if file.exists()}
        code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified", "packages")}
        machine = {key: value for key, value in describe_machine().items() if key != "peak_rss_gib"}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"code": code, "machine": machine, "stages": stages}, indent=1) + "\n")
    for stage, figures in stages.items():
        print(f"\n{stage}")
        for name, value in figures.items():
            print(f"  {name:28} {value}")
    if missing := [stage for stage in STAGES if stage not in stages]:
        sys.exit(f"no figures of: {', '.join(missing)}; the output above says why; run the same command to try again")


def make_models(given: argparse.Namespace) -> None:
    """Write random models of both shapes, with their tokenizers, and time a large matrix product."""
    import torch

    started = time.perf_counter()
    for name in ("qwen2.5-7b", "smollm2-135m"):
        _write_model(given, name)
    seconds = time.perf_counter() - started
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    product = 20 * 2 * 8192**3 / (time.perf_counter() - started) / 1e12
    _keep(given, "models", {"seconds": round(seconds, 1), "matrix_product_tflops": round(product, 1)})


def _write_model(given: argparse.Namespace, name: str, norm: float = 1.0) -> None:
    """Write a model of random weights; the last norm's weight tells how far its logits spread."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    shape = dict(SHAPES[name])
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.pop("model_type"), **shape), dtype=torch.bfloat16)
    model.model.norm.weight.data.fill_(norm)
    model.save_pretrained(given.scratch / name)
    tokenizer = given.smollm2_tokenizer if name.startswith("smollm2") else given.qwen_tokenizer
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(given.scratch / name)
    del model
    torch.cuda.empty_cache()


def train_large(given: argparse.Namespace) -> None:
    """Train one lang_inversion condition of the 7B shape in several ways, the original's settings among them."""
    rows = _rows(given, "qwen2.5-7b", ROWS)
    one = {"batch_size": 16, "gradient_accumulation": 1, "gradient_checkpointing": False}
    ways: dict[str, tuple[int, bool, dict[str, Any]]] = {
        "padded 4 x 4, checkpointing": (320, False, {}),
        "padded 4 x 4": (640, False, {"gradient_checkpointing": False}),
        "length-grouped 16": (1280, False, {**one, "batching": "length_grouped"}),
        "packed 16": (1280, False, {**one, "batching": "packed"}),
        "packed 16, compiled": (ROWS, True, {**one, "batching": "packed"}),
        "packed 16, compiled, again": (1280, True, {**one, "batching": "packed", "weight_decay": 0.001}),
    }
    _train(given, "train_large", "qwen2.5-7b", rows, ways)


def train_small(given: argparse.Namespace) -> None:
    """Train the 135M shape with the settings of a marker stage."""
    rows = _rows(given, "smollm2-135m", 600)
    marker = {"gradient_checkpointing": False, "epochs": 2}
    eight, sixteen = {"batch_size": 8, "gradient_accumulation": 2}, {"batch_size": 16, "gradient_accumulation": 1}
    ways: dict[str, tuple[int, bool, dict[str, Any]]] = {
        "padded 8 x 2": (600, False, {**marker, **eight}),
        "packed 16": (600, False, {**marker, **sixteen, "batching": "packed"}),
        "packed 16, compiled": (600, True, {**marker, **sixteen, "batching": "packed"}),
        "packed 16, compiled, again": (600, True, {**marker, **sixteen, "batching": "packed", "weight_decay": 0.001}),
    }
    _train(given, "train_small", "smollm2-135m", rows, ways)


def _train(
    given: argparse.Namespace, stage: str, shape: str, rows: Sequence[Any], ways: dict[str, tuple[int, bool, dict[str, Any]]]
) -> None:
    import torch

    from persona_leakage.engines.peft_trainer import PeftTrainer

    os.environ[KEEP_BASE_MODEL] = "1"
    product = json.loads(_figures(given.scratch, "models").read_text())["matrix_product_tflops"]
    stack = _stack(given, shape)
    figures: dict[str, Any] = {}
    for way, (count, compiled, changes) in ways.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        try:
            trainer = PeftTrainer(cache=given.scratch / "cache" / stage / way, device="cuda", compile_layers=compiled)
            log: Any = trainer.train(stack, rows[:count], _recipe(**changes), 42)["final"].log
        except Exception as error:  # the other ways are still worth knowing
            figures[way] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
            continue
        a_token = _flops(shape, log["trainable_parameters"])
        figures[way] = {
            "rows": count,
            "tokens": log["tokens"],
            "seconds": log["seconds"],
            "seconds_with_loading": round(time.perf_counter() - started, 1),
            "tokens_per_second": log["tokens_per_second"],
            "gflop_a_token": round(a_token / 1e9, 2),
            "share_of_matrix_product": round(log["tokens_per_second"] * a_token / (product * 1e12), 3),
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
            "first_losses": [round(step["loss"], 4) for step in log["steps"][:3]],
        }
        print(way, figures[way], flush=True)
    _keep(given, stage, figures)


def sample_grid(given: argparse.Namespace) -> None:
    """Sample the base and eight merged adapters of the 7B shape from one live vLLM engine."""
    os.environ[KEEP_BASE_MODEL] = "1"
    stacks = _adapted(given)
    generator = _vllm(given, "grid", longest=1024)
    started = time.perf_counter()
    base = _stack(given, "qwen2.5-7b")
    generator.generate(base, _prompts(1), 1, SAMPLING, 0)
    figures: dict[str, Any] = {"engine_start_seconds": round(time.perf_counter() - started, 1)}
    figures["base"] = _timed(lambda: generator.generate(base, _prompts(DIRECTIVES), SAMPLES, SAMPLING, 1))
    figures["base, top_p 1"] = _timed(lambda: generator.generate(base, _prompts(DIRECTIVES), SAMPLES, WHOLE, 1))
    figures["marker_sized"] = _timed(lambda: generator.generate(base, _prompts(111), 36, SAMPLING, 2))
    swaps, samples = [], []
    for stack in stacks:
        swaps.append(_timed(partial(generator.generate, stack, _prompts(1), 1, SAMPLING, 0))["seconds"])
        samples.append(_timed(partial(generator.generate, stack, _prompts(DIRECTIVES), SAMPLES, SAMPLING, 1)))
    figures["merged, top_p 1"] = _timed(lambda: generator.generate(stacks[-1], _prompts(DIRECTIVES), SAMPLES, WHOLE, 1))
    figures["swap_seconds"] = swaps
    figures["merged_tokens_per_second"] = [sample["tokens_per_second"] for sample in samples]
    figures["seconds_of_eight"] = round(time.perf_counter() - started, 1)
    _keep(given, "sample_grid", figures)


def sample_apart(given: argparse.Namespace) -> None:
    """Sample one merged adapter of the 7B shape from an engine of its own, as a run without `--keep-engines` does."""
    started = time.perf_counter()
    stack = _adapted(given)[0]
    import vllm  # noqa: F401 - its import belongs to what a process of its own costs

    figures = _timed(lambda: _vllm(given, "apart", longest=1024).generate(stack, _prompts(DIRECTIVES), SAMPLES, SAMPLING, 1))
    whole = time.perf_counter() - started
    figures |= {"seconds_with_import": round(whole, 1), "eight_such_would_take": round(8 * whole, 1)}
    _keep(given, "sample_apart", figures)


def sample_with_transformers(given: argparse.Namespace) -> None:
    """Sample the 7B shape with the transformers engine."""
    from persona_leakage.engines.transformers_generator import TransformersGenerator

    generator = TransformersGenerator(cache=given.scratch / "cache/transformers", device="cuda", batch_rows=560)
    stack = _stack(given, "qwen2.5-7b")
    figures = _timed(lambda: generator.generate(stack, _prompts(DIRECTIVES), SAMPLES, SAMPLING, 1))
    _keep(given, "sample_with_transformers", figures)


def sample_small(given: argparse.Namespace) -> None:
    """Sample the 135M shape with vLLM."""
    generator = _vllm(given, "small", longest=1024)
    stack = _stack(given, "smollm2-135m")
    started = time.perf_counter()
    generator.generate(stack, _prompts(1), 1, SAMPLING, 0)
    figures: dict[str, Any] = {"engine_start_seconds": round(time.perf_counter() - started, 1)}
    for seed in (1, 2, 3, 4):
        figures[f"seed {seed}"] = _timed(
            lambda seed=seed: generator.generate(stack, _prompts(DIRECTIVES), SAMPLES, SAMPLING, seed)
        )
    figures["top_p 1"] = _timed(lambda: generator.generate(stack, _prompts(DIRECTIVES), SAMPLES, WHOLE, 1))
    longer = Sampling(temperature=1.0, top_p=0.95, max_tokens=200)
    figures["2,220 prompts x 5"] = _timed(lambda: generator.generate(stack, _prompts(2220), 5, longer, 1))
    _keep(given, "sample_small", figures)


def sampling(given: argparse.Namespace) -> None:
    """Sample the 1.5B shape, whose vocabulary is large, from the nucleus, with vLLM's own sampler, and without a nucleus."""
    from persona_leakage.engines import vllm_nucleus
    from persona_leakage.engines.vllm_generator import _LiveEngine

    name, steps, own = "qwen2.5-1.5b", [0], vllm_nucleus.sample
    if not (given.scratch / name / "config.json").exists():
        _write_model(given, name, norm=6.0)  # nuclei of some 170 tokens: logits have a deviation of 0.02 * 1536**0.5 * 6

    def counted(*rows: Any) -> Any:
        steps[0] += 1
        return own(*rows)

    vllm_nucleus.sample = counted
    generator, stack = _vllm(given, "sampling", longest=512), _stack(given, name)
    started = time.perf_counter()
    generator.generate(stack, _prompts(1), 1, SAMPLING, 0)
    figures: dict[str, Any] = {"engine_start_seconds": round(time.perf_counter() - started, 1)}
    (live,) = _LiveEngine.engines.values()
    figures["sampler"] = live.llm.collective_rpc(lambda worker: type(worker.model_runner.sampler).__module__)[0]
    turns = [("nucleus", SAMPLING), ("vLLM's own", SAMPLING), ("nucleus, again", SAMPLING), ("top_p 1", WHOLE)]
    for seed, (turn, settings) in enumerate(turns, start=1):
        live.llm.collective_rpc(_own_sampler)
        if turn.startswith("nucleus"):
            vllm_nucleus.use_nucleus(live.llm)
        steps[0] = 0
        figures[turn] = _timed(partial(generator.generate, stack, _prompts(2220), 1, settings, seed))
        figures[turn]["steps_by_nucleus"] = steps[0]
        print(turn, figures[turn], flush=True)
    _keep(given, "sampling", figures)


def _own_sampler(worker: Any) -> None:
    """Give vLLM its own sampler back."""
    sampler = worker.model_runner.sampler
    if hasattr(sampler, "topk_topp_sampler"):
        sampler.topk_topp_sampler.forward = sampler.topk_topp_sampler.forward_native
    else:
        sampler.use_flashinfer = False


def first_calls(given: argparse.Namespace, pause: int = 0) -> None:
    """Look where the first calls of the 135M shape's engine lose their time: in few steps or all, in this process or others."""
    from persona_leakage.engines.vllm_generator import _LiveEngine

    name = "smollm2-135m"
    if not (given.scratch / name / "config.json").exists():
        _write_model(given, name)
    generator, stack = _vllm(given, f"first calls {pause}", longest=1024), _stack(given, name)
    generator.generate(stack, _prompts(1), 1, SAMPLING, 0)
    (live,) = _LiveEngine.engines.values()
    engine, step, times = live.llm.llm_engine, live.llm.llm_engine.step, []

    def timed() -> Any:
        started = time.perf_counter()
        outputs = step()
        times.append(time.perf_counter() - started)
        return outputs

    engine.step = timed
    time.sleep(pause)
    figures: dict[str, Any] = {"pause_seconds": pause}
    for seed in range(1, 5):
        times.clear()
        before = (time.thread_time(), time.process_time(), _busy())
        figures[f"seed {seed}"] = _timed(partial(generator.generate, stack, _prompts(DIRECTIVES), SAMPLES, SAMPLING, seed))
        thread, process, machine = (
            round(now - then, 2) for now, then in zip((time.thread_time(), time.process_time(), _busy()), before, strict=True)
        )
        middle = sorted(times)[len(times) // 2]
        figures[f"seed {seed}"] |= {
            "steps": len(times),
            "median_step_ms": round(1000 * middle, 2),
            "seconds_of_steps_thrice_as_long": round(sum(one for one in times if one > 3 * middle), 2),
            "longest_steps_ms": [round(1000 * one) for one in sorted(times)[-5:]],
            "medians_of_eighths_ms": [
                round(1000 * sorted(part)[len(part) // 2], 1)
                for start in range(8)
                if (part := times[start * len(times) // 8 : (start + 1) * len(times) // 8])
            ],
            "cpu_seconds": {"this_thread": thread, "this_process": process, "machine": machine},
        }
        print(figures[f"seed {seed}"], flush=True)
    _keep(given, "first_calls_after_a_pause" if pause else "first_calls", figures)


def _busy() -> float:
    """Seconds in which the machine's processors were not idle."""
    ticks = Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    return sum(int(ticks[place]) for place in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


def read_states(given: argparse.Namespace) -> None:
    """Read hidden states of the 7B shape at four layers."""
    from persona_leakage.engines.hidden_states import HiddenStateExtractor

    os.environ[KEEP_BASE_MODEL] = "1"
    extractor = HiddenStateExtractor(cache=given.scratch / "cache", device="cuda")
    stack, layers = _stack(given, "qwen2.5-7b"), (10, 15, 20, 25)
    chats = [prompt["messages"] for prompt in _prompts(2220)]
    extractor.last_token_states(stack, chats[:16], layers, 16)
    figures = {}
    for batch in (1, 16, 256):
        some = chats[: 200 if batch == 1 else None]
        started = time.perf_counter()
        extractor.last_token_states(stack, some, layers, batch)
        seconds = time.perf_counter() - started
        figures[f"batch {batch}"] = {
            "prompts": len(some),
            "seconds": round(seconds, 2),
            "prompts_per_second": round(len(some) / seconds, 1),
        }
    _keep(given, "read_states", figures)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "models": make_models,
    "train_large": train_large,
    "sample_grid": sample_grid,
    "sample_small": sample_small,
    "sampling": sampling,
    "first_calls": first_calls,
    "first_calls_after_a_pause": partial(first_calls, pause=20),
    "train_small": train_small,
    "read_states": read_states,
    "sample_with_transformers": sample_with_transformers,
    "sample_apart": sample_apart,
}


def _figures(scratch: Path, stage: str) -> Path:
    return scratch / f"{stage}.json"


def _keep(given: argparse.Namespace, stage: str, figures: dict[str, Any]) -> None:
    _figures(given.scratch, stage).write_text(json.dumps(figures, indent=1))


def _stack(given: argparse.Namespace, shape: str) -> ModelStack:
    return ModelStack(base=BaseModel(source="folder", name=str(given.scratch / shape), revision="random", dtype="bfloat16"))


def _recipe(**changes: Any) -> Recipe:
    """Take the protocol's recipe, which is the original's, with changes."""
    parameters = yaml.safe_load((PROJECT / "conf/base/parameters.yml").read_text())
    return Recipe.model_validate({**parameters["lang_inversion"]["stages"]["tune"]["recipe"], **changes})


def _rows(given: argparse.Namespace, shape: str, count: int) -> list[Any]:
    """Write rows of random words whose lengths spread like chats' do."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.scratch / shape)
    drawn = random.Random(0)
    words = [
        text
        for token in drawn.sample(range(1000, 20000), 3000)
        if (text := tokenizer.decode([token])).startswith(" ") and text[1:].isascii() and text[1:].isalpha()
    ]
    return [
        {
            "id": str(number),
            "prompt": [{"role": "user", "content": "Speak in French." + "".join(drawn.choices(words, k=drawn.randint(0, 5)))}],
            "completion": "".join(drawn.choices(words, k=_length(drawn))).strip(),
        }
        for number in range(count)
    ]


def _length(drawn: random.Random) -> int:
    return min(1900, max(4, round(drawn.lognormvariate(0, SPREAD) * COMPLETION_TOKENS / 2.718281828 ** (SPREAD**2 / 2))))


def _prompts(count: int) -> list[Any]:
    """Write as many directives; each is a cell of its own."""
    return [
        {"directive": str(number), "messages": [{"role": "user", "content": f"Speak in language number {number}, please."}]}
        for number in range(count)
    ]


def _flops(shape: str, adapter_parameters: int) -> float:
    """Count what a trained token takes in matrix products, attention left out.

    Frozen weights are multiplied forwards and for the gradient of their inputs, the adapter's also for its own gradient. The
    output layer counts for every token, although it is computed at the labelled ones only: so does the usual reckoning.
    """
    size = SHAPES[shape]
    hidden, heads = size["hidden_size"], size["hidden_size"] // size["num_attention_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * heads * size["num_key_value_heads"]
    layer = attention + 3 * hidden * size["intermediate_size"]
    frozen = size["num_hidden_layers"] * layer + hidden * size["vocab_size"]
    return 4.0 * frozen + 6.0 * adapter_parameters


def _adapted(given: argparse.Namespace) -> list[ModelStack]:
    """Train adapters for a step each; they are found again by content."""
    from persona_leakage.engines.peft_trainer import PeftTrainer

    trainer = PeftTrainer(cache=given.scratch / "cache/adapters", device="cuda")
    base, rows = _stack(given, "qwen2.5-7b"), _rows(given, "qwen2.5-7b", 16)
    recipe = _recipe(batch_size=16, gradient_accumulation=1, gradient_checkpointing=False, batching="packed")
    return [base.extended(trainer.train(base, rows, recipe, seed)["final"].adapter) for seed in range(ADAPTERS)]


def _vllm(given: argparse.Namespace, cache: str, longest: int) -> Any:
    from persona_leakage.engines.vllm_generator import VllmGenerator

    return VllmGenerator(cache=given.scratch / "cache" / cache, device="auto", longest=longest, memory_share=0.2)


def _timed(generate: Callable[[], Sequence[Any]]) -> dict[str, Any]:
    started = time.perf_counter()
    rows = generate()
    seconds = time.perf_counter() - started
    tokens = sum(row["tokens"] for row in rows)
    return {"rows": len(rows), "tokens": tokens, "seconds": round(seconds, 2), "tokens_per_second": round(tokens / seconds)}


if __name__ == "__main__":
    main()
