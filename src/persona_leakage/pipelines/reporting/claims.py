"""Verdicts on claims, from rates and rules that were written down before the run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import pandas as pd

from persona_leakage.domain.claims import Claim, CosinePredicts, RankOrder, RateBound, SameRates
from persona_leakage.domain.rates import Proportion, difference, proportion
from persona_leakage.pipelines.correlation import correlation
from persona_leakage.pipelines.reporting.page import interval

SIGNIFICANT = 0.05
_NO_ROWS = pd.DataFrame()


class Verdict(NamedTuple):
    """What the data say about a claim, the numbers behind it, and the rule that was applied."""

    verdict: Literal["holds", "fails", "undecided"]
    evidence: str
    rule: str


def judge_all(
    claims: Mapping[str, Claim], rates: pd.DataFrame, *, spill: pd.DataFrame = _NO_ROWS, correlations: pd.DataFrame = _NO_ROWS
) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `judge`.

    Returns:
        One row a claim: claim, statement, verdict (holds, fails, undecided), evidence (the numbers), rule.
    """
    rows, unnamed = [], _unnamed(claims, rates)
    for name, claim in claims.items():
        verdict = judge(claim, rates, spill=spill, correlations=correlations)
        evidence = verdict.evidence + _count_seeds(claim, rates) + unnamed
        rows.append({"claim": name, "statement": claim.statement, **verdict._replace(evidence=evidence)._asdict()})
    return pd.DataFrame(rows, columns=["claim", "statement", *Verdict._fields])


def judge(
    claim: Claim, rates: pd.DataFrame, *, spill: pd.DataFrame = _NO_ROWS, correlations: pd.DataFrame = _NO_ROWS
) -> Verdict:
    """Apply a claim's rule.

    Args:
        claim: the claim.
        rates: current points' rates, one row a cell x metric; `cell` and `part` (`all` pools the parts) name the cell.
        spill: rates and distances by condition and cell, which a `RankOrder` is about.
        correlations: of leakage with similarity by condition, which a `CosinePredicts` is about.
    """
    if isinstance(claim, RateBound):
        return _bound(claim, rates)
    if isinstance(claim, RankOrder):
        return _order(claim, spill)
    if isinstance(claim, CosinePredicts):
        return _predicts(claim, correlations)
    return _same(claim, rates)


def _bound(claim: RateBound, rates: pd.DataFrame) -> Verdict:
    low = -math.inf if claim.at_least is None else claim.at_least
    high = math.inf if claim.at_most is None else claim.at_most
    limits = {"at least": claim.at_least, "at most": claim.at_most}
    said = " and ".join(f"{side} {limit:.0%}" for side, limit in limits.items() if limit is not None)
    cells = [one for one in _pool_seeds(rates, claim.metric, claim.conditions) if claim.role in one.role.split("+")]
    scored = [one for one in cells if one.counts.n]
    obeying = [one for one in scored if low <= one.counts.rate <= high]
    evidence = ""
    if scored:
        worst = max(scored, key=lambda one: max(one.counts.rate - high, low - one.counts.rate))
        hits, n, rate, lower, upper = worst.counts
        evidence = (
            f"{len(obeying)} of {len(scored)} cells obey; furthest: {worst.condition} under {worst.cell} "
            f"{hits}/{n} = {rate:.1%} [{lower:.1%}, {upper:.1%}]"
        )
    return _decide(
        f"{claim.metric} in every {claim.role} cell {said}",
        evidence,
        claim.conditions,
        [one.condition for one in scored],
        fails=any(one.counts.high < low or one.counts.low > high for one in scored),
        holds=len(obeying) == len(cells) > 0,
    )


def _order(claim: RankOrder, spill: pd.DataFrame) -> Verdict:
    chosen = spill[spill["condition"].isin(claim.conditions) & (spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    rate = {"contamination": "rate", "following": "following_rate"}[claim.metric]
    predictor = {"typological_distance": "distance"}[claim.predictor]
    known = chosen[chosen[rate].notna()]
    conditions, languages = known["condition"].tolist(), known["directive_language"].tolist()
    found = correlation(known[rate].tolist(), known[predictor].tolist(), within=conditions, clusters=[conditions, languages])
    sure, falls = found.permutation_p < SIGNIFICANT, claim.direction == "falls"
    shown = interval(found.rho, found.low, found.high, found.no_interval)
    return _decide(
        f"Spearman of bystander {claim.metric} with {claim.predictor}, ranked within each condition: "
        f"{'below' if falls else 'above'} 0, permutation p within conditions below {SIGNIFICANT}",
        f"undefined over {found.n} cells (too few, or no variation)"
        if math.isnan(found.rho)
        else f"rho {shown}, permutation p {found.permutation_p:.2g}, n {found.n} cells within {len(set(conditions))}",
        claim.conditions,
        chosen["condition"],
        fails=sure and (found.rho > 0) == falls,
        holds=sure and (found.rho < 0) == falls,
    )


def _predicts(claim: CosinePredicts, correlations: pd.DataFrame) -> Verdict:
    chosen = correlations[
        (correlations["scope"] == "source")
        & (correlations["geometry"] == claim.geometry)
        & (correlations["layer"] == claim.layer)
        & correlations["condition"].isin(claim.conditions)
        & ((correlations["of"] == "leakage") | (correlations["n"] > 0))  # how completions ended may be unknown
    ]
    adjusted = pd.concat([_adjust(rows) for _, rows in chosen.groupby("of", sort=False)] or [chosen.assign(holm=math.nan)])
    sure = adjusted["holm"] < SIGNIFICANT
    below = (sure & (adjusted["rho"] < 0)).groupby(adjusted["condition"]).all()
    shown = [
        f"{'' if row.of == 'leakage' else 'finished texts: '}{row.condition} "
        f"{interval(row.rho, row.low, row.high, row.no_interval)} (n {row.n}"
        + (")" if math.isnan(row.rho) else f", p {row.p:.2g}, Holm {row.holm:.2g})")
        for row in adjusted.itertuples()
    ]
    return _decide(
        f"in every condition, Spearman of bystander leakage with the {claim.geometry} at layer {claim.layer}: above 0, "
        f"two-sided p below {SIGNIFICANT} after Holm over conditions; over finished texts too where known",
        "; ".join(shown),
        claim.conditions,
        adjusted["condition"],
        fails=bool(below.any()),
        holds=bool((sure & (adjusted["rho"] > 0)).all()),
    )


def _adjust(correlations: pd.DataFrame) -> pd.DataFrame:
    """Adjust p values for their number (Holm 1979); an undefined one counts as 1."""
    from statsmodels.stats.multitest import multipletests  # slow to import, and only tables need it

    return correlations.assign(holm=multipletests(correlations["p"].fillna(1), method="holm")[1])


def _same(claim: SameRates, rates: pd.DataFrame) -> Verdict:
    rule = f"{claim.metric} of bystander cells differs by at most {claim.margin:.0%} between {claim.between}"
    wanted = [name for pair in claim.pairs for name in pair] if claim.between == "conditions" else list(claim.conditions)
    cells = _pool_seeds(rates, claim.metric, wanted, split=claim.between == "phrasings")
    known = {one[:3]: one for one in cells}
    if claim.between == "conditions":
        pairs = [
            (f"{first} v {second}", one, known.get((second, one.cell, one.part)))
            for first, second in claim.pairs
            for one in cells
            if one.condition == first
        ]
    else:
        phrasings = list(dict.fromkeys(one.part for one in cells))[:2]
        pairs = [
            (one.condition, one, known.get((one.condition, one.cell, second)))
            for first, second in pairwise(phrasings)
            for one in cells
            if one.part == first
        ]
    compared = [
        (f"{name} under {one.cell}", one.counts, other.counts, difference(one.counts, other.counts))
        for name, one, other in pairs
        if other and one.role == other.role == "bystander" and one.counts.n and other.counts.n
    ]
    ran = [one.condition for one in cells]
    if not compared:
        return _decide(rule, "", wanted, ran, fails=False, holds=False)
    within = [name for name, _, _, gap in compared if round(abs(gap.value), 12) <= claim.margin]  # 0.15 + 1 ulp is 0.15
    where, one, other, widest = max(compared, key=lambda item: abs(item[-1].value))
    return _decide(
        rule,
        f"{len(within)} of {len(compared)} within; widest: {where} {one.hits}/{one.n} v {other.hits}/{other.n} "
        f"({widest.value:+.0%} [{widest.low:+.0%}, {widest.high:+.0%}])",
        wanted,
        ran,
        fails=any(gap.low > claim.margin or gap.high < -claim.margin for *_, gap in compared),
        holds=len(within) == len(compared),
    )


def _decide(rule: str, evidence: str, wanted: Sequence[str], ran: Iterable[str], *, fails: bool, holds: bool) -> Verdict:
    """Give the verdict; a claim about a condition that has not run does not hold."""
    missing = [name for name in dict.fromkeys(wanted) if name not in set(ran)]
    said = [part for part in (evidence, f"not run: {', '.join(missing)}" if missing else "") if part]
    evidence = "; ".join(said) or "nothing to compare"
    return Verdict("fails" if fails else "holds" if holds and not missing else "undecided", evidence, rule)


class _Cell(NamedTuple):
    condition: str
    cell: str
    part: str
    role: str
    counts: Proportion


def _pool_seeds(rates: pd.DataFrame, metric: str, conditions: Sequence[str], *, split: bool = False) -> list[_Cell]:
    """Count a metric in every cell over all seeds; parts of a cell apart when `split`."""
    chosen = rates[(rates["metric"] == metric) & rates["condition"].isin(conditions) & ((rates["part"] != "all") == split)]
    grouped = chosen.groupby(["condition", "cell", "part", "role"], sort=False)[["hits", "n"]].sum()
    return [
        _Cell(condition, cell, part, role, proportion(int(hits), int(n)))
        for (condition, cell, part, role), hits, n in grouped.itertuples(name=None)
    ]


def _unnamed(claims: Mapping[str, Claim], rates: pd.DataFrame) -> str:
    """Say which trained conditions ran and are named by no claim, so that nobody takes a verdict for one about them."""
    named = {condition for claim in claims.values() for condition in claim.terms["condition"]}
    trained = rates.loc[rates["reference"] != rates["condition"], "condition"]  # a baseline is compared with itself
    unnamed = [condition for condition in dict.fromkeys(trained) if condition not in named]
    return f"; ran, but listed in no claim: {', '.join(unnamed)}" if unnamed else ""


def _count_seeds(claim: Claim, rates: pd.DataFrame) -> str:
    """Say how many seeds stand behind each condition's numbers, where any has several."""
    seeds = rates[rates["condition"].isin(claim.terms["condition"])].groupby("condition", sort=False)["seed"].nunique()
    if seeds.empty or seeds.max() == 1:
        return ""
    if seeds.nunique() == 1:
        return f"; {seeds.iloc[0]} seeds of each condition pooled"
    return f"; seeds pooled: {', '.join(f'{name} {count}' for name, count in seeds.items())}"
