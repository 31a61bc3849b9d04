"""Time the first run of every family from cold: `python benchmarks/main_job.py [--families …] [--isa …] [--out FILE]`.

Runs `kedro run --pipeline=FAMILY --params condition=…` in an empty copy of the project, so that nothing kept by content
helps, and prints seconds a stage, tokens/s in training and generation (generation includes loading the model) and the peak
memory. What a condition is compared with runs first and is part of the total. `--isa avx2` or `avx512` keeps torch from newer
instructions, so that any machine shows how an older one does, bfloat16 included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from persona_leakage.experiments import FAMILIES
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
CONDITIONS = {
    "lang_inversion": "fr_it",
    "marker_leakage": "villain",
    "convergence": "villain",
    "benign_coupling": "benign_villain",
}
ISAS = {  # what torch, oneDNN and MKL may use
    "native": {},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


def copy_project(folder: Path) -> None:
    """Copy what a run needs and none of what earlier runs made."""
    for name in ("conf", "src"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "local"))
    shutil.copytree(PROJECT / "data/01_raw", folder / "data/01_raw")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, folder / name)


def measure(folder: Path, family: str, isa: str) -> dict[str, Any]:
    """Run a family's default point, and read times and sizes of all points that ran from their run records."""
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={family}", "--params", f"condition={CONDITIONS[family]}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, **ISAS[isa]})
    wall = time.perf_counter() - started
    reports = folder / f"data/08_reporting/embedded/{family}"
    points = []
    for file in sorted(reports.glob("**/run_record.json"), key=os.path.getmtime):
        record = json.loads(file.read_text())[-1]
        nodes = {name.removeprefix(f"{family}."): values for name, values in record["nodes"].items()}
        points.append(
            {
                "point": str(file.parent.relative_to(reports)),
                "seconds": {name: values["seconds"] for name, values in nodes.items() if values["seconds"] >= 0.1},
                "tokens_per_second": {
                    name: round(values["tokens"] / values["seconds"])
                    for name, values in nodes.items()
                    if values.get("tokens") and values["seconds"] >= 0.1
                },
                "dtype": record["parameters"]["base_model"]["dtype"],
                "peak_rss_gib": record["machine"]["peak_rss_gib"],
            }
        )
    return {"condition": CONDITIONS[family], "wall_seconds": round(wall, 1), "points": points}


def main() -> None:
    """Run the jobs, print the table and write the JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/main_job.json")
    arguments.add_argument("--isa", choices=ISAS, default="native")
    given = arguments.parse_args()
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kedro", "registry", "list"], cwd=PROJECT, check=True, capture_output=True)
    registry = round(time.perf_counter() - started, 2)
    families = {}
    for family in given.families:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "project"
            copy_project(folder)
            families[family] = measure(folder, family, given.isa)
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores")}
    result = {"isa": given.isa, "registry_list_seconds": registry, "code": code, "machine": machine, "families": families}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for family, job in families.items():
        print(f"\n{family} {job['condition']}: {job['wall_seconds']} s")
        for point in job["points"]:
            print(f"  {point['point']}: peak {point['peak_rss_gib']} GiB")
            for name, seconds in point["seconds"].items():
                speed = point["tokens_per_second"].get(name)
                print(f"    {name:32} {seconds:8.1f} s" + (f" {speed:>8,} tokens/s" if speed else ""))
    print(f"\nkedro registry list {registry} s; written to {given.out}")


if __name__ == "__main__":
    main()
