"""Verdicts on claims, from rates and rules that were written down before the run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from persona_leakage.domain.plan import Claim, CosinePredicts, RankOrder, RateBound, SameRates
from persona_leakage.domain.rates import Proportion, difference, proportion
from persona_leakage.pipelines.correlation import rank_correlation


class Verdict(NamedTuple):
    """What the data say about a claim, the numbers behind it, and the rule that was applied."""

    verdict: Literal["holds", "fails", "undecided"]
    evidence: str
    rule: str


def judge_all(claims: Mapping[str, Claim], rates: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `judge`.

    Returns:
        One row a claim: claim, statement, verdict (holds, fails, undecided), evidence (the numbers), rule.
    """
    rows = []
    for name, claim in claims.items():
        verdict = judge(claim, rates, cells)
        evidence = verdict.evidence + _pooled(claim, rates)
        rows.append({"claim": name, "statement": claim.statement, **verdict._replace(evidence=evidence)._asdict()})
    return pd.DataFrame(rows, columns=["claim", "statement", *Verdict._fields])


def judge(claim: Claim, rates: pd.DataFrame, cells: pd.DataFrame) -> Verdict:
    """Apply a claim's rule.

    Args:
        claim: the claim.
        rates: current points' rates, one row a cell x metric; `cell` and `part` (`all` pools the parts) name the cell.
        cells: what a correlation is about: the spill table of a `RankOrder`, the correlations of a `CosinePredicts`.
    """
    if isinstance(claim, RateBound):
        return _bound(claim, rates)
    if isinstance(claim, RankOrder):
        return _order(claim, cells)
    if isinstance(claim, CosinePredicts):
        return _predicts(claim, cells)
    return _same(claim, rates)


def _bound(claim: RateBound, rates: pd.DataFrame) -> Verdict:
    low, high = claim.at_least or 0.0, 1.0 if claim.at_most is None else claim.at_most
    limits = [f"at least {low:.0%}"] * (claim.at_least is not None) + [f"at most {high:.0%}"] * (claim.at_most is not None)
    rule = f"{claim.metric} in every {claim.role} cell {' and '.join(limits)}"
    of_any_role = _cells(rates, claim.metric, claim.conditions)
    cells = {key: cell for key, (role, cell) in of_any_role.items() if claim.role in role.split("+") and cell.n}
    missing = _missing(claim.conditions, cells)
    if not cells:
        return Verdict("undecided", f"not run: {', '.join(missing)}", rule)
    beyond = {key: cell for key, cell in cells.items() if cell.high < low or cell.low > high}
    outside = {key: cell for key, cell in cells.items() if not low <= cell.rate <= high}
    unscored = [key for key, (role, cell) in of_any_role.items() if claim.role in role.split("+") and not cell.n]

    def excess(item: tuple[tuple[str, str, str], Proportion]) -> float:
        over = [] if claim.at_most is None else [item[1].rate - high]
        return max(over + ([] if claim.at_least is None else [low - item[1].rate]))

    worst = max(cells.items(), key=excess)
    evidence = f"{len(cells) - len(outside)} of {len(cells)} cells obey; furthest: {_say(*worst)}" + _also(missing)
    complete = not outside and not missing and not unscored
    return Verdict("fails" if beyond else "holds" if complete else "undecided", evidence, rule)


def _order(claim: RankOrder, spill: pd.DataFrame) -> Verdict:
    chosen = spill[spill["condition"].isin(claim.conditions) & (spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    rate = {"contamination": "rate", "following": "following_rate"}[claim.metric]
    predictor = {"typological_distance": "distance"}[claim.predictor]
    result = rank_correlation(chosen[rate].tolist(), chosen[predictor].tolist())
    side = "below" if claim.direction == "falls" else "above"
    rule = f"Spearman of bystander {claim.metric} with {claim.predictor}: 95% interval wholly {side} 0"
    missing = _missing(claim.conditions, [(name, "", "") for name in chosen["condition"]])
    if math.isnan(result.rho):
        return Verdict("undecided", f"undefined over {result.n} cells (too few, or no variation)" + _also(missing), rule)
    evidence = f"rho {result.rho:.2f} [{result.low:.2f}, {result.high:.2f}], p {result.p:.3f}, n {result.n} cells" + _also(
        missing
    )
    low, high = (result.low, result.high) if claim.direction == "rises" else (-result.high, -result.low)
    return Verdict("fails" if high < 0 else "holds" if low > 0 and not missing else "undecided", evidence, rule)


def _predicts(claim: CosinePredicts, correlations: pd.DataFrame) -> Verdict:
    rule = (
        f"in every condition, Spearman of bystander leakage with the {claim.geometry} at layer {claim.layer}: 95% interval "
        "wholly above 0"
    )
    chosen = correlations[
        (correlations["scope"] == "source")
        & (correlations["geometry"] == claim.geometry)
        & (correlations["layer"] == claim.layer)
        & correlations["condition"].isin(claim.conditions)
    ]
    missing = _missing(claim.conditions, [(name, "", "") for name in chosen["condition"]])
    if chosen.empty:
        return Verdict("undecided", f"not run: {', '.join(missing)}", rule)
    said = [
        f"{row.condition} undefined (n {row.n})"
        if math.isnan(row.rho)
        else f"{row.condition} {row.rho:.2f} [{row.low:.2f}, {row.high:.2f}] (n {row.n})"
        for row in chosen.itertuples()
    ]
    holds = bool((chosen["low"] > 0).all()) and not missing  # an undefined one is NaN and does not hold
    verdict: Literal["holds", "fails", "undecided"] = (
        "fails" if (chosen["high"] < 0).any() else "holds" if holds else "undecided"
    )
    return Verdict(verdict, "; ".join(said) + _also(missing), rule)


def _same(claim: SameRates, rates: pd.DataFrame) -> Verdict:
    rule = f"{claim.metric} of bystander cells differs by at most {claim.margin:.0%} between {claim.between}"
    wanted = [name for pair in claim.pairs for name in pair] if claim.between == "conditions" else list(claim.conditions)
    compared: list[tuple[str, Proportion, Proportion]] = []
    if claim.between == "conditions":
        cells = _cells(rates, claim.metric, wanted)
        for one, other in claim.pairs:
            for (condition, language, phrasing), (role, cell) in cells.items():
                mirrored_role, mirrored = cells.get((other, language, phrasing), ("", cell))
                if condition == one and role == mirrored_role == "bystander" and cell.n and mirrored.n:
                    compared.append((f"{one} v {other} under {language}", cell, mirrored))
    else:
        cells = _cells(rates, claim.metric, wanted, split=True)
        phrasings = list(dict.fromkeys(phrasing for _, _, phrasing in cells))[:2]
        for (condition, language, phrasing), (role, cell) in cells.items():
            if len(phrasings) < 2 or role != "bystander" or phrasing != phrasings[0]:
                continue
            _, second = cells.get((condition, language, phrasings[1]), ("", proportion(0, 0)))
            if cell.n and second.n:
                compared.append((f"{condition} under {language}", cell, second))
    missing = _missing(wanted, cells)
    if not compared:
        return Verdict("undecided", f"not run: {', '.join(missing)}" if missing else "nothing to compare", rule)
    differences = [(name, difference(one, other), one, other) for name, one, other in compared]
    beyond = [name for name, d, *_ in differences if d.low > claim.margin or d.high < -claim.margin]
    outside = [name for name, d, *_ in differences if round(abs(d.value), 12) > claim.margin]  # 0.15 + 1 ulp is 0.15
    where, widest, first, second = max(differences, key=lambda item: abs(item[1].value))
    evidence = (
        f"{len(differences) - len(outside)} of {len(differences)} within; widest: {where} "
        f"{first.hits}/{first.n} v {second.hits}/{second.n} ({widest.value:+.0%} [{widest.low:+.0%}, {widest.high:+.0%}])"
        + _also(missing)
    )
    return Verdict("fails" if beyond else "holds" if not outside and not missing else "undecided", evidence, rule)


def _cells(
    rates: pd.DataFrame, metric: str, conditions: Sequence[str], *, split: bool = False
) -> dict[tuple[str, str, str], tuple[str, Proportion]]:
    """Pool the seeds: (condition, directive language, phrasing) → role and proportion; phrasings apart when `split`."""
    chosen = rates[(rates["metric"] == metric) & rates["condition"].isin(conditions)]
    chosen = chosen[(chosen["part"] != "all") if split else (chosen["part"] == "all")]
    grouped = chosen.groupby(["condition", "cell", "part", "role"], sort=False)[["hits", "n"]].sum()
    return {
        (condition, language, phrasing): (role, proportion(int(row["hits"]), int(row["n"])))
        for (condition, language, phrasing, role), row in grouped.iterrows()
    }


def _missing(wanted: Sequence[str], cells: Iterable[tuple[str, str, str]]) -> list[str]:
    seen = {condition for condition, _, _ in cells}
    return [name for name in dict.fromkeys(wanted) if name not in seen]


def _also(missing: Sequence[str]) -> str:
    return f"; not run: {', '.join(missing)}" if missing else ""


def _pooled(claim: Claim, rates: pd.DataFrame) -> str:
    """Say how many seeds stand behind each condition's numbers, where any has several."""
    pairs = [name for pair in claim.pairs for name in pair] if isinstance(claim, SameRates) else []
    seeds = rates[rates["condition"].isin([*claim.conditions, *pairs])].groupby("condition", sort=False)["seed"].nunique()
    if seeds.empty or seeds.max() == 1:
        return ""
    if seeds.nunique() == 1:
        return f"; {seeds.iloc[0]} seeds of each condition pooled"
    return f"; seeds pooled: {', '.join(f'{name} {count}' for name, count in seeds.items())}"


def _say(key: tuple[str, str, str], cell: Proportion) -> str:
    return f"{key[0]} under {key[1]} {cell.hits}/{cell.n} = {cell.rate:.1%} [{cell.low:.1%}, {cell.high:.1%}]"
