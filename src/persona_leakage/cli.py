"""Command line: `kedro run` with errors for people and baselines run first, `kedro grid`, `preflight` and `package`."""

import copy
import functools
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import _split_params as split_params
from kedro.framework.cli.utils import env_option
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.utils import find_kedro_project

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import DEFAULT_FAMILY, FAMILIES, family_of, is_replay
from persona_leakage.keys import refuse_keys, shared_files
from persona_leakage.pipelines import STAGES
from persona_leakage.user_message import user_message

if TYPE_CHECKING:
    from rich.console import Console

    from persona_leakage.grid.launch import Launcher, Outcome
    from persona_leakage.grid.points import Point, Study
    from persona_leakage.grid.progress import Durations

_OTHER_CONFIGURATION = ("conf_source", "config")  # options of `kedro run`
# those that select a part of the pipeline
_SLICES = ("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "to_outputs", "namespaces", "only_missing_outputs")
_RUNNER = "SequentialRunner"  # steps share a GPU, and hooks what they know of a run
_TEXTS = ("family", "model", "condition", "dose")  # parameters that are text, whatever they look like
_FILE = "_file"  # how parameters that are paths end


@click.group(name="persona_leakage")
def cli() -> None:
    """Commands of this project."""


def _split_params(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Read `--params` as Kedro does, but keep names and paths as they are written: `001` is no 1, `~` the home folder."""
    given = split_params(context, option, value)
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        written = {name.strip(): text.strip() for name, _, text in pairs}
        given |= {name: text for name, text in written.items() if name in _TEXTS}
        given |= {name: _at_home(text) for name, text in written.items() if name.endswith(_FILE)}
    return given


def _at_home(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path  # a URL is no Path


def _for_people(command: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command in the project's folder, and turn errors that the user can put right into one line and exit status 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        os.chdir(find_kedro_project(Path.cwd()) or Path.cwd())  # a folder inside the project means the project
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if (said := user_message(error)) is None:
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
    if (options["runner"] or _RUNNER).rpartition(".")[2] != _RUNNER:
        raise UserError(
            f"--runner={options['runner']}: the steps of a run come one after another; leave it out, and have several points "
            "computed at a time by `kedro grid --jobs`"
        )
    known = {tag for name in options["pipelines"] or pipelines for node in pipelines[name].nodes for tag in node.tags}
    if unknown := set(options["tags"] or ()) - known:
        raise UserError(f"--tags: no step has the tag {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    params = dict(options["params"] or {})
    name = options["pipelines"][0] if len(options["pipelines"]) == 1 else None
    if name in STAGES:
        name = str(params.get("family") or DEFAULT_FAMILY)
        if name not in FAMILIES:
            raise UserError(f"--params: there is no family '{name}'; known: {', '.join(FAMILIES)}")
        options |= {"tags": (*options["tags"], *options["pipelines"]), "pipelines": [name]}
    if name is not None and not any(options[other] for other in _OTHER_CONFIGURATION):
        if name in FAMILIES:
            params |= _one_point(name, options["env"], params, whole=not any(options[part] for part in _SLICES))
        elif is_replay(name) and (replay := family_of(name).replay):
            if replay.condition:
                if params.get("condition") not in (None, replay.condition):
                    raise UserError(f"the file of {name} names its own conditions; leave out condition={params['condition']}")
                params["condition"] = replay.condition
            _study(family_of(name).name, options["env"], params).check(name)
    return kedro_run.callback(**{**options, "params": params})  # type: ignore[misc]


def _one_point(family: str, env: str | None, params: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """Name the condition and checkpoint that a run is of and, before a `whole` one, run what its report needs.

    That is what it is compared with, and its condition's other checkpoints; in this process, which has imported by then what
    all of them need. A part of a pipeline says itself what it lacks.

    Raises:
        UserError: the parameters do not fit, a point failed, or a part of a pipeline does not say which checkpoint it is of.
    """
    from persona_leakage.grid.compute import compute

    study = _study(family, env, params)
    addresses = study.addresses({"condition": [study.condition]})
    if study.dose != addresses[-1].dose:
        study.check(family)  # which says why the condition has no such dose
    if not whole and len(addresses) > 1:
        epochs = [str(address.checkpoint) for address in addresses]
        raise UserError(
            f"a part of {family} runs for one checkpoint: add checkpoint={epochs[-1]} or another of {', '.join(epochs)} to "
            "--params; reports take in all of them"
        )
    found = study.find(addresses)
    if whole:
        *points, itself = study.with_references(found)
        points = [point for point in points if point.state != "done"]
        click.echo(_foretell(study, [*points, itself]))
        _require_fit(study, [*points, itself])
        for point in points:
            click.echo(f"{point.address} has not run with these parameters; running it first")
            try:
                compute(family, env, {**study.params, **point.address.overrides})
            except Exception as error:
                if (said := user_message(error)) is None:
                    raise
                raise UserError(
                    f"{point.address} failed: {said}; the report of {study.condition} needs it, so nothing more was started"
                ) from error
    return {name: value for name, value in addresses[-1].params.items() if name in ("condition", "checkpoint")}


def _study(family: str, env: str | None, params: dict[str, Any]) -> "Study":
    from persona_leakage.grid.points import Study

    return Study(family, env, params)


def _require_fit(study: "Study", points: "Sequence[Point]") -> None:
    """Refuse points that their base model cannot compute, before the first of them is computed."""
    from persona_leakage.engines.adaptation import require_fit

    cache = Path(study.context.project_path) / study.context.config_loader["globals"]["cache"]
    for point in points:
        require_fit(study.plan(point), cache)


def _foretell(study: "Study", points: "Sequence[Point]") -> str:
    """Say which number format points are computed in, on what, and how long that takes here."""
    from persona_leakage.machine import computes_bfloat16, computes_on_gpu
    from persona_leakage.preflight.examination import reckon_seconds, show_time

    plans = [study.plan(point) for point in points]
    loader = study.context.config_loader
    gpu = computes_on_gpu(loader["globals"]["device"])
    native = "has" if computes_bfloat16() else "has no"
    where = "on the GPU" if gpu else f"on a processor that {native} instructions for bfloat16"
    number = "1 point" if len(points) == 1 else f"{len(points)} points"
    seconds = reckon_seconds(plans, loader)
    takes = (
        f"about {show_time(seconds)}, and scoring and the report"
        if seconds
        else "how long is not known: the block `estimates` is of another model, engine or machine"
    )
    return f"{plans[-1].address.model} computes in {plans[-1].base_model.dtype}, {where}: {number}, {takes}"


run = copy.copy(kedro_run)
run.callback = _run
run.params = [copy.copy(option) for option in kedro_run.params]
for option in run.params:
    if option.name == "params":
        option.callback = _split_params
cli.add_command(run)


def _of_points(command: Callable[..., None]) -> click.Command:
    """Add a command about a family's points: those that `--axes` names, and those that they are compared with."""

    @cli.command()
    @click.argument("family", type=click.Choice(FAMILIES))
    @click.argument("more_axes", nargs=-1, metavar="")
    @click.option(
        "--axes",
        multiple=True,
        metavar="AXIS=VALUE,… [AXIS=VALUE,…]",
        help="model, condition, seed, checkpoint, dose; without one: the parameters' model, seed and dose, all conditions and "
        "checkpoints.",
    )
    @click.option("--params", default="", callback=_split_params, help="As for kedro run.")
    @env_option
    @_for_people
    @functools.wraps(command)
    def wrapped(
        family: str, more_axes: tuple[str, ...], axes: tuple[str, ...], params: dict[str, Any], env: str | None, **options: Any
    ) -> None:
        from persona_leakage.grid.points import Study

        study = Study(family, env, params)
        command(study, study.with_references(study.find(study.addresses(_split_axes(axes, more_axes)))), **options)

    return wrapped


@_of_points
@click.option("--launcher", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where points run.")
@click.option("--address", help="Of the Ray cluster; by default the one running here, or a new one on this machine.")
@click.option("--jobs", type=click.IntRange(min=1), help="Points at a time: 1 by default, on Ray as many as it can hold.")
@click.option("--keep-engines", is_flag=True, help="Start an engine once a job and not once a point.")
@click.option("--escalate", "escalates", is_flag=True, help="Also run the further seeds that the last report calls for.")
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
def grid(
    study: "Study",
    points: "list[Point]",
    launcher: str,
    address: str | None,
    jobs: int | None,
    keep_engines: bool,
    escalates: bool,
    dry_run: bool,
) -> None:
    """Run every model x condition x seed [x checkpoint] [x dose] of a FAMILY, then the report.

    Points that are done under the current parameters are skipped, stale ones run again. The conditions that others are
    compared with are added where they are missing, and run first.
    """
    from rich.console import Console

    from persona_leakage.grid.claim import claimed
    from persona_leakage.grid.escalation import escalate
    from persona_leakage.grid.progress import Durations, duration, plan_table, total

    if address and launcher != "ray":
        raise UserError("--address is that of a Ray cluster; add --launcher ray")
    if escalates:
        points, added = escalate(study, points)
        click.echo(added)
    console, estimate = Console(), Durations(points)
    console.print(plan_table(points, estimate))
    todo = [point for point in points if point.state != "done"]
    if todo:
        expected = total(todo, estimate)
        took = f"one after the other about {duration(expected)}" if expected else "no finished point tells how long that takes"
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
            with KedroSession.create(env=study.env, runtime_params={**study.params, **finished.address.overrides}) as session:
                session.run(pipeline_names=[study.family.name], tags=("reporting",))  # type: ignore[call-arg]
    if failed:
        lines = [f"  {outcome.point.address}: {outcome.tail[-1]} (log: {outcome.log})" for outcome in failed]
        raise click.ClickException(
            f"{len(failed)} of {len(todo)} points failed; run the same command to try them again:\n" + "\n".join(lines)
        )


@_of_points
@click.option("--ask-api", is_flag=True, help="Try the API key, which costs nothing.")
@click.option(
    "--half-width",
    type=click.FloatRange(0.001, 0.5),
    help="Say also how many seeds and completions bring means over seeds this close, such as 0.05 for 5 points.",
)
def preflight(study: "Study", points: "list[Point]", ask_api: bool, half_width: float | None) -> None:
    """Check what a FAMILY's grid needs and estimate its time and cost, before anything is spent.

    Ends with status 1 if something stands in the way.
    """
    from persona_leakage.preflight.examination import examine, show

    left = [study.plan(point) for point in points if point.state != "done"]
    done = [study.plan(point) for point in points if point.state == "done"]
    examination = examine(left, done, study.context, ask_api=ask_api, half_width=half_width)
    show(examination)
    if blocked := [check.name for check in examination.checks if check.state == "blocked"]:
        raise click.ClickException(f"{len(blocked)} in the way: {', '.join(blocked)}; see the remedies above")


@cli.command()
@_for_people
def package() -> None:
    """Build the project's wheel, and archives of what it needs in the folder where it runs.

    These are the configuration without `conf/local`, and the inputs in `data/01_raw`.
    """
    if not find_kedro_project(Path.cwd()):
        raise UserError(f"{Path.cwd()} is no project; run kedro package in the project's folder")
    refuse_keys(Path("conf"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]  # with the locked setuptools
    if subprocess.run(build, check=False).returncode != 0:
        raise UserError("the wheel could not be built; the lines above say why")
    inputs = sorted(file for file in Path("data/01_raw").rglob("*") if file.is_file())
    packed = {"conf": [*Path().glob(".telemetry"), *shared_files(Path("conf"))], "data": inputs}
    for name, files in packed.items():  # apart, for Kedro takes an archive of configuration as it is
        archive = Path(f"dist/{name}-persona_leakage.tar.gz")
        unfinished = archive.with_suffix(".part")
        with tarfile.open(unfinished, "w:gz", dereference=True) as tar:
            for file in files:
                tar.add(file)
        unfinished.replace(archive)
        click.echo(f"{archive}: unpack it where the wheel is to run")


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

    progress = Progress(console, points, estimate, lambda: launcher.places)
    try:
        with launcher, progress:
            for wave in waves(points):
                for outcome in launcher.launch([study.identified(point) for point in wave]):
                    progress.tell(outcome)
    except KeyboardInterrupt:
        click.echo(f"\nstopped with {len(progress.done)} of {len(points)} points done; the same command goes on", err=True)
        sys.exit(130)
    return progress.failed
