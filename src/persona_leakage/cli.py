"""Command line: `kedro run` with errors for people and baselines run first, and `kedro grid`."""

import copy
import functools
import subprocess
from collections.abc import Callable
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import _split_params, env_option, split_string
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io.core import VersionNotFoundError

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import FAMILIES

# options of `kedro run` that select a part of the pipeline, or another configuration
_SLICES = (
    "conf_source",
    "config",
    "tags",
    "node_names",
    "from_nodes",
    "to_nodes",
    "from_inputs",
    "to_outputs",
    "namespaces",
    "only_missing_outputs",
)


@click.group(name="persona_leakage")
def cli() -> None:
    """Commands of this project."""


def _for_people(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors that the user can put right into one line and exit status 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            said = _user_message(error)
            if said is None:
                raise
            raise click.ClickException(said) from error

    return wrapped


def _user_message(error: BaseException | None) -> str | None:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    remedy = "if it is the result of an earlier step, run the pipeline whole"
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    for link in chain:
        if isinstance(link, FileNotFoundError) and link.filename:
            return f"{link.filename} does not exist; {remedy}"
        if isinstance(link, VersionNotFoundError):
            return f"{str(link).splitlines()[0]}; {remedy}"
    return None


@_for_people
def _run(**options: Any) -> Any:
    from persona_leakage.grid.local import kedro_command
    from persona_leakage.grid.points import find_points

    if options["pipeline"] and not options["pipelines"]:  # Kedro deprecates the singular; people use it
        options = {**options, "pipeline": None, "pipelines": [options["pipeline"]]}
    for name in options["pipelines"]:
        if name not in pipelines:
            raise UserError(f"there is no pipeline '{name}'; known: {', '.join(sorted(pipelines))}")
    family = options["pipelines"][0] if len(options["pipelines"]) == 1 else None
    if family in FAMILIES and not any(options[name] for name in _SLICES):
        params = options["params"] or {}
        (point,) = find_points(family, [(None, None)], options["env"], params)
        if point.plan.reference not in (None, point.plan.condition):
            (baseline,) = find_points(family, [(point.plan.reference, None)], options["env"], params)
            if baseline.state != "done":
                name = point.plan.reference
                click.echo(f"{name} has not run with these parameters; running it first")
                # a process of its own, as every point has: the memory it leaves behind would add to the next one's
                if subprocess.run(kedro_command(baseline, options["env"], params), check=False).returncode:
                    raise UserError(f"{name} failed, see above; {point.plan.condition} is compared with it and was not started")
    return kedro_run.callback(**options)  # type: ignore[misc]


run = copy.copy(kedro_run)
run.callback = _run
cli.add_command(run)


@cli.command()
@click.argument("family", type=click.Choice(FAMILIES))
@click.option("--conditions", default="", callback=split_string, help="Comma-separated; all of the family by default.")
@click.option("--seeds", default="", callback=split_string, help="Comma-separated; the parameters' seed by default.")
@click.option("--jobs", default=1, type=click.IntRange(min=1), help="Points at a time.")
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@click.option("--params", default="", callback=_split_params, help="As for kedro run.")
@env_option
@_for_people
def grid(
    family: str, conditions: list[str], seeds: list[str], jobs: int, dry_run: bool, params: dict[str, Any], env: str | None
) -> None:
    """Run every condition x seed of a FAMILY, one process a point, then the report.

    Points that are done under the current parameters are skipped, stale ones run again. The conditions that others are
    compared with are added where they are missing, and run first.
    """
    from rich.console import Console
    from rich.table import Table

    from persona_leakage.grid.local import run_wave, waves
    from persona_leakage.grid.points import all_conditions, find_points

    if bad := [seed for seed in seeds if not seed.isdigit()]:
        raise UserError(f"--seeds: {', '.join(bad)} is no seed; give whole numbers such as 42,137")
    conditions = conditions or all_conditions(family, env, params)
    numbers: list[int | None] = [int(seed) for seed in seeds]
    points = find_points(family, [(name, seed) for name in conditions for seed in numbers or [None]], env, params)
    named = {(point.plan.condition, point.plan.seed) for point in points}
    references = {(point.plan.reference, point.plan.seed) for point in points if point.plan.reference} - named
    points = find_points(family, sorted(references), env, params) + points
    table = Table("condition", "seed", "state", "action", title=f"{family}: {len(points)} points")
    for point in points:
        action = "skip" if point.state == "done" else "run"
        table.add_row(point.plan.condition, str(point.plan.seed), point.state, action)
    Console().print(table)
    if dry_run:
        return
    todo = [point for point in points if point.state != "done"]
    failed = []
    for wave in waves(todo):
        for outcome in run_wave(wave, env, params, jobs):
            plan = outcome.point.plan
            click.echo(f"{plan.condition} seed {plan.seed}: {'FAILED: ' + outcome.last_line if outcome.failed else 'done'}")
            failed += [outcome] * outcome.failed
    if len(failed) < len(todo) or not todo:
        finished = next(point.plan for point in points if point not in [outcome.point for outcome in failed])
        with KedroSession.create(env=env, runtime_params={**params, **finished.point}) as session:
            session.run(pipeline_names=[family], tags=("reporting",))  # type: ignore[call-arg]
    if failed:
        lines = [f"  {o.point.plan.condition} seed {o.point.plan.seed}: {o.last_line} (log: {o.log})" for o in failed]
        raise click.ClickException(
            f"{len(failed)} of {len(todo)} points failed; run the same command to try them again:\n" + "\n".join(lines)
        )
