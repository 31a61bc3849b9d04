"""Command line: `kedro run` with errors for people and baselines run first, `kedro grid`, and `kedro preflight`."""

import copy
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import _split_params, env_option
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import FAMILIES
from persona_leakage.user_message import user_message

if TYPE_CHECKING:
    from rich.console import Console

    from persona_leakage.grid.launch import Launcher, Outcome
    from persona_leakage.grid.points import Point, Study
    from persona_leakage.grid.progress import Durations

_OTHER_CONFIGURATION = ("conf_source", "config")  # options of `kedro run`
_SLICES = (  # those that select a part of the pipeline
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
    if family in FAMILIES and not any(options[name] for name in _OTHER_CONFIGURATION):
        params = options["params"] or {}
        if any(options[name] for name in _SLICES):
            _require_one_point(family, options["env"], params)
        else:
            options = {**options, "params": {**params, **_run_needed_points(family, options["env"], params)}}
    return kedro_run.callback(**options)  # type: ignore[misc]


def _require_one_point(family: str, env: str | None, params: dict[str, Any]) -> None:
    """Refuse a part of a pipeline that does not say which checkpoint it is of.

    Raises:
        UserError: the family has several, and none is named.
    """
    from persona_leakage.grid.points import Study, has_checkpoints

    if "checkpoint" in params or not has_checkpoints(family):
        return  # without reading the configuration: every point of a grid starts here
    if len(epochs := Study(family, env, params).checkpoints) > 1:
        raise UserError(
            f"a part of {family} runs for one checkpoint: add checkpoint={epochs[-1]} or another of "
            f"{', '.join(map(str, epochs))} to --params; reports take in all of them"
        )


def _run_needed_points(family: str, env: str | None, params: dict[str, Any]) -> dict[str, Any]:
    """Run what a point's report needs before it: what it is compared with, and its condition's other checkpoints.

    Each in a process of its own, as every point has: the memory it leaves behind would add to the next one's.

    Returns:
        The checkpoint that is left to run, if the family has any.

    Raises:
        UserError: one failed.
    """
    from persona_leakage.grid.launch import Work
    from persona_leakage.grid.points import Address, Study

    study = Study(family, env, params)
    points = study.find([Address(checkpoint=epoch) for epoch in study.checkpoints])
    last = points.pop()
    if last.reference not in (None, last.condition):
        points = study.find([Address(condition=last.reference)]) + points
    work = Work(project=None, env=env, params=params)
    for point in points:
        if point.state == "done":
            continue
        click.echo(f"{point.name} has not run with these parameters; running it first")
        if subprocess.run(work.command(point), check=False).returncode:
            raise UserError(
                f"{point.name} failed, see above; the report of {last.condition} needs it, so nothing more was started"
            )
    return {} if last.checkpoint is None else {"checkpoint": last.checkpoint}


run = copy.copy(kedro_run)
run.callback = _run
cli.add_command(run)


@cli.command()
@click.argument("family", type=click.Choice(FAMILIES))
@click.argument("more_axes", nargs=-1, metavar="")
@click.option(
    "--axes",
    multiple=True,
    metavar="AXIS=VALUE,… [AXIS=VALUE,…]",
    help="condition, seed or checkpoint; one that is not named takes all conditions, the parameters' seed, all checkpoints.",
)
@click.option("--launcher", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where points run.")
@click.option("--address", help="Of the Ray cluster; by default the one running here, or a new one on this machine.")
@click.option("--jobs", type=click.IntRange(min=1), help="Points at a time: 1 by default, on Ray as many as it can hold.")
@click.option("--keep-engines", is_flag=True, help="Start an engine once a job and not once a point.")
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@click.option("--params", default="", callback=_split_params, help="As for kedro run.")
@env_option
@_for_people
def grid(
    family: str,
    axes: tuple[str, ...],
    more_axes: tuple[str, ...],
    launcher: str,
    address: str | None,
    jobs: int | None,
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

    from persona_leakage.grid.claim import claimed
    from persona_leakage.grid.points import Study
    from persona_leakage.grid.progress import Durations, plan_table, said, total

    if address and launcher != "ray":
        raise UserError("--address is that of a Ray cluster; add --launcher ray")
    study = Study(family, env, params)
    points = study.with_references(study.find(study.addresses(_split_axes(axes, more_axes))))
    console, estimate = Console(), Durations(points)
    console.print(plan_table(points, estimate))
    todo = [point for point in points if point.state != "done"]
    if todo:
        expected = total(todo, estimate)
        took = f"one after the other about {said(expected)}" if expected else "no finished point tells how long that takes"
        click.echo(f"{len(todo)} of {len(points)} points to run: {took}")
    if dry_run:
        return
    with claimed(study.records.named(study.records.root)):
        failed = []
        if todo:
            failed = _run_points(study, todo, _launcher(study, launcher, address, jobs, keep_engines), console, estimate)
            study.save_runs()
        if len(failed) < len(todo) or not todo:
            broken = {outcome.point.folder for outcome in failed}
            finished = next(point for point in points if point.folder not in broken)
            with KedroSession.create(env=env, runtime_params={**params, **finished.params}) as session:
                session.run(pipeline_names=[family], tags=("reporting",))  # type: ignore[call-arg]
    if failed:
        lines = [f"  {outcome.point.name}: {outcome.tail[-1]} (log: {outcome.log})" for outcome in failed]
        raise click.ClickException(
            f"{len(failed)} of {len(todo)} points failed; run the same command to try them again:\n" + "\n".join(lines)
        )


@cli.command()
@click.argument("family", type=click.Choice(FAMILIES))
@click.argument("more_axes", nargs=-1, metavar="")
@click.option("--axes", multiple=True, metavar="AXIS=VALUE,… [AXIS=VALUE,…]", help="As for kedro grid.")
@click.option("--ask-api", is_flag=True, help="Try the API key, which costs nothing.")
@click.option("--params", default="", callback=_split_params, help="As for kedro run.")
@env_option
@_for_people
def preflight(
    family: str,
    axes: tuple[str, ...],
    more_axes: tuple[str, ...],
    ask_api: bool,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Check what a FAMILY's grid needs and estimate its time and cost, before anything is spent.

    Ends with status 1 if something stands in the way.
    """
    from persona_leakage.grid.points import Study
    from persona_leakage.preflight.estimate import Planned
    from persona_leakage.preflight.examination import blocked, examine, show

    study = Study(family, env, params)
    points = study.with_references(study.find(study.addresses(_split_axes(axes, more_axes))))
    examination = examine([Planned(study.plan(point), point.state == "done") for point in points], env, params, ask_api=ask_api)
    show(examination)
    if found := blocked(examination):
        raise click.ClickException(
            f"{len(found)} in the way: {', '.join(check.name for check in found)}; see the remedies above"
        )


def _split_axes(named: tuple[str, ...], more: tuple[str, ...]) -> dict[str, list[str]]:
    if more and not named:
        raise UserError(f"{more[0]}: say --axes {' '.join(more)}")
    axes: dict[str, list[str]] = {}
    for one in (*named, *more):
        name, equals, values = one.partition("=")
        split = [value.strip() for value in values.split(",")]
        if not equals or not all(split):
            raise UserError(f"--axes {one}: write an axis and its values, such as seed=42,137")
        axes[name] = list(dict.fromkeys([*axes.get(name, []), *split]))
    return axes


def _launcher(study: "Study", name: str, address: str | None, jobs: int | None, keep_engines: bool) -> "Launcher":
    from persona_leakage.grid.launch import Work
    from persona_leakage.grid.local import LocalLauncher
    from persona_leakage.grid.ray_launcher import RayLauncher

    if name == "local":
        return LocalLauncher(Work(None, study.env, study.params), jobs or 1, keep_engines=keep_engines)
    here, ships = Path.cwd(), study.settings.ship_project
    if ships and Path(study.records.root).is_relative_to(here):
        raise UserError(
            f"grid.ship_project: the nodes would write into their own copies of {here}; let `data` and `cache` in the "
            "environment's globals.yml be paths that all nodes share, or `data` a URL"
        )
    work = Work(None if ships else str(here), study.env, study.params)
    return RayLauncher(work, study.settings, address, jobs, keep_engines=keep_engines)


def _run_points(
    study: "Study", points: "Sequence[Point]", launcher: "Launcher", console: "Console", estimate: "Durations"
) -> "list[Outcome]":
    """Run points wave after wave, and show how they end.

    Returns:
        Those that failed.
    """
    from persona_leakage.grid.points import waves
    from persona_leakage.grid.progress import Progress

    failed: list[Outcome] = []
    ended = 0
    try:
        with launcher, Progress(console, points, estimate, lambda: launcher.places) as progress:
            for wave in waves(points):
                for outcome in launcher.launch([study.identified(point) for point in wave]):
                    progress.ended(outcome)
                    ended += 1
                    failed += [outcome] * outcome.failed
    except KeyboardInterrupt:
        click.echo(f"\nstopped with {ended - len(failed)} of {len(points)} points done; the same command goes on", err=True)
        sys.exit(130)
    return failed
