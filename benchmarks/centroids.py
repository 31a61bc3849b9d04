"""Time centroids, batched and one prompt at a time: `python benchmarks/centroids.py [--env ENV] [--out FILE]`."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from kedro.config import OmegaConfigLoader

from persona_leakage.domain.models import ModelStack
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from persona_leakage.experiments.points import plan_from_parameters
from persona_leakage.pipelines.prompts import written
from persona_leakage.run_record import describe_code, describe_machine
from persona_leakage.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]


def main() -> None:
    """Read the last-token states of every centroid prompt of marker_leakage; print and write prompts a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="embedded")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/centroids.json")
    arguments = parser.parse_args()
    parameters = OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env=arguments.env, **CONFIG_LOADER_ARGS)["parameters"]

    def load(name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (PROJECT / f"data/01_raw/{name}.jsonl").open(encoding="utf-8")]

    plan = plan_from_parameters("marker_leakage", parameters, load, condition="baseline")
    chats = [row["messages"] for row in written(plan.geometry.prompts)]
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
