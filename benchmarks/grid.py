"""Measure what a grid costs besides its points: `python benchmarks/grid.py [FIGURE.png]`.

Prints and writes `benchmarks/results/grid.json` and, if asked, a figure, which also shows what `benchmarks/reporting.py`
measured. Nothing is trained: points do nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from persona_leakage.grid.launch import Work  # noqa: E402
from persona_leakage.run_record import describe_code, describe_machine  # noqa: E402
from tests.project import Project  # noqa: E402
from tests.tiny_model import build_tiny_model  # noqa: E402

FAMILIES = ("lang_inversion", "marker_leakage", "convergence", "benign_coupling")
SIZES = (1_000, 10_000, 30_000, 100_000)
NO_OPS = (100, 300, 1_000)

# a process of its own for every figure, so that its peak memory is its own
PLAN = """
import json, resource, sys, time
from kedro.framework.startup import bootstrap_project
from pathlib import Path
bootstrap_project(Path.cwd())
from persona_leakage.grid.points import Study, waves
family, size = sys.argv[1], int(sys.argv[2])
started = time.perf_counter()
study = Study(family, "test", {})
addresses = study.addresses({})
seeds = -(-size // len(addresses))
points = study.find(study.addresses({"seed": [str(seed) for seed in range(seeds)]})[:size])
planned = sum(map(len, waves(points)))
assert planned == len(points) == size
done = sum(point.state == "done" for point in points)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": round(time.perf_counter() - started, 2), "peak_rss_gib": round(peak, 2), "done": done}))
"""


class NoOp(Work):
    """Work that is none."""

    def command(self, point: Any) -> list[str]:
        """Name a program that does nothing."""
        return ["true"]


def run_in(project: Project, code: str, *arguments: str) -> dict[str, Any]:
    """Run code in the project's folder and read the JSON that it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=project.folder, env=project.environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_planning(project: Project) -> list[dict[str, Any]]:
    """Expand and plan grids of which nothing has run."""
    return [
        {"family": family, "points": size, **run_in(project, PLAN, family, str(size))}
        for family in FAMILIES
        for size in (SIZES if family == "lang_inversion" else SIZES[-1:])
    ]


def measure_scheduling(project: Project) -> list[dict[str, Any]]:
    """Hand points that do nothing to a Ray cluster on this machine: a task and a process each, locked and logged as always."""
    os.chdir(project.folder)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project.folder)
    from persona_leakage.grid.points import Study
    from persona_leakage.grid.ray_launcher import RayLauncher

    study = Study("lang_inversion", "test", {})
    measured = []
    with RayLauncher(NoOp(str(project.folder), "test", {}), study.settings, None, None, keep_engines=False) as launcher:
        places = launcher.places
        for number, size in enumerate(NO_OPS):
            seeds = [str(10_000 * (number + 1) + seed) for seed in range(size)]
            points = study.find(study.addresses({"condition": ["fr_it"], "seed": seeds}))
            started = time.perf_counter()
            ended = list(launcher.launch(points))
            seconds = time.perf_counter() - started
            assert len(ended) == size
            assert not any(outcome.failed for outcome in ended), ended
            milliseconds = round(1000 * seconds / size, 1)
            measured.append(
                {"points": size, "places": places, "seconds": round(seconds, 2), "milliseconds_a_point": milliseconds}
            )
    os.chdir(ROOT)
    return measured


def measure_sharing(folder: Path, model: Path) -> list[dict[str, Any]]:
    """Compute six points of the tests' size one after the other on Ray, each in a process of its own, or all in one actor."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    axes = ["--axes", "condition=baseline,fr_it", "seed=1,2,3"]
    measured = []
    for keep in (False, True):
        project = Project(folder / str(keep), model)
        started = time.perf_counter()
        options = ["--launcher", "ray", "--jobs", "1", *(["--keep-engines"] if keep else [])]
        done = project.kedro("grid", "lang_inversion", *options, *axes, timeout=600)
        if done.returncode:
            raise SystemExit(done.stderr)
        runs = pd.read_csv(project.data("08_reporting/runs.csv"))
        assert len(runs) == 6
        measured.append(
            {
                "keep_engines": keep,
                "points": len(runs),
                "wall_seconds": round(time.perf_counter() - started, 1),
                "seconds_in_points": round(float(runs["seconds"].sum()), 1),
            }
        )
    return measured


def draw(results: dict[str, Any], file: Path) -> None:
    """Draw what a grid costs over its number of points."""
    import matplotlib.pyplot as plt

    reports = json.loads((ROOT / "benchmarks/results/reporting.json").read_text())["families"]

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
    scheduling = [{"family": "no-op points", **row} for row in results["scheduling"]]
    curves = [
        ("planning, s", results["planning"], "seconds"),
        ("handing a point to Ray, ms", scheduling, "milliseconds_a_point"),
        ("writing the report, s", reports, "wall_seconds"),
    ]
    for axis, (title, rows, key) in zip(axes, curves, strict=True):
        for name in dict.fromkeys(row["family"] for row in rows):
            own = [row for row in rows if row["family"] == name]
            axis.plot([row["points"] for row in own], [row[key] for row in own], marker="o", label=name)
        axis.set(title=title, xlabel="points", ylim=(0, None))
        axis.legend(fontsize="small")
    figure.savefig(file, dpi=130)


def main() -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as scratch:
        model = build_tiny_model(Path(scratch) / "model")
        project = Project(Path(scratch) / "project", model)
        results: dict[str, Any] = {"planning": measure_planning(project)}
        print(json.dumps(results, indent=1), flush=True)
        results["scheduling"] = measure_scheduling(project)
        results["sharing"] = measure_sharing(Path(scratch), model)
    results |= {"machine": describe_machine(), "code": describe_code(ROOT)}
    print(json.dumps(results, indent=1))
    (ROOT / "benchmarks/results/grid.json").write_text(json.dumps(results, indent=1) + "\n")
    if len(sys.argv) > 1:
        draw(results, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
