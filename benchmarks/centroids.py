"""Time centroids, batched and one prompt at a time: `python benchmarks/centroids.py [--env ENV] [--out FILE]`."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from persona_leakage.domain.models import ModelStack
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.plans import make_plan  # noqa: E402


def main() -> None:
    """Read the last-token states of every centroid prompt of marker_leakage; print and write prompts a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="embedded")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/centroids.json")
    arguments = parser.parse_args()
    plan = make_plan("marker_leakage", "baseline", env=arguments.env)
    chats = [row["messages"] for row in plan.geometry.prompts.prompts()]
    stack, layers = ModelStack(base=plan.base_model), plan.geometry.layers
    extractor = HiddenStateExtractor(cache=PROJECT / "data/cache", device="auto")
    extractor.last_token_states(stack, chats[:1], layers, 1)  # converts the model and starts the device
    runs, states = [], {}
    for batch_size in (plan.geometry.batch_size, 1):
        started = time.perf_counter()
        states[batch_size] = extractor.last_token_states(stack, chats, layers, batch_size)
        seconds = time.perf_counter() - started
        measured = {"seconds": round(seconds, 2), "prompts_per_second": round(len(chats) / seconds, 1)}
        runs.append({"batch_size": batch_size, "prompts": len(chats), **measured})
        print(runs[-1])
    batched, single = states.values()
    nearest = min(
        float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
        for layer in layers
        for one, other in zip(batched[layer], single[layer], strict=True)
    )
    print({"smallest cosine of a vector with itself at the other batch size": nearest})
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores", "gpu")}
    result = {"env": arguments.env, "code": code, "machine": machine, "runs": runs, "smallest_cosine_to_itself": nearest}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
