"""Look at everything that a grid needs, reckon what it takes, and show both."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kedro.framework.session import KedroSession
from rich.console import Console
from rich.table import Table
from rich.text import Text

from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.packages import installed_version, package_requirements
from persona_leakage.preflight import checks, probes
from persona_leakage.preflight.checks import Check
from persona_leakage.preflight.estimate import (
    Cost,
    Estimates,
    Planned,
    Span,
    added,
    added_up,
    cost,
    disk_gib,
    gpu_need_gib,
    longest_tokens,
    outstanding_work,
    sources_of,
)
from persona_leakage.user_message import user_message

_PACKAGES = ("torch", "transformers", "peft", "trl")
_API_SECONDS = 10.0
_STYLES = {"ok": "green", "warning": "yellow", "blocked": "bold red", "not needed": "dim"}
_WIDTH = 200  # of output that goes into a file or a pipe


class Examination(NamedTuple):
    """What was found.

    Attributes:
        checks: in the order in which they are shown.
        costs: work that is left, by kind.
        start_seconds: of engines, one process a point.
        points: of the grid.
    """

    checks: list[Check]
    costs: list[Cost]
    start_seconds: float
    points: list[Planned]


def examine(points: list[Planned], env: str | None, params: dict[str, object], *, ask_api: bool) -> Examination:
    """Check this machine for the points that are not done, and reckon what they take.

    Args:
        points: of one family.
        env: Kedro environment.
        params: parameters given at run time.
        ask_api: try the API key on every Claude model, which costs nothing.

    Raises:
        UserError: the block `estimates` of the parameters does not fit its type.
    """
    with KedroSession.create(env=env, runtime_params=params) as session:
        context: Any = session.load_context()  # type: ignore[attr-defined]
        loader, catalog = context.config_loader, context.catalog
    estimates = Estimates.checked(loader["parameters"]["estimates"], "estimates")
    entries: Mapping[str, Any] = loader["catalog"]
    plans = [point.plan for point in points if not point.done]
    sources, available = _sources(_asked(plans), entries, catalog)
    client = catalog.load("language_model")
    work = outstanding_work(points, estimates, available)
    costs = [cost(one, estimates, client.prices, client.discount) for one in added_up(work)]
    generator = {"engine": "", "options": {}} | entries["generator"]
    base = BaseModel.checked(loader["parameters"]["base_model"], "base_model")

    found = [_gpu(estimates, generator, longest_tokens(plans) if plans else 0)]
    found.append(checks.check_memory(estimates.memory_gib, probes.available_memory_gib()))
    found += _packages(Path(context.project_path), generator["engine"])
    model, download = _base_model(base)
    found += [model, *sources, *checks.check_languages(plans), checks.check_estimates(estimates, base, generator["engine"])]
    found.append(checks.check_key(costs, has_key=client.has_key, asked=ask_api))
    if ask_api and client.has_key:
        models = dict.fromkeys(one.work.model for one in costs if one.work.model is not None)
        found += [checks.check_model(name, client.refusal(name, _API_SECONDS)) for name in models]
    found += checks.check_prices(costs)
    found += checks.check_ceiling(costs, client.spend_ceiling, batches=client.discount < 1)
    folders = {"data": Path(loader["globals"]["data"]), "cache": Path(entries["generator"].get("cache") or "data/cache")}
    takes = disk_gib(work, len(plans), estimates)
    if base.source == "package":
        takes["cache"] += estimates.weights_gib
    if download:
        folders["hub's cache"], takes["hub's cache"] = probes.hub_cache(), download
    found += _disk(folders, takes)
    starts = len(plans) * estimates.engine_start_seconds
    return Examination(found, costs, starts, points)


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


def blocked(examination: Examination) -> list[Check]:
    """List the checks that stand in the way."""
    return [check for check in examination.checks if check.state == "blocked"]


def _asked(plans: Iterable[Any]) -> dict[str, int]:
    asked: dict[str, int] = {}
    for plan in plans:
        for name, rows in sources_of(plan).items():
            asked[name] = max(rows, asked.get(name, 0))
    return asked


def _sources(asked: Mapping[str, int], entries: Mapping[str, Any], catalog: Any) -> tuple[list[Check], dict[str, int]]:
    """Check where training rows are read from; local data sets are read, of those on the hub only the revision is looked up."""
    found, available = [], {}
    for name, rows in asked.items():
        entry = entries[name]
        if entry.get("repository"):
            hub = probes.ask_hub("dataset", entry["repository"], entry["revision"])
            found.append(checks.check_hub_source(name, entry["repository"], entry["revision"], hub))
            continue
        try:
            has = len(catalog.load(name))
        except Exception as error:
            said = user_message(error)
            if said is None:
                raise
            found.append(checks.check_local_source(name, said, rows))
            continue
        available[name] = has
        found.append(checks.check_local_source(name, has, rows))
    return found, available


def _gpu(estimates: Estimates, generator: Mapping[str, Any], longest: int) -> Check:
    if estimates.gpu is None:
        return Check("GPU", "not needed", "this environment computes on any machine")
    gpu = probes.find_gpu()
    total = 0.0 if isinstance(gpu, str) else gpu.total_gib
    need = gpu_need_gib(estimates, estimates.gpu, generator["engine"], generator["options"] or {}, longest, total)
    return checks.check_gpu(need, gpu, estimates.gpu.name)


def _packages(project: Path, engine: str) -> list[Check]:
    """Check the packages that compute; vLLM where it samples, and then also what vLLM itself asks for."""
    samples_with_vllm = engine == "vllm_generator"
    own = probes.required_versions(project, "vllm" if samples_with_vllm else "")
    vllm = package_requirements("vllm") if samples_with_vllm else {}
    found = []
    for name in (*_PACKAGES, *(["vllm"] if samples_with_vllm else [])):
        asked = {who: versions[name] for who, versions in (("the project", own), ("vLLM", vllm)) if name in versions}
        found.append(checks.check_package(name, installed_version(name), asked))
    if not samples_with_vllm:
        found.append(Check("vllm", "not needed", "transformers samples the completions"))
    return found


def _base_model(base: BaseModel) -> tuple[Check, float]:
    if base.source == "hub":
        hub = probes.ask_hub("model", base.name, base.revision)
        return checks.check_hub_model(base, hub, probes.cached_files(base.name, base.revision))
    if base.source == "package":
        return checks.check_package_model(base, installed_version(base.name)), 0.0
    folder = Path(base.name)
    return checks.check_folder_model(base, [file.name for file in folder.iterdir()] if folder.is_dir() else []), 0.0


def _disk(folders: Mapping[str, Path], takes: Mapping[str, float]) -> list[Check]:
    """Check every filesystem once, for all folders that lie on it, and that each folder can be written to."""
    on: dict[int, list[str]] = {}
    free: dict[int, float] = {}
    for name, folder in folders.items():
        device, free_gib = probes.filesystem(folder)
        on.setdefault(device, []).append(name)
        free[device] = free_gib
    space = [
        checks.check_disk([f"{name} ({folders[name]})" for name in names], sum(takes[name] for name in names), free[device])
        for device, names in on.items()
    ]
    return space + [checks.check_writable(str(folder), probes.write_problem(folder)) for folder in folders.values()]


def _cost_table(examination: Examination) -> Table:
    points, done = len(examination.points), sum(point.done for point in examination.points)
    title = f"Estimate: {points - done} of {points} points to run, {done} done and free"
    table = Table("stage", "work", "count", "tokens", "time", "US dollars", title=title)
    for work, seconds, dollars in examination.costs:
        tokens = _amount(work.tokens) if work.model is None else f"{_amount(work.asked)} in, {_amount(work.tokens)} out"
        if work.unit == "prompts":
            tokens = ""
        price = "" if work.model is None else "no price set" if dollars is None else _money(dollars)
        what = work.what if work.model is None else f"{work.what}, {work.model}"
        table.add_row(
            work.stage, what, f"{work.number:,} {work.unit}", tokens, "" if seconds is None else _time(seconds), price
        )
    if examination.start_seconds:
        seconds = Span(examination.start_seconds, examination.start_seconds)
        table.add_row("", "starting engines", f"{points - done} processes", "", _time(seconds), "")
    table.add_section()
    paid = [one.dollars for one in examination.costs if one.work.model is not None and one.dollars is not None]
    table.add_row("", "together", "", "", _time(total_seconds(examination)), _money(added(paid)) if paid else "")
    return table


def total_seconds(examination: Examination) -> Span:
    """Add up what has a time: one point after the other, every one in a process of its own."""
    known = [one.seconds for one in examination.costs if one.seconds is not None]
    return added([*known, Span(examination.start_seconds, examination.start_seconds)])


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


def _time(span: Span) -> str:
    def said(seconds: float) -> str:
        if seconds < 90:
            return f"{seconds:.0f} s"
        minutes = round(seconds / 60)
        return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"

    return _between(span, said)
