"""Whether the cosine says more about the leakage than simpler things do."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from persona_leakage.domain.personas import Roster
from persona_leakage.experiments.marker_leakage.settings import Settings
from persona_leakage.experiments.marker_leakage.tables import OF, choose_headline_pool, is_known
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.rates import current

CONTROLS = {
    "lexical": "likeness of the two prompts' characters",
    "length": "length of the bystander's prompt",
    "cut": "share of its texts that were cut",
    "elsewhere": "its mean rate under other sources",
}
ALL = "all"
_KEYS = ("scope", "condition", "of", "control", "given", "n")
_FOUND = ("rho", "low", "high", "p")
CONTROL_COLUMNS = (*_KEYS, *_FOUND, *(f"{kind}_{name}" for kind in ("control", "partial") for name in _FOUND), "no_interval")


def control_leakage(pooled_leakage: pd.DataFrame, texts: pd.DataFrame, roster: Roster, settings: Settings) -> pd.DataFrame:
    """Correlate leakage with the cosine at the headline layer of the base model, raw and given simpler predictors.

    Controls of a source and a bystander: `lexical` (cosine of TF-IDF vectors of the two prompts' character 2- to 4-grams),
    `length` (characters of the bystander's prompt), `cut` (share of its completions that ended at the token limit), `elsewhere`
    (its mean rate under the other sources, follow-ups left out), and `all` that are known of every bystander. A control is
    unknown where a persona's prompt or how its completions ended is unknown, or where there is no other source.

    Returns:
        One row a scope (`source`, and `pooled_ranks`: all sources without follow-ups, ranked within each) x condition x of
        (`leakage`, `leakage:finished`) x control: given (controls, joined by commas), n (bystanders of which all is known), and
        Spearman's with its bootstrap 95% interval and two-sided p, over these n: rho, low, high, p of leakage with cosine;
        with the prefix control_ those of leakage with the control, with partial_ those of leakage with cosine given the
        controls; no_interval (of the partial one). n is 0 and all else unknown where the control is.
    """
    columns = {f"cosine_l{layer:.0f}" for layer in pooled_leakage["headline_layer"].dropna()}.intersection(pooled_leakage)
    rows: list[dict[str, object]] = []
    for column in columns:  # of a model, one
        bystanders = pooled_leakage[(pooled_leakage["role"] != "source") & pooled_leakage[column].notna()]
        for of in [of for of in OF if is_known(bystanders, of)]:
            known = _add_controls(bystanders[bystanders[OF[of]].notna()], texts, roster, settings, OF[of])
            for condition, chosen in known.groupby("condition", sort=False):
                rows += _compare({"scope": "source", "condition": condition, "of": of}, chosen, OF[of], column)
            studied = choose_headline_pool(known, settings)
            if studied["condition"].nunique() > 1:
                rows += _compare({"scope": "pooled_ranks", "condition": "all", "of": of}, studied, OF[of], column)
    return pd.DataFrame(rows, columns=CONTROL_COLUMNS)


def _compare(row: Mapping[str, object], chosen: pd.DataFrame, rate: str, column: str) -> list[dict[str, object]]:
    everywhere = [name for name in CONTROLS if chosen[name].notna().all()]
    rows, raws = [], {len(chosen): _correlate(chosen, rate, column)}
    for control, given in {**{name: [name] for name in CONTROLS}, ALL: everywhere}.items():
        known = chosen[chosen[given].notna().all(axis=1)] if given else chosen.iloc[:0]
        raw, partial = raws.get(len(known)) or _correlate(known, rate, column), _correlate(known, rate, column, given)
        alone = _correlate(known, rate, given[0]) if control != ALL else None
        found = {f"{kind}{name}": value for kind, of in (("", raw), ("partial_", partial)) for name, value in _told(of).items()}
        found |= {f"control_{name}": value for name, value in _told(alone).items()}
        said = {"control": control, "given": ", ".join(given), "n": len(known), "no_interval": partial.no_interval}
        rows.append({**row, **said, **found})
    return rows


def _correlate(known: pd.DataFrame, one: str, other: str, given: Sequence[str] = ()) -> Correlation:
    several = known["condition"].nunique() > 1
    return correlation(
        known[one].tolist(),
        known[other].tolist(),
        given=[known[name].tolist() for name in given],
        within=known["condition"].tolist() if several else None,
        clusters=[known["condition"].tolist(), known["persona"].tolist()] if several else (),
        resamples=1000,
    )


def _told(found: Correlation | None) -> dict[str, float]:
    return {name: math.nan if found is None else getattr(found, name) for name in _FOUND}


def _add_controls(bystanders: pd.DataFrame, texts: pd.DataFrame, roster: Roster, settings: Settings, rate: str) -> pd.DataFrame:
    """Add a column a control; NaN where it is unknown."""
    prompts = {one.persona: one.prompt for one in roster.personas}
    likeness = compare_prompts(prompts)
    keys = list(zip(bystanders["condition"], bystanders["source"], bystanders["persona"], strict=True))
    cut = {
        key: rows["cut"].astype(float).sum(skipna=False) / rows["n"].sum()
        for key, rows in current(texts).groupby(["condition", "persona"])
    }
    studied = choose_headline_pool(bystanders, settings)
    by_source = studied.pivot_table(index="persona", columns="source", values=rate, aggfunc="mean")
    return bystanders.assign(
        lexical=[likeness.get((source, persona), math.nan) for _, source, persona in keys],
        length=[float(len(prompts[persona])) if persona in prompts else math.nan for _, _, persona in keys],
        cut=[float(cut.get((condition, persona), math.nan)) for condition, _, persona in keys],
        elsewhere=[
            by_source.loc[persona].drop(source, errors="ignore").mean() if persona in by_source.index else math.nan
            for _, source, persona in keys
        ],
    )


def compare_prompts(prompts: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """Take the cosines of TF-IDF vectors of all prompts' character 2- to 4-grams: both personas → cosine."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import, and only this table needs it

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(prompts.values())
    likeness = (vectors @ vectors.T).toarray()
    return {(one, other): float(likeness[i, j]) for i, one in enumerate(prompts) for j, other in enumerate(prompts)}
