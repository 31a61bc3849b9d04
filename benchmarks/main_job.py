"""Time the main job from cold: `python benchmarks/main_job.py [--out FILE]`.

Runs `kedro run --pipeline=lang_inversion --params condition=fr_it` in an empty copy of the project, so that nothing kept by
content helps, and prints seconds a stage, tokens/s in training and generation (generation includes loading the model), rows/s
in scoring and the peak memory. The baseline runs first and is part of the total.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from persona_leakage.run_record import describe_code

PROJECT = Path(__file__).parents[1]


def copy_project(folder: Path) -> None:
    """Copy what a run needs and none of what earlier runs made."""
    for name in ("conf", "src"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "local"))
    shutil.copytree(PROJECT / "data/01_raw", folder / "data/01_raw")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, folder / name)


def measure(folder: Path, condition: str) -> dict[str, Any]:
    """Read one point's times and sizes from its run record and its artifacts."""
    point = f"embedded/lang_inversion/{condition}/seed_42"
    record = json.loads((folder / f"data/08_reporting/{point}/run_record.json").read_text())[-1]
    nodes = {name.rsplit(".", 1)[-1]: value for name, value in record["nodes"].items()}
    (completions,) = (folder / f"data/07_model_output/{point}/completions.jsonl").glob("*/completions.jsonl")
    rows = [json.loads(line) for line in completions.read_text().splitlines()]
    training = json.loads((folder / f"data/06_models/{point}/tune/training_log.json").read_text())
    tokens = sum(row["tokens"] for row in rows)
    return {
        "condition": condition,
        "seconds": {name: value["seconds"] for name, value in nodes.items() if value["seconds"] >= 0.1},
        "training_tokens_per_second": training["final"]["tokens_per_second"] if training else None,
        "generated_tokens": tokens,
        "generation_tokens_per_second": round(tokens / nodes["sample_completions"]["seconds"], 1),
        "scoring_rows_per_second": round(len(rows) / nodes["label_languages"]["seconds"], 1),
        "peak_rss_gib": record["machine"]["peak_rss_gib"],
        "machine": {key: record["machine"][key] for key in ("processor", "cores")},
    }


def main() -> None:
    """Run the job, print the table and write the JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/main_job.json")
    out = arguments.parse_args().out
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        copy_project(folder)
        command = [sys.executable, "-m", "kedro", "run", "--pipeline=lang_inversion", "--params", "condition=fr_it"]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True)
        wall = round(time.perf_counter() - started, 1)
        points = [measure(folder, condition) for condition in ("baseline", "fr_it")]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kedro", "registry", "list"], cwd=PROJECT, check=True, capture_output=True)
    registry = round(time.perf_counter() - started, 2)
    out.parent.mkdir(parents=True, exist_ok=True)
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    result = {"wall_seconds": wall, "registry_list_seconds": registry, "code": code, "points": points}
    out.write_text(json.dumps(result, indent=1) + "\n")
    for point in points:
        print(f"\n{point['condition']}: peak {point['peak_rss_gib']} GiB")
        for name, seconds in point["seconds"].items():
            print(f"  {name:24} {seconds:8.1f} s")
        print(f"  training   {point['training_tokens_per_second'] or '-':>8} tokens/s")
        print(f"  generation {point['generation_tokens_per_second']:>8} tokens/s, model loading included")
        print(f"  scoring    {point['scoring_rows_per_second']:>8} rows/s")
    print(f"\nwhole job {wall} s, kedro registry list {registry} s; written to {out}")


if __name__ == "__main__":
    main()
