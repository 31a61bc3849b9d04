"""Judge what was found against what is needed: one row each, with the remedy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from packaging.specifiers import SpecifierSet

from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import Plan
from persona_leakage.preflight.estimate import Cost, Estimates
from persona_leakage.preflight.probes import Gpu, OnHub

State = Literal["ok", "warning", "blocked", "not needed"]


class Check(NamedTuple):
    """What was looked at, how it stands, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    remedy: str = ""


def check_gpu(need_gib: float, gpu: Gpu | str, measured_on: str) -> Check:
    """Compare the GPU's free memory with what a process needs at its peak."""
    if isinstance(gpu, str):
        return Check("GPU", "blocked", gpu, "run on a machine with a GPU and torch for it, or take --env embedded")
    found = f"{gpu.name}, {gpu.free_gib:.0f} of {gpu.total_gib:.0f} GiB free, about {need_gib:.0f} needed"
    if need_gib > gpu.total_gib:
        remedy = "lower the generator's memory_share or batch_rows and the recipe's batch_size, or take a larger GPU"
        return Check("GPU", "blocked", found, remedy)
    if need_gib > gpu.free_gib:
        return Check("GPU", "blocked", found, "end what else runs on it (nvidia-smi lists that), or lower memory_share")
    if measured_on not in gpu.name:
        return Check("GPU", "warning", found, f"the speeds below were measured on {measured_on}: set those under estimates")
    return Check("GPU", "ok", found)


def check_memory(need_gib: float, available_gib: float) -> Check:
    """Compare the memory for new processes with what one needs."""
    found = f"{available_gib:.1f} GiB available, about {need_gib:.1f} needed"
    if need_gib > available_gib:
        return Check("memory", "warning", found, "end other programs, or the run may be slow or killed")
    return Check("memory", "ok", found)


def check_package(name: str, installed: str | None, wanted: Mapping[str, SpecifierSet]) -> Check:
    """Compare an installed package with who asks for which versions of it.

    What the project asks for is what it was tested with, so another version is a warning; what a package's own binaries were
    built against is not a matter of taste.
    """
    asked = "; ".join(f"{who} asks for {versions}" for who, versions in wanted.items() if versions) or "any version will do"
    if installed is None:
        extra = "'.[vllm]'" if name == "vllm" else "."
        return Check(name, "blocked", f"not installed; {asked}", f"pip install --editable {extra}")
    found = f"{installed}; {asked}"
    unfit = [who for who, versions in wanted.items() if not versions.contains(installed, prereleases=True)]
    remedy = " ".join(f"'{name}{wanted[who]}'" for who in unfit)
    if set(unfit) - {"the project"}:
        return Check(name, "blocked", found, f"pip install {remedy}")
    if unfit:
        return Check(name, "warning", found, f"not what the project was tested with: pip install {remedy}")
    return Check(name, "ok", found)


def check_estimates(estimates: Estimates, bases: Iterable[BaseModel], generator: str) -> Check:
    """Tell whether the numbers of the estimate belong to the base models and to the generator."""
    off = []
    if others := ", ".join(base.name for base in bases if base.name != estimates.base_model):
        off.append(f"set the numbers under estimates for {others}: sizes, times and dollars below are off")
    if estimates.generator != generator:
        off.append(f"the generator is {generator or 'another'}: set generation_tokens_per_second, below it is off")
    found = f"for {estimates.base_model}, {estimates.generator}"
    return Check("estimates", "warning" if off else "ok", found, "; ".join(off))


def check_languages(plans: Iterable[Plan]) -> list[Check]:
    """List conditions whose texts nobody translates: they would fail once all other translations are paid for."""
    needed = [(plan, stage.data.translated) for plan in plans for stage in plan.stages.values()]
    lacking = {
        f"{plan.address.condition} needs {texts.language.name}": 0 for plan, texts in needed if texts and not texts.listed
    }
    remedy = "add the language to translation.languages, or leave the condition out of --axes"
    return [Check("translations", "blocked", f"{', '.join(lacking)}; it is not translated", remedy)] if lacking else []


def weight_files(files: Iterable[str]) -> list[str]:
    """Choose the files that are needed of a model's repository: safetensors, configuration and tokenizer."""
    return [name for name in files if "/" not in name and name.endswith((".safetensors", ".json", ".txt"))]


def check_hub_model(base: BaseModel, hub: OnHub, cached: Mapping[str, int]) -> tuple[Check, float]:
    """Compare the hub's files with those in the cache.

    Returns:
        The check, and the GiB that are still to be downloaded.
    """
    name = f"{base.name} at {base.revision:.12}"
    here = f"cached, {sum(cached[file] for file in weight_files(cached)) / 2**30:.1f} GiB"
    missing = [file for file in weight_files(hub.files) if file not in cached]
    download = sum(hub.files[file] for file in missing) / 2**30
    if hub.state == "found":
        check = Check("base model", "ok", f"{name}: {f'{download:.1f} GiB to download' if missing else here}")
    elif hub.state == "refused":
        check = Check("base model", "blocked", f"{name}: {hub.said}", "correct base_model, or ask for access and log in")
    elif any(file.endswith(".safetensors") for file in cached):
        found = f"{name}: {here}; the hub is not reachable ({hub.said})"
        check = Check("base model", "warning", found, "if files are missing in the cache, loading it will fail")
    else:
        remedy = "connect to the hub, or give base_model source: folder and the path of a copy"
        check = Check("base model", "blocked", f"{name}: hub not reachable ({hub.said}), not in the cache", remedy)
    return check, download


def check_package_model(base: BaseModel, installed: Mapping[str, str | None]) -> Check:
    """Tell whether the packages that carry the base model are there in the right version."""
    others = {package: version for package, version in installed.items() if version != base.revision}
    name = f"{base.name} {base.revision}, {len(installed)} packages" if base.parts else f"package {base.name} {base.revision}"
    if not others:
        return Check("base model", "ok", name)
    package, version = next(iter(others.items()))
    said = "not installed" if version is None else f"{version} is installed"
    found = f"{name}: {package}: {said}" if base.parts else f"{name}: {said}"
    return Check("base model", "blocked", found, base.installed_by)


def check_folder_model(base: BaseModel, files: Sequence[str]) -> Check:
    """Tell whether a folder holds a model; `files` are the names in it."""
    if "config.json" in files and any(name.endswith(".safetensors") for name in files):
        return Check("base model", "ok", f"folder {base.name}")
    found = f"folder {base.name}: no config.json with *.safetensors beside it"
    return Check("base model", "blocked", found, "correct base_model.name, or put the model there")


def check_template(base: BaseModel, refusal: str | None, remarks: Sequence[str]) -> Check:
    """Tell what was seen of a base model's chat template; the sentence says what is wrong, and what follows it what to do."""
    said = [refusal] if refusal else remarks
    found, remedies = zip(*(one.partition("; ")[::2] for one in said), strict=True) if said else ([base.name], [])
    state: State = "blocked" if refusal else "warning" if remarks else "ok"
    return Check("chat template", state, "; ".join(found), "; ".join(remedies))


def check_hub_source(name: str, repository: str, revision: str, hub: OnHub) -> Check:
    """Tell whether the hub has a data set; its rows are streamed anew by every run, so it must be reachable."""
    found = f"{repository} at {revision:.12}"
    if hub.state == "found":
        return Check(name, "ok", f"{found}, streamed")
    if hub.state == "refused":
        return Check(name, "blocked", f"{found}: {hub.said}", f"correct {name} in the catalog, or ask for access and log in")
    remedy = f"connect to the hub, or give {name} a filepath in the catalog"
    return Check(name, "blocked", f"{found}: hub not reachable ({hub.said})", remedy)


def check_local_source(name: str, rows: int | str, asked: int) -> Check:
    """Compare the rows of a local data set (a text: why it cannot be read) with what the plans ask for."""
    if isinstance(rows, str):
        return Check(name, "blocked", rows, f"mend what {name} reads in the catalog")
    if rows == 0:
        return Check(name, "blocked", "no rows", f"give {name} rows in the catalog")
    if rows < asked:
        return Check(name, "warning", f"{rows:,} rows, {asked:,} asked for", f"all are taken; give {name} more in the catalog")
    return Check(name, "ok", f"{rows:,} rows, {asked:,} asked for")


def check_key(costs: Sequence[Cost], *, has_key: bool, asked: bool) -> Check:
    """Tell whether Claude can be asked: translations stop a run that lacks them, a judge only leaves rows unscored."""
    calls = [one.work for one in costs if one.work.unit == "calls"]
    if not calls:
        return Check("API key", "not needed", "no step that is left asks Claude")
    if has_key:
        return Check("API key", "ok", "set" if asked else "set; --ask-api tries it")
    named = ", ".join(dict.fromkeys(work.what for work in calls))
    remedy = "set ANTHROPIC_API_KEY"
    if any(work.stage == "data_generation" for work in calls):
        return Check("API key", "blocked", f"not set; needed for {named}", remedy)
    return Check("API key", "warning", f"not set; without it there is no {named}", f"{remedy}, or the rows stay unscored")


def check_model(model: str, refusal: str | None) -> Check:
    """Tell what the API said of a Claude model."""
    if refusal is None:
        return Check(model, "ok", "the API knows it")
    return Check(model, "blocked", refusal, "correct the key, the model's name or the connection")


def check_prices(costs: Sequence[Cost]) -> list[Check]:
    """List Claude models without a price: the client asks them nothing."""
    unpriced = dict.fromkeys(one.work.model for one in costs if one.work.unit == "calls" and one.dollars is None)
    remedy = "add it to the prices of language_model in the catalog; until then it is asked nothing"
    return [Check(str(model), "blocked", "no price is set", remedy) for model in unpriced]


def check_ceiling(costs: Sequence[Cost], ceiling: float, *, batches: bool) -> list[Check]:
    """List sets of calls that pass the client's spend ceiling; batches are reckoned at most, single calls as they come."""
    checks = []
    for one in costs:
        if one.work.jobs and one.dollars is not None:
            reached = (one.dollars.most if batches else one.dollars.likely) / one.work.jobs
            if reached > ceiling:
                found = f"{one.work.what}: about ${reached:,.2f} in one step, the ceiling is ${ceiling:,.2f}"
                remedy = "raise spend_ceiling of language_model in the catalog, or start the same command again for the rest"
                checks.append(Check("spend ceiling", "warning", found, remedy))
    return checks


def check_disk(folders: Sequence[str], need_gib: float, free_gib: float) -> Check:
    """Compare a filesystem's free space with what the folders on it will take at most."""
    found = f"{', '.join(folders)}: {free_gib:,.1f} GiB free, at most {need_gib:,.1f} needed"
    if need_gib > free_gib:
        return Check("disk", "blocked", found, "make room, move data (globals.yml) or HF_HOME elsewhere, or run fewer points")
    return Check("disk", "ok", found)


def check_writable(folder: str, problem: str | None) -> Check:
    """Tell whether a folder can be written to."""
    if problem is None:
        return Check("write", "ok", folder)
    return Check("write", "blocked", f"{folder}: {problem}", "allow writing there, or set data in globals.yml")
