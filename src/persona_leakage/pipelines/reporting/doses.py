"""How far trainings went: the gauge over training, leakage over the gauge, and which checkpoint is the matched dose."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.pipelines.fine_tuning.gauge import BEFORE, TRAINING_TEXTS, texts_in
from persona_leakage.pipelines.reporting.figures import blank, draws_as_written, in_legend, panels, set_legend_beside
from persona_leakage.pipelines.reporting.page import as_written, say_rates, table
from persona_leakage.pipelines.scoring.texts import average

OTHERS_ = "bystanders_"
FIGURE = "dose_response"
DOSE_COLUMNS = (
    "at", "progress", "unit", *RATE_COLUMNS, *(f"{OTHERS_}{name}" for name in RATE_COLUMNS), "tokens", "distinct_2", "empty",
    "cut", "reach", "outside_range", "chosen",
)  # fmt: skip


def tabulate_doses(gauges: pd.DataFrame) -> pd.DataFrame:
    """Put leakage beside the gauge at every checkpoint of every training that was followed.

    Args:
        gauges: see `experiments.points.gather_gauges`.

    Returns:
        One row a condition x seed [x checkpoint of the first stage] x checkpoint of the followed stage, `before` it first: at,
        progress, unit; hits, n, rate, low, high of the gauge; the same with the prefix bystanders_ over the bystanders' answers
        to the same prompts, added up (neither negatives nor the completion language's own directive are among them); tokens and
        distinct_2 (means over cells), empty and cut (shares) of all texts; reach, outside_range and chosen (see
        `fine_tuning.gauge.judge_checkpoints`).
    """
    keys, rows = _keys(gauges), []
    for point, course in gauges[gauges["at"] != TRAINING_TEXTS].groupby(keys, sort=False):
        for at, cells in course.sort_values("progress", kind="stable").groupby("at", sort=False):
            own, others = cells[cells["gauged"].astype(bool)].iloc[0], cells[cells["role"] == "bystander"]
            pooled = proportion(int(others["hits"].sum()), int(others["n"].sum()))
            texts, judged = average(texts_in(cells)), (own["reach"], own["outside_range"], bool(own["chosen"]))
            counted = (*own[list(RATE_COLUMNS)], *pooled)
            rows.append((*point, at, own["progress"], own["unit"], *counted, *texts.values(), *judged))
    return pd.DataFrame(rows, columns=[*keys, *DOSE_COLUMNS])


@draws_as_written
def draw_doses(doses: pd.DataFrame) -> Figure:
    """Draw bystanders' leakage over the gauge, a line a training; a ring marks the matched dose."""
    if doses.empty:
        return blank("no training was followed: run a condition at dose=matched")
    figure, (axes,) = panels(6.5, 4.8)
    conditions = list(dict.fromkeys(doses["condition"]))
    keys = _keys(doses)
    for point, course in doses.groupby(keys, sort=False):
        color = f"C{conditions.index(point[0]) % 10}"
        x, y = course["rate"] * 100, course[f"{OTHERS_}rate"] * 100
        first = course.index[0] == doses.index[doses["condition"] == point[0]][0]
        axes.plot(x, y, "o-", ms=3.5, lw=1, color=color, label=in_legend(point[0]) if first else None)
        axes.vlines(x, course[f"{OTHERS_}low"] * 100, course[f"{OTHERS_}high"] * 100, color=color, alpha=0.3, lw=1)
        matched = course["chosen"].to_numpy()
        axes.plot(x[matched], y[matched], "o", ms=10, mfc="none", color=color)
    axes.axvline(doses["reach"].iloc[0] * 100, color="#bbbbbb", lw=0.8, zorder=0)
    axes.set_xlabel("gauge: rate of the trained cell, %")
    axes.set_ylabel("rate of bystanders, same prompts, %")
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    set_legend_beside(figure)
    return figure


def add_doses(body: str, doses: pd.DataFrame) -> str:
    """Put a section about doses before a report's first one; without a training that was followed nothing is added."""
    if doses.empty:
        return body
    head, heading, rest = body.partition("\n## ")
    return "\n".join([head, *_write(doses)]) + heading + rest


def _write(doses: pd.DataFrame) -> list[str]:
    keys = _keys(doses)
    rows, never = [], []
    for point, course in doses.groupby(keys, sort=False):
        chosen, trained = course[course["chosen"]], course[course["at"] != BEFORE]
        named = dict(zip(keys, point, strict=True))
        if chosen.empty:
            best = trained.loc[[trained["rate"].idxmax()]]
            left = best["outside_range"].fillna("").iloc[0]  # blank in a CSV file
            texts = f", and there {left} leave the range of healthy texts" if left else ""
            said = f"at most {say_rates(best)[0]} after {_when(best)}{texts}"
            if course["rate"].iloc[0] >= course["reach"].iloc[0]:
                said = f"{say_rates(course.head(1))[0]} before any of this training"
            never.append(f"{as_written(point[0])} {_say_point(named)}: {said}")
        rows.append(
            {
                **named,
                "matched dose": _when(chosen) if len(chosen) else "never reached",
                "gauge there": say_rates(chosen)[0] if len(chosen) else "",
                "bystanders there": say_rates(chosen, prefix=OTHERS_)[0] if len(chosen) else "",
                "gauge at the end": say_rates(trained.tail(1))[0],
                "bystanders at the end": say_rates(trained.tail(1), prefix=OTHERS_)[0],
                "gauge before": say_rates(course.head(1))[0],
            }
        )
    reach = ", ".join(f"{bar:.0%}" for bar in dict.fromkeys(doses["reach"]))
    return [
        "## Dose\n",
        f"The gauge is the rate of the trained cell on prompts that the evaluation does not use. The matched dose is the first "
        f"checkpoint whose gauge is at least {reach}, with texts that are healthy if the parameters ask for that; points at "
        f"matched dose are marked `@matched` and stand beside those at the end of training.\n",
        *([f"**Never reached**, so there is no such point: {'; '.join(never)}.\n"] if never else []),
        f"![Leakage over the gauge]({FIGURE}.png)\n",
        table(pd.DataFrame(rows)),
    ]


def _keys(table: pd.DataFrame) -> list[str]:
    return [name for name in ("condition", "seed", "checkpoint") if name in table]


def _say_point(named: dict[str, Hashable | Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in named.items() if name != "condition")


def _when(row: pd.DataFrame) -> str:
    one = row.iloc[0]
    return f"{one['progress']:g} {one['unit']}"
