"""Time each family's report over many planted points: `python benchmarks/reporting.py [--points N …] [--families …]`.

Points are the conditions of the default environment (and its checkpoints) times as many seeds as make up the number. Their
tables have the rows, columns and plans of real ones, with random counts, texts and cosines. Timed is a whole
`kedro run --tags=reporting`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from main_job import copy_project

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.directives import Directives
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.family import FamilySettings, plan_point, read_variants
from persona_leakage.pipelines.geometry.nodes import compare_centroids
from persona_leakage.pipelines.scoring.by_question import count_firings, count_labels
from persona_leakage.pipelines.scoring.discriminator import COLUMNS as DISCRIMINATION_COLUMNS
from persona_leakage.pipelines.scoring.markers import TEXT_COLUMNS, rate_firings
from persona_leakage.pipelines.scoring.nodes import rate_cells
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.plans import bundled_roster, load_parameters  # noqa: E402

_COMPLETIONS = 30  # a row of rates


def points(settings: FamilySettings, number: int) -> Iterator[dict[str, Any]]:
    """List points seed by seed, up to a number."""
    every = (
        {"condition": name, "seed": seed, "checkpoint": epoch}
        for seed in count(42)
        for name in settings.conditions
        for epoch in settings.epochs or (None,)
    )
    return islice(every, number)


def tables(plan: Plan, random: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Plant what the reports gather of a point."""
    point = plan.columns
    languages = isinstance(plan.evaluation.prompts, Directives)
    rates = rate_cells([], [], plan) if languages else rate_firings([], plan)
    hits = random.binomial(_COMPLETIONS, random.random(len(rates)) ** 3)
    rates[list(RATE_COLUMNS)] = [_PROPORTIONS[int(one)] for one in hits]
    prompts = plan.geometry.prompts
    groups = tuple(dict.fromkeys(row[prompts.group_key] for row in prompts.prompts()))
    layers = {layer: random.normal(size=(len(groups), 16)) for layer in plan.geometry.layers}
    answered = [
        {**row, "fired": hit < 0.2, "label": list(plan.scoring.languages)[int(7 * hit)] if languages else "", "finish": "stop"}
        for row in plan.evaluation.prompts.prompts()
        for hit in random.random(plan.evaluation.samples)
    ]
    counted = count_labels(answered, plan) if languages else count_firings(answered, plan)
    planted = {
        "cell_rates": rates,
        "question_counts": counted,
        "cosines": compare_centroids(Centroids(groups, layers, "planted"), plan),
    }
    if not languages:
        personas = list(dict.fromkeys(rates["persona"]))
        numbers = (_COMPLETIONS, random.normal(50, 5, len(personas)), random.random(len(personas)), 0, 1)
        planted["text_stats"] = pd.DataFrame(
            {**point, "persona": personas, **dict(zip(TEXT_COLUMNS[1:], numbers, strict=True))}
        )
    if not languages and plan.scoring.discriminator is not None:
        rows = [("classifier", share, *_PROPORTIONS[17], 0.5, 0.4, 0, "fail") for share in (1.0, 0.5)]
        planted["discriminations"] = pd.DataFrame(rows, columns=list(DISCRIMINATION_COLUMNS)).assign(**point)[
            [*point, *DISCRIMINATION_COLUMNS]
        ]
    return planted


_PROPORTIONS = [tuple(proportion(hits, _COMPLETIONS)) for hits in range(_COMPLETIONS + 1)]


def measure(folder: Path, family: str, number: int) -> dict[str, Any]:
    """Plant a family's points in a copy of the project, report on them, and read the times from the run record."""
    parameters, random = load_parameters("embedded"), np.random.default_rng(0)
    model, variants, roster = parameters["model"], read_variants(family_of(family), parameters), bundled_roster(family)
    chosen = list(points(variants.of(model).settings, number))
    rows, size = 0, 0
    for point in chosen:
        plan = plan_point(model, variants=variants, roster=roster, **point)
        epoch = "" if plan.address.checkpoint is None else f"/epoch_{plan.address.checkpoint:02d}"
        place = f"embedded/{family}/{model}/{point['condition']}/seed_{point['seed']}{epoch}"
        for name, table in tables(plan, random).items():
            file = folder / f"data/07_model_output/{place}/{name}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(file, index=False)
            rows, size = rows + len(table), size + file.stat().st_size
    file = folder / f"data/02_intermediate/{place}/plan.json"
    file.parent.mkdir(parents=True)
    file.write_text(plan.model_dump_json())
    said = ",".join(f"{key}={value}" for key, value in plan.address.params.items())
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={family}", "--tags=reporting", "--params", said]
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    record = json.loads((folder / f"data/08_reporting/{place}/run_record.json").read_text())[-1]
    nodes = {name.rsplit(".", 1)[-1]: one["seconds"] for name, one in record["nodes"].items() if one["seconds"] >= 0.1}
    return {
        "family": family,
        "points": len(chosen),
        "conditions": len({point["condition"] for point in chosen}),
        "seeds": len({point["seed"] for point in chosen}),
        "rows": rows,
        "megabytes": round(size / 1e6, 1),
        "wall_seconds": round(wall, 1),
        "processor_seconds": round(processor, 1),  # what a machine that does nothing else needs at most
        "seconds": nodes,
        "peak_rss_gib": record["machine"]["peak_rss_gib"],
    }


def main() -> None:
    """Measure every family, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--points", type=int, nargs="+", default=[100, 300, 1000])
    arguments.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/reporting.json")
    given = arguments.parse_args()
    results = []
    for family in given.families:
        for number in given.points:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "project"
                copy_project(folder)
                results.append(measure(folder, family, number))
            print(results[-1], flush=True)
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores")}
    machine["load"] = os.getloadavg()  # of the last 1, 5 and 15 minutes, planting included
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"code": code, "machine": machine, "families": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
