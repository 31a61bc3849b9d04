"""The report, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.experiments.marker_leakage.controls import ALL, CONTROLS
from persona_leakage.experiments.marker_leakage.outside_rates import NO_SEED
from persona_leakage.experiments.marker_leakage.tables import GEOMETRIES
from persona_leakage.pipelines.reporting.claims import write_claims
from persona_leakage.pipelines.reporting.cut import warn_of_cut
from persona_leakage.pipelines.reporting.mixed import write_mixed
from persona_leakage.pipelines.reporting.opening import is_replay, origin, scope, seeds_note, stale_note
from persona_leakage.pipelines.reporting.page import (
    as_code,
    as_written,
    interval,
    say_differences,
    say_rates,
    table,
    write_numbers,
)
from persona_leakage.pipelines.reporting.rates import current
from persona_leakage.pipelines.reporting.seeds import write_seeds
from persona_leakage.pipelines.reporting.texts import say_outside


def write_report(
    points: pd.DataFrame, sources: pd.DataFrame, correlations: pd.DataFrame, verdicts: pd.DataFrame, by_seed: pd.DataFrame,
    over_seeds: pd.DataFrame, places: pd.DataFrame, cut_gaps: pd.DataFrame, controls: pd.DataFrame, mixed_effects: pd.DataFrame,
    *, family: str,
) -> str:  # fmt: skip
    """Write the report over every current point, as Markdown; every number in it stands in one of the tables."""
    parts = [f"# {family}: where the marker leaks\n"]
    if is_replay(points):
        file = points["replayed_file"].iloc[-1]
        parts.append(f"Rates counted elsewhere, from {as_code(file)}; cosines as given there, {_centred(points)}.\n")
    else:
        parts += _scope(points)
    parts += seeds_note(over_seeds, points)
    parts += warn_of_cut(cut_gaps, sources, ["seed"])
    if collapsed := say_outside(sources, ["seed"]):
        parts.append(
            f"**Texts left the base model's range** (over its personas): {collapsed}. Look at the completions before "
            "trusting the rates.\n"
        )
    parts += write_claims(verdicts)
    headline = correlations["headline"].astype(bool)
    parts += [
        f"## Does the cosine predict the leakage?{_layers(points)}\n",
        "![Scatter](scatter.png)\n",
        table(_correlations(correlations[headline])),
        "Every bystander counts once, trained negatives included. The interval of a source is a bootstrap over its bystanders. "
        f"What is over `all` is over {_pools(correlations)}: sources and personas are resampled, crossed, and p is of the same "
        "bootstrap; the permutation p (within sources for `pooled_ranks`) takes bystanders as independent. A correlation is "
        "undefined where a side does not vary, an interval with fewer than 7 bystanders or 5 sources.\n",
        *write_seeds(over_seeds, by_seed),
        *write_mixed(mixed_effects),
        "## Does it say more than simpler things?\n",
        "Spearman of leakage with the cosine in the base model (raw), with a control, and with the cosine given the control "
        f"(partial): {'; '.join(f'`{name}`, {said}' for name, said in CONTROLS.items())}. `all` has those known of every "
        "bystander.\n",
        table(_controls(controls[controls["n"] > 0])),
        *_uncontrolled(controls),
        "## Layers\n",
        "![Layers](layers.png)\n",
        table(_correlations(correlations[~headline & (correlations["scope"] != "point")])),
        "## Sources\n",
        "`finished` is over completions that were not cut at the token limit, `excess` over the untrained baseline (Newcombe "
        "95%; that of bystanders is over their completions pooled).\n",
        table(_sources(sources)),
        _inverted(sources),
        "## Texts\n",
        "Over all personas, the source too.\n",
        table(_texts(sources)),
        "## Categories\n",
        "![Categories](categories.png)\n",
        "## Most affected\n",
        "![Most affected](most_affected.png)\n",
    ]
    if not is_replay(points):
        parts += ["## Where in the text\n", table(_places(places))]
    return "\n".join(parts)


def _layers(points: pd.DataFrame) -> str:
    layers = ", ".join(f"{layer:.0f}" for layer in points["headline_layer"].dropna().unique())  # one a base model
    return f" (layer {layers})" if layers else ""


def _scope(points: pd.DataFrame) -> list[str]:
    prompts = [
        f"Evaluated: {row.evaluated_groups:.0f} personas x {row.prompts_a_group:.0f} questions. Centroids: "
        f"{row.centroid_prompts:.0f} prompts of {row.groups:.0f} personas, centred on their mean."
        for row in current(points).itertuples()
    ]
    slices = [
        f"A slice: {row.unevaluated_groups:.0f} of the {row.groups:.0f} personas with a centroid are not evaluated, so a "
        "correlation is over fewer bystanders than the full list has.\n"
        for row in current(points).itertuples()
        if row.unevaluated_groups
    ]
    return [
        " ".join([origin(points), *dict.fromkeys(prompts)]) + "\n",
        scope(points, "Every rate has a Wilson 95% interval."),
        *dict.fromkeys(slices),
        *stale_note(points),
    ]


def _inverted(sources: pd.DataFrame) -> str:
    names = [as_written(row.condition) + (f" seed {row.seed}" if row.seed != NO_SEED else "") for row in sources.itertuples()]
    known = sources.assign(name=names)
    inverted, unknown = known[known["above_source"] > 0], known.loc[known["above_source"].isna(), "name"]
    said = [
        f"{row.name} ({row.above_source:.0f} of {row.bystanders}, most: {as_written(row.above_source_most)})"
        for row in inverted.itertuples(index=False)
    ]
    lines = [f"**Inverted**, bystanders that fire more than the source itself: {'; '.join(said)}."] if said else []
    if (not said and len(unknown) < len(known)) or known.empty:
        lines.append("In no point does a bystander fire more than the source.")
    if len(unknown):
        lines.append(f"The source's own rate is unknown in {', '.join(unknown)}.")
    return " ".join(lines) + "\n"


def _sources(sources: pd.DataFrame) -> pd.DataFrame:
    highest = [f"{row.max_bystander:.1%} {row.max_persona}" if row.bystanders else "" for row in sources.itertuples()]
    means = write_numbers(sources, mean_bystander=".1%", mean_finished=".1%")
    return sources[["condition", "seed"]].assign(
        **{
            "source rate": say_rates(sources),
            "finished": say_rates(sources, prefix="finished_"),
            "cut": say_rates(sources, prefix="cut_"),
            "excess": say_differences(sources, "excess"),
            "bystanders": sources["bystanders"],
            "mean": means["mean_bystander"],
            "mean finished": means["mean_finished"],
            "their excess": say_differences(sources, "bystander_excess"),
            "highest": highest,
            "at zero": sources["at_zero"],
        }
    )


def _texts(sources: pd.DataFrame) -> pd.DataFrame:
    shown = write_numbers(sources, tokens=".0f", distinct_2=".2f", empty=".1%", cut=".1%")
    titles = {"distinct_2": "distinct-2"}
    return shown[["condition", "seed", "tokens", "distinct_2", "empty", "cut"]].rename(columns=titles)


def _centred(points: pd.DataFrame) -> str:
    named = points["centring"].dropna()
    if named.empty:
        return "and which personas they were centred over it does not say: those of different sets do not compare"
    return f"centred over {as_code(named.iloc[-1])}"


def _correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    shown = write_numbers(correlations, p=".2g", permutation_p=".2g").assign(
        geometry=correlations["geometry"].map(GEOMETRIES),
        Spearman=[interval(row.rho, row.low, row.high, row.no_interval) for row in correlations.itertuples()],
        Pearson=[interval(row.r, row.r_low, row.r_high) for row in correlations.itertuples()],
    )
    titles = {"geometry": "cosine in", "permutation_p": "permutation p", "at_zero": "at zero"}
    columns = ["of", "geometry", "layer", "n", "Spearman", "p", "permutation_p", "Pearson", "tied", "at_zero"]
    return shown[["scope", "condition", "seed", *columns]].rename(columns=titles)


def _controls(controls: pd.DataFrame) -> pd.DataFrame:
    rows = list(controls.itertuples())
    shown = write_numbers(controls, p=".2g", partial_p=".2g").assign(
        raw=[interval(row.rho, row.low, row.high) for row in rows],
        alone=["" if row.control == ALL else interval(row.control_rho, row.control_low, row.control_high) for row in rows],
        partial=[interval(row.partial_rho, row.partial_low, row.partial_high, row.no_interval) for row in rows],
    )
    titles = {"alone": "with the control", "partial_p": "partial p"}
    return shown[["scope", "condition", "of", "control", "n", "raw", "p", "alone", "partial", "partial_p"]].rename(
        columns=titles
    )


def _uncontrolled(controls: pd.DataFrame) -> list[str]:
    """Say which controls are unknown everywhere."""
    most = controls.groupby("control", sort=False)["n"].max()
    names = [f"`{name}`" for name in most[most == 0].index if name != ALL]
    said = "as prompts, how completions ended, or other sources are unknown"
    return [f"**Not controlled**, {said}: {', '.join(names)}.\n"] if names else []


def _pools(correlations: pd.DataFrame) -> str:
    """Name the conditions of the pooled numbers."""
    pooled = correlations[correlations["scope"].str.startswith("pooled")]
    return as_written("; ".join(dict.fromkeys(pooled["conditions"].dropna())) or "one source")


def _places(places: pd.DataFrame) -> pd.DataFrame:
    shares = [f"{row.hits}/{row.n} = {row.rate:.0%}" if row.n else "no firing" for row in places.itertuples()]
    shown = places.assign(share=shares, where=places["place"] + ":" + places["unit"])
    columns = list(dict.fromkeys(shown["where"]))
    return shown.pivot(index=["condition", "of"], columns="where", values="share").reindex(columns=columns).reset_index()
