"""What was counted in the cells that a claim is about, run by run, and how far runs scatter."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from persona_leakage.pipelines.bounds import Runs, Spread, difference_interval, interval_of, spread_among, spread_between
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED

CELL = ["condition", "cell", "part"]


class Cell(NamedTuple):
    """What was counted in a cell, run by run; of finished completions nothing where it is not known how they ended."""

    condition: str
    cell: str
    part: str
    raw: Runs
    finished: Runs = Runs((), ())
    cut: Runs = Runs((), ())

    @property
    def where(self) -> str:
        """Say which cell it is."""
        return f"{self.condition} under {self.cell}" if self.cell else self.condition

    @property
    def counted(self) -> list[Runs]:
        """Raw and, where they are known, finished ones: none of these where everything was cut, which shows nothing."""
        return [self.raw, self.finished] if self.finished.n or self.cut.n else [self.raw]


def choose(rates: pd.DataFrame, metric: str, conditions: Sequence[str], role: str, *, split: bool = False) -> pd.DataFrame:
    """Choose the rows of a metric, raw and of finished completions, and of cut ones; parts of a cell apart when `split`."""
    measured = rates["metric"].isin(_counted_of(metric, rates)) & rates["condition"].isin(conditions)
    chosen = rates[measured & ((rates["part"] != "all") == split)]
    roles = [own.split("+") for own in chosen["role"]]
    plays = [role in own or (role == "others" and "source" not in own) for own in roles]
    return chosen.loc[pd.Series(plays, chosen.index, dtype=bool)]


def count_cells(chosen: pd.DataFrame, metric: str) -> list[Cell]:
    """Count every cell; its runs are seeds, which of an untrained condition differ in sampling only and are one run."""
    chosen = chosen.assign(run=chosen["seed"].astype(str).where(chosen["reference"] != chosen["condition"], "untrained"))
    raw, *beside = (_runs(chosen[chosen["metric"] == name], CELL, "run") for name in _counted_of(metric, chosen))
    none = Runs((), ())
    return [
        Cell(condition, cell, part, runs, *(one.get((condition, cell, part), none) for one in beside))
        for (condition, cell, part), runs in raw.items()
    ]


def count_together(chosen: pd.DataFrame, metric: str) -> Cell:
    """Count all cells as one; its runs are conditions, or the seeds of a single one."""
    run = "condition" if chosen["condition"].nunique() > 1 else "seed"
    counted = (
        _runs(chosen[chosen["metric"] == name].assign(cell=""), ["cell"], run).get(("",), Runs((), ()))
        for name in _counted_of(metric, chosen)
    )
    return Cell(", ".join(dict.fromkeys(chosen["condition"])), "", "", *counted)


def _counted_of(metric: str, rates: pd.DataFrame) -> list[str]:
    """Name a metric and, where it is counted of finished completions too, that one and how many were cut."""
    finished = f"{metric}{FINISHED}"
    return [metric, finished, CUT] if (rates["metric"] == finished).any() else [metric]


def _runs(rows: pd.DataFrame, keys: Sequence[str], run: str) -> dict[Any, Runs]:
    counted: dict[Any, dict[Any, tuple[int, int]]] = {}
    for *key, one, hits, n in rows[[*keys, run, "hits", "n"]].itertuples(index=False, name=None):
        of_key = counted.setdefault(tuple(key), {})
        before = of_key.get(one, (0, 0))
        of_key[one] = before[0] + int(hits), before[1] + int(n)
    scored = {key: [count for count in runs.values() if count[1]] for key, runs in counted.items()}
    return {key: Runs(tuple(hits for hits, _ in counts), tuple(n for _, n in counts)) for key, counts in scored.items()}


def scatter_of(cells: Sequence[Cell]) -> Callable[..., Spread]:
    """Say how far runs scatter: a function of the kind of rate (0 raw, 1 finished) and the runs that are asked about.

    Cells of one condition come from the same trainings, so they have no more degrees of freedom together than one of them.
    """
    shared = []
    for kind in range(max((len(one.counted) for one in cells), default=0)):
        counted = [(one.condition, one.counted[kind]) for one in cells if kind < len(one.counted)]
        repeated: dict[str, int] = {}
        for condition, runs in counted:
            repeated[condition] = max(repeated.get(condition, 0), len(runs.n) - 1)
        found = spread_between(*(runs for _, runs in counted))
        shared.append(found._replace(df=min(found.df, sum(repeated.values()) or math.inf)))
    return lambda kind, *own: spread_among(shared[kind], *own)


def say_counts(runs: Runs) -> str:
    """Say hits of n over all runs."""
    hits, n = runs.pooled
    return f"{hits}/{n}" if n else "none"


def say_rate(runs: Runs, spread: Spread) -> str:
    """Say the rate over all runs with its interval; of several runs also the interval that takes them for one."""
    if not runs.n:
        return "none"
    _, _, rate, low, high = interval_of(runs, spread)
    said = f"{say_counts(runs)} = {rate:.1%} [{low:.1%}, {high:.1%}]"
    if len(runs.n) == 1:
        return said
    *_, low, high = interval_of(runs, Spread())
    return f"{said} over {len(runs.n)} runs (pooled [{low:.1%}, {high:.1%}])"


def say_difference(one: Runs, other: Runs, spread: Spread) -> str:
    """Say the difference of two rates over all runs, with its interval."""
    if not (one.n and other.n):
        return "unknown"
    value, low, high = difference_interval(one, other, spread)
    return f"{value:+.0%} [{low:+.0%}, {high:+.0%}]"
