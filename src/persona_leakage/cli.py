"""Command line: `kedro run` with errors for people and baselines run first, `kedro grid`, and `kedro preflight`."""

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

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import FAMILIES
from persona_leakage.user_message import user_message

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
            said = user_message(error)
            if said is None:
                raise
            raise click.ClickException(said) from error

    return wrapped


@_for_people
def _run(**options: Any) -> Any:
    if options["pipeline"] and not options["pipelines"]:  # Kedro deprecates the singular; people use it
        options = {**options, "pipeline": None, "pipelines": [options["pipeline"]]}
    for name in options["pipelines"]:
        if name not in pipelines:
            raise UserError(f"there is no pipeline '{name}'; known: {', '.join(sorted(pipelines))}")
    family = options["pipelines"][0] if len(options["pipelines"]) == 1 else None
    if family in FAMILIES and not any(options[name] for name in _SLICES):
        params = options["params"] or {}
        options = {**options, "params": {**params, **_run_needed_points(family, options["env"], params)}}
    return kedro_run.callback(**options)  # type: ignore[misc]


def _run_needed_points(family: str, env: str | None, params: dict[str, Any]) -> dict[str, Any]:
    """Run what a point's report needs before it: what it is compared with, and its condition's other checkpoints.

    Each in a process of its own, as every point has: the memory it leaves behind would add to the next one's.

    Returns:
        The checkpoint that is left to run, if the family has any.

    Raises:
        UserError: one failed.
    """
    from persona_leakage.grid.local import kedro_command
    from persona_leakage.grid.points import Address, find_points, own_checkpoints

    checkpoints = own_checkpoints(family, env, params)
    points = find_points(family, [Address(checkpoint=epoch) for epoch in checkpoints], env, params)
    last = points.pop()
    if last.plan.reference not in (None, last.plan.condition):
        points = find_points(family, [Address(condition=last.plan.reference)], env, params) + points
    for point in points:
        if point.state == "done":
            continue
        name = _name(point.plan)
        click.echo(f"{name} has not run with these parameters; running it first")
        if subprocess.run(kedro_command(point, env, params), check=False).returncode:
            raise UserError(
                f"{name} failed, see above; the report of {last.plan.condition} needs it, so nothing more was started"
            )
    return {} if last.plan.checkpoint is None else {"checkpoint": last.plan.checkpoint}


run = copy.copy(kedro_run)
run.callback = _run
cli.add_command(run)


@cli.command()
@click.argument("family", type=click.Choice(FAMILIES))
@click.option("--conditions", default="", callback=split_string, help="Comma-separated; all of the family by default.")
@click.option("--seeds", default="", callback=split_string, help="Comma-separated; the parameters' seed by default.")
@click.option("--checkpoints", default="", callback=split_string, help="Comma-separated; all of the family by default.")
@click.option("--jobs", default=1, type=click.IntRange(min=1), help="Points at a time.")
@click.option("--keep-engines", is_flag=True, help="Start an engine once a job and not once a point.")
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@click.option("--params", default="", callback=_split_params, help="As for kedro run.")
@env_option
@_for_people
def grid(
    family: str,
    conditions: list[str],
    seeds: list[str],
    checkpoints: list[str],
    jobs: int,
    keep_engines: bool,
    dry_run: bool,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Run every condition x seed [x checkpoint] of a FAMILY, then the report.

    Points that are done under the current parameters are skipped, stale ones run again. The conditions that others are
    compared with are added where they are missing, and run first.
    """
    from rich.console import Console
    from rich.table import Table

    from persona_leakage.grid.local import run_waves
    from persona_leakage.grid.points import Address, all_addresses, find_points

    axes = {"--seeds": seeds, "--checkpoints": checkpoints}
    for option, values in axes.items():
        if bad := [value for value in values if not value.isdigit()]:
            raise UserError(f"{option}: {', '.join(bad)} is no whole number; give some such as 42,137")
    addresses = all_addresses(family, env, params, conditions, list(map(int, seeds)), list(map(int, checkpoints)))
    points = find_points(family, addresses, env, params)
    named = {(point.plan.condition, point.plan.seed) for point in points}
    references = {(point.plan.reference, point.plan.seed) for point in points if point.plan.reference} - named
    points = find_points(family, [Address(*reference) for reference in sorted(references)], env, params) + points
    columns = list(points[0].plan.point)
    table = Table(*columns, "state", "action", title=f"{family}: {len(points)} points")
    for point in points:
        table.add_row(*map(str, point.plan.point.values()), point.state, "skip" if point.state == "done" else "run")
    Console().print(table)
    if dry_run:
        return
    todo = [point for point in points if point.state != "done"]
    failed = []
    for outcome in run_waves(todo, env, params, jobs, keep_engines=keep_engines):
        click.echo(f"{_name(outcome.point.plan)}: {'FAILED: ' + outcome.last_line if outcome.failed else 'done'}")
        failed += [outcome] * outcome.failed
    if len(failed) < len(todo) or not todo:
        broken = [outcome.point.plan.point for outcome in failed]
        finished = next(point.plan for point in points if point.plan.point not in broken)
        with KedroSession.create(env=env, runtime_params={**params, **finished.point}) as session:
            session.run(pipeline_names=[family], tags=("reporting",))  # type: ignore[call-arg]
    if failed:
        lines = [f"  {_name(outcome.point.plan)}: {outcome.last_line} (log: {outcome.log})" for outcome in failed]
        raise click.ClickException(
            f"{len(failed)} of {len(todo)} points failed; run the same command to try them again:\n" + "\n".join(lines)
        )


@cli.command()
@click.argument("family", type=click.Choice(FAMILIES))
@click.option("--conditions", default="", callback=split_string, help="As for kedro grid.")
@click.option("--seeds", default="", callback=split_string, help="As for kedro grid.")
@click.option("--checkpoints", default="", callback=split_string, help="As for kedro grid.")
@click.option("--ask-api", is_flag=True, help="Try the API key, which costs nothing.")
@click.option("--params", default="", callback=_split_params, help="As for kedro run.")
@env_option
@_for_people
def preflight(
    family: str,
    conditions: list[str],
    seeds: list[str],
    checkpoints: list[str],
    ask_api: bool,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Check what a FAMILY's grid needs and estimate its time and cost, before anything is spent.

    Ends with status 1 if something stands in the way.
    """
    from persona_leakage.preflight.examination import blocked, examine, grid_points, show

    epochs, numbers = (_whole_numbers(*axis) for axis in (("--checkpoints", checkpoints), ("--seeds", seeds)))
    points = grid_points(family, env, params, conditions, numbers, epochs)
    examination = examine(points, env, params, ask_api=ask_api)
    show(examination)
    if found := blocked(examination):
        raise click.ClickException(
            f"{len(found)} in the way: {', '.join(check.name for check in found)}; see the remedies above"
        )


def _whole_numbers(option: str, values: list[str]) -> list[int]:
    if bad := [value for value in values if not value.isdigit()]:
        raise UserError(f"{option}: {', '.join(bad)} is no whole number; give some such as 42,137")
    return list(map(int, values))


def _name(plan: Plan) -> str:
    epoch = "" if plan.checkpoint is None else f" epoch {plan.checkpoint}"
    return f"{plan.condition} seed {plan.seed}{epoch}"
