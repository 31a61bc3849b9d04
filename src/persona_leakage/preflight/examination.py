"""Look at everything that a grid needs, reckon what it takes, and show both."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from huggingface_hub.constants import HF_HUB_CACHE
from kedro.framework.context import KedroContext
from rich.console import Console
from rich.table import Table
from rich.text import Text

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.packages import installed_version, package_requirements
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.points import model_of
from persona_leakage.engines.calibration import measure_gflops
from persona_leakage.engines.claude import Price
from persona_leakage.engines.turns import fit_turns
from persona_leakage.machine import computes_on_gpu
from persona_leakage.preflight import checks, estimate, probes
from persona_leakage.preflight.checks import Check
from persona_leakage.preflight.estimate import Cost, Estimates, Span, Work, add_spans
from persona_leakage.preflight.power import RATES, Precision, Together, list_needs, measure_spread
from persona_leakage.user_message import user_message

_PACKAGES = ("torch", "transformers", "peft", "trl")
_API_SECONDS = 10.0
_STYLES = {"ok": "green", "warning": "yellow", "blocked": "bold red", "not needed": "dim"}
_WIDTH = 200  # of output that goes into a file or a pipe


class Examination(NamedTuple):
    """What was found.

    Attributes:
        checks: in the order in which they are shown.
        costs: work that is left, by kind, and last the starting of engines, one process a point.
        left: points of the grid that are to run.
        done: points that have run.
        precision: what a wished half-width takes; None where none is wished.
    """

    checks: list[Check]
    costs: list[Cost]
    left: int
    done: int
    precision: Precision | None = None


def examine(
    left: Sequence[Plan], done: Sequence[Plan], context: KedroContext, *, ask_api: bool, half_width: float | None = None
) -> Examination:
    """Check this machine for the points that are not done, and reckon what they take.

    Args:
        left: points of one family that are to run.
        done: those that have run.
        context: of the project.
        ask_api: try the API key on every Claude model, which costs nothing.
        half_width: foretell also how many seeds this one takes; None foretells nothing.

    Raises:
        UserError: the block `estimates` of the parameters does not fit its type, or the half-width is out of reach.
    """
    loader, catalog = context.config_loader, context.catalog
    entries: Mapping[str, Any] = loader["catalog"]
    bases = list(dict.fromkeys(plan.base_model for plan in (*done, *left)))
    estimates = read_estimates(loader, bases)
    asked = sorted(item for plan in left for stage in plan.stages.values() for item in stage.data.needs.items())
    sources, available = _sources(dict(asked), entries, catalog)  # of a source that several ask, the largest number stays
    client = catalog.load("language_model")
    work = estimate.outstanding_work(left, done, estimates, available)
    costs = _costs(work, len(left), estimates, client.prices, client.discount)
    generator = {"engine": "", "options": {}} | entries["generator"]

    found = [_gpu(estimates, generator, estimate.longest_tokens(left) if left else 0)]
    found.append(checks.check_memory(estimates.memory_gib, probes.available_memory_gib()))
    found += _packages(Path(context.project_path), generator["engine"])
    models = [_base_model(base) for base in bases]
    found += [check for check, _ in models]
    here = [base for base, (check, _) in zip(bases, models, strict=True) if check.state != "blocked"]
    found += _templates(here, left, Path(entries["generator"].get("cache") or "data/cache"))
    found += [*sources, *checks.check_languages(left)]
    found.append(checks.check_estimates(estimates, bases, generator["engine"]))
    found.append(checks.check_key(costs, has_key=client.has_key, asked=ask_api))
    if ask_api and client.has_key:
        claudes = dict.fromkeys(one.work.model for one in costs if one.work.model is not None)
        found += [checks.check_model(name, client.refusal(name, _API_SECONDS)) for name in claudes]
    found += checks.check_prices(costs)
    found += checks.check_ceiling(costs, client.spend_ceiling, batches=client.discount < 1)
    folders = {"data": Path(loader["globals"]["data"]), "cache": Path(entries["generator"].get("cache") or "data/cache")}
    takes = estimate.disk_gib(work, len(left), estimates)
    takes["cache"] += estimates.weights_gib * sum(base.source == "package" for base in bases)
    if download := sum(gib for _, gib in models):
        folders["hub's cache"], takes["hub's cache"] = Path(HF_HUB_CACHE), download
    found += _disk(folders, takes)
    precision = None
    if half_width is not None:

        def costed(plans: Sequence[Plan]) -> Together:
            outstanding = estimate.outstanding_work(plans, [], estimates, available)
            return _together(_costs(outstanding, len(plans), estimates, client.prices, client.discount))

        by_seed = f"{(*left, *done)[0].family}.by_seed"
        known = catalog.load(by_seed) if catalog.exists(by_seed) else pd.DataFrame()
        if len(known):  # what matched doses are compared with stands beside them once more
            known = known[~known.assign(model=known["model"].map(model_of)).duplicated()]
        spread = measure_spread(known, estimates.seed_correlation)
        precision = Precision(half_width, spread, list_needs((*left, *done), spread, half_width, costed))
    return Examination(found, costs, len(left), len(done), precision)


def read_estimates(loader: Mapping[str, Any], bases: Sequence[BaseModel]) -> Estimates:
    """Read the block `estimates`; where a processor computes, its numbers become those of this one, which takes seconds.

    Raises:
        UserError: the block does not fit its type.
    """
    estimates = _given_estimates(loader)
    if estimates.gflops is None or not bases or computes_on_gpu(loader["globals"]["device"]):
        return estimates
    return estimates.carried_over(measure_gflops(bases[0].dtype))


def reckon_seconds(left: Sequence[Plan], loader: Mapping[str, Any]) -> Span | None:
    """Say how long points take on this machine, one after the other; scoring, reports and Claude's answers are not counted.

    Returns:
        None where the block `estimates` is of another base model, engine or kind of machine than the points'.

    Raises:
        UserError: the block does not fit its type.
    """
    bases = [plan.base_model for plan in left]
    given, on_gpu = _given_estimates(loader), computes_on_gpu(loader["globals"]["device"])
    known = checks.check_estimates(given, bases, loader["catalog"]["generator"].get("engine", "")).state == "ok"
    if not known or on_gpu != (given.gpu is not None):
        return None
    estimates = read_estimates(loader, bases)
    costs = _costs(estimate.outstanding_work(left, [], estimates, {}), len(left), estimates, {}, 1.0)
    return add_spans(one.seconds for one in costs if one.seconds is not None)


def _given_estimates(loader: Mapping[str, Any]) -> Estimates:
    return Estimates.checked(loader["parameters"]["estimates"], "estimates")


def _costs(work: Sequence[Work], points: int, estimates: Estimates, prices: Mapping[str, Price], discount: float) -> list[Cost]:
    """Cost work by kind, and last the starting of engines, one process a point."""
    kinds = estimate.sum_by_kind(work)
    if points and estimates.engine_start_seconds:
        kinds.append(Work("", "starting engines", "processes", points))
    return [estimate.cost(one, estimates, prices, discount) for one in kinds]


def show(examination: Examination, console: Console | None = None) -> None:
    """Print what was found as two tables; plain text where the output is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH, no_color=True, highlight=False)
    table = Table("check", "state", "found", "remedy", title="Checks")
    for check in examination.checks:
        table.add_row(check.name, Text(check.state, style=_STYLES[check.state]), check.found, check.remedy)
    console.print(table, markup=False)  # or rich takes the [vllm] of a remedy for it
    console.print(_cost_table(examination), markup=False)
    for line in _remarks(examination):
        console.print(line, markup=False)
    if (precision := examination.precision) is not None:
        console.print(_precision_table(precision), markup=False)
        for line in _precision_remarks(precision):
            console.print(line, markup=False)


def _sources(asked: Mapping[str, int], entries: Mapping[str, Any], catalog: Any) -> tuple[list[Check], dict[str, int]]:
    """Check where training rows are read from; local data sets are read, of those on the hub only the revision is looked up."""
    found, available = [], {}
    for name, rows in asked.items():
        entry = entries[name]
        if entry.get("repository"):
            hub = probes.ask_hub("dataset", entry["repository"], entry["revision"])
            found.append(checks.check_hub_source(name, entry["repository"], entry["revision"], hub))
            continue
        has: int | str | None
        try:
            has = available[name] = len(catalog.load(name))
        except Exception as error:
            if (has := user_message(error)) is None:
                raise
        found.append(checks.check_local_source(name, has, rows))
    return found, available


def _gpu(estimates: Estimates, generator: Mapping[str, Any], longest: int) -> Check:
    if estimates.gpu is None:
        return Check("GPU", "not needed", "this environment computes on any machine")
    gpu = probes.find_gpu()
    total = 0.0 if isinstance(gpu, str) else gpu.total_gib
    need = estimate.gpu_need_gib(estimates, estimates.gpu, generator["engine"], generator["options"] or {}, longest, total)
    return checks.check_gpu(need, gpu, estimates.gpu.name)


def _packages(project: Path, engine: str) -> list[Check]:
    """Check the packages that compute; vLLM where it samples, and then also what vLLM itself asks for."""
    extra = "vllm" if engine == "vllm_generator" else ""
    wanted = {"the project": probes.required_versions(project, extra), "vLLM": package_requirements(extra) if extra else {}}
    found = []
    for name in filter(None, (*_PACKAGES, extra)):
        asked = {who: versions[name] for who, versions in wanted.items() if name in versions}
        found.append(checks.check_package(name, installed_version(name), asked))
    return found if extra else [*found, Check("vllm", "not needed", "transformers samples the completions")]


def _base_model(base: BaseModel) -> tuple[Check, float]:
    if base.source == "hub":
        hub = probes.ask_hub("model", base.name, base.revision)
        return checks.check_hub_model(base, hub, probes.cached_files(base.name, base.revision))
    if base.source == "package":
        return checks.check_package_model(base, {name: installed_version(name) for name in base.packages}), 0.0
    folder = Path(base.name)
    return checks.check_folder_model(base, [file.name for file in folder.iterdir()] if folder.is_dir() else []), 0.0


def _templates(bases: Sequence[BaseModel], left: Sequence[Plan], cache: Path) -> list[Check]:
    """Check the chat templates of the models that are to compute; one in a package is seen once it is unpacked, by the run."""
    found = []
    for base in bases:
        plans = [plan for plan in left if plan.base_model == base]
        if not plans or base.source == "package":
            continue
        try:
            turns = fit_turns(base, cache, (chat for plan in plans for chat in plan.chats))
        except UserError as error:
            found.append(checks.check_template(base, str(error), ()))
        else:
            found.append(checks.check_template(base, None, turns.remarks))
            found += _trainable(base, plans, cache)
    return found


def _trainable(base: BaseModel, plans: Sequence[Plan], cache: Path) -> list[Check]:
    """Name what stands in the way of training a model, if anything does."""
    from persona_leakage.engines.adaptation import require_trainable

    try:
        for recipe in dict.fromkeys(stage.recipe for plan in plans for stage in plan.stages.values()):
            require_trainable(base, cache, recipe)
    except UserError as error:
        found, _, remedy = str(error).partition("; ")
        return [Check("recipe", "blocked", found, remedy)]
    return []


def _disk(folders: Mapping[str, Path], takes: Mapping[str, float]) -> list[Check]:
    """Check every filesystem once, for all folders that lie on it, and that each folder can be written to."""
    places = {name: probes.filesystem(folder) for name, folder in folders.items()}
    found = []
    for device, free_gib in dict(places.values()).items():
        names = [name for name in folders if places[name][0] == device]
        shown = [f"{name} ({folders[name]})" for name in names]
        found.append(checks.check_disk(shown, sum(takes[name] for name in names), free_gib))
    return found + [checks.check_writable(str(folder), probes.write_problem(folder)) for folder in folders.values()]


def _cost_table(examination: Examination) -> Table:
    left, done = examination.left, examination.done
    title = f"Estimate: {left} of {left + done} points to run, {done} done and free"
    table = Table("stage", "work", "count", "tokens", "time", "US dollars", title=title)
    for work, seconds, dollars in examination.costs:
        what, tokens, price = work.what, _amount(work.tokens) if any(work.tokens) else "", ""
        if work.model is not None:
            what, tokens = f"{what}, {work.model}", f"{_amount(work.asked)} in, {_amount(work.tokens)} out"
            price = "no price set" if dollars is None else _money(dollars)
        time = "" if seconds is None else show_time(seconds)
        table.add_row(work.stage, what, f"{work.number:,} {work.unit}", tokens, time, price)
    table.add_section()
    seconds, dollars = _together(examination.costs)
    table.add_row("", "together", "", "", show_time(seconds), "" if dollars is None else _money(dollars))
    return table


def _together(costs: Sequence[Cost]) -> Together:
    """Add up the seconds, one point after the other, and the dollars, None where nothing is paid."""
    paid = [one.dollars for one in costs if one.work.model is not None and one.dollars is not None]
    return Together(add_spans(one.seconds for one in costs if one.seconds is not None), add_spans(paid) if paid else None)


def _precision_table(found: Precision) -> Table:
    rates = [f"seeds at {rate:.0%}" + ("" if rate == 0.5 else f" or {1 - rate:.0%}") for rate in RATES]
    title = f"For a mean over seeds within ±{100 * found.wish:g} points (t 95% interval, on average)"
    table = Table("prompts x samples", "completions a cell and seed", *rates, "points", "time", "US dollars", title=title)
    for need in found.needs:
        seconds, dollars = need.takes
        money = "" if dollars is None else _money(dollars)
        said = f"{need.prompts} x {need.samples}", f"{need.prompts * need.samples:,}", *map(str, need.seeds)
        table.add_row(*said, f"{need.points:,}", show_time(seconds), money)
    return table


def _precision_remarks(found: Precision) -> list[str]:
    spread = found.spread
    known = (
        f"{spread.cells} cells and {spread.seeds} seeds of earlier points" if spread.cells else "no earlier points: the default"
    )
    return [
        f"Seeds differ by {50 * math.sqrt(spread.correlation):.1f} points (SD) around 50%, besides sampling, by {known}.",
        "A cell is a persona or a directive language. Points, time and dollars are of the seeds at 50%, as if nothing had run.",
        "For this interval more questions do what more samples do; only they let a rate speak for further questions.",
    ]


def _remarks(examination: Examination) -> list[str]:
    lines = ["Where two figures stand, the first is likely and the second is the most. Scoring and reports are not timed."]
    if any(one.work.unit == "calls" for one in examination.costs):
        lines.append("Nor is the time of Claude's answers. Retries, and what the cache already holds, are not counted.")
    if unpriced := [one.work for one in examination.costs if one.dollars is None]:
        named = ", ".join(dict.fromkeys(str(work.model) for work in unpriced))
        lines.append(f"The dollars leave out {sum(work.number for work in unpriced):,} calls of {named}: no price is set.")
    return lines


def _between(span: Span, said: Any) -> str:
    low, high = said(span.likely), said(span.most)
    return low if low == high else f"{low} - {high}"


def _amount(span: Span) -> str:
    return _between(span, lambda value: f"{value / 1e6:,.2f}M" if value >= 1e6 else f"{value / 1e3:,.1f}k")


def _money(span: Span) -> str:
    return _between(span, lambda value: f"{value:,.2f}")


def show_time(span: Span) -> str:
    """Write seconds as people do."""

    def said(seconds: float) -> str:
        if seconds < 90:
            return f"{seconds:.0f} s"
        minutes = round(seconds / 60)
        return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"

    return _between(span, said)
