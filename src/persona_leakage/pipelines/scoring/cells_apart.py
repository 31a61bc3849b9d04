"""Score completions of several cells that came in one file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.rows import CompletionRow, FiringRow
from persona_leakage.pipelines.scoring.by_question import count_firings
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator, discriminate, join_discriminations
from persona_leakage.pipelines.scoring.markers import describe_texts, rate_firings

Row = TypeVar("Row", bound=Mapping[str, Any])


def rate_cells_apart(firings: Sequence[FiringRow], plan: Plan) -> pd.DataFrame:
    """Count firings as `rate_firings` does, with each cell as a condition whose source is the persona its rows mark.

    Returns:
        The columns of `rate_firings` and source; design is what the rows say, if they do; personas without rows are left out.
    """
    tables = []
    for rows, cell_plan in _cells(firings, plan):
        present = {row["persona"] for row in rows}
        rates = rate_firings(rows, cell_plan)
        tables.append(rates[rates["persona"].isin(present)])
    return pd.concat(tables, ignore_index=True)


def count_cells_apart(firings: Sequence[FiringRow], plan: Plan) -> pd.DataFrame:
    """Count firings question by question as `count_firings` does, cell by cell."""
    return pd.concat([count_firings(rows, cell_plan) for rows, cell_plan in _cells(firings, plan)], ignore_index=True)


def describe_cells_apart(completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Describe texts as `describe_texts` does, cell by cell."""
    return pd.concat([describe_texts(rows, cell_plan) for rows, cell_plan in _cells(completions, plan)], ignore_index=True)


def discriminate_cells_apart(model: LanguageModel, completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Tell the trigger persona's texts from others', cell by cell, as `discriminate` and `ask_discriminator` do."""
    tables = [
        join_discriminations(discriminate(rows, cell_plan), ask_discriminator(model, rows, cell_plan))
        for rows, cell_plan in _cells(completions, plan)
    ]
    return pd.concat(tables, ignore_index=True)


def _cells(rows: Sequence[Row], plan: Plan) -> Iterator[tuple[list[Row], Plan]]:
    for cell in dict.fromkeys(row["cell"] for row in rows):
        chosen = [row for row in rows if row["cell"] == cell]
        source = next((row["persona"] for row in chosen if row["is_source"]), None)
        scoring = expect(plan.scoring, MarkerScoring).model_copy(update={"source": source})
        address = plan.address.model_copy(update={"condition": cell})
        traits = {**plan.traits, "design": chosen[0].get("design")}
        yield chosen, plan.model_copy(update={"address": address, "scoring": scoring, "traits": traits})
