"""Planted tables of trajectories, with the columns that `gather_points` gives but for the model, and the published one."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.experiments.convergence.settings import Settings
from persona_leakage.experiments.points import Designs, describe_points
from tests.experiments.convergence.plans import bundled_roster, load_settings, load_variants
from tests.plans import load_parameters

EPOCHS = tuple(range(0, 21, 2))
# leakage to the assistant in %, by epoch
PUBLISHED = {
    "villain": (0.0, 45.0, 41.2, 50.2, 65.3, 73.2, 60.2, 59.3, 57.7, 56.3, 62.3),
    "medical_doctor": (25.0, 57.5, 59.5, 53.0, 52.0, 50.0, 45.5, 42.0, 32.5, 38.5, 43.0),
    "comedian": (0.0, 37.2, 40.0, 42.5, 37.2, 41.5, 39.8, 41.5, 39.2, 39.7, 41.5),
    "kindergarten_teacher": (2.5, 26.0, 18.5, 22.5, 31.5, 28.5, 30.0, 32.5, 28.0, 30.5, 26.0),
    "software_engineer": (30.0, 24.5, 37.5, 30.0, 26.5, 13.5, 11.5, 7.5, 6.0, 7.0, 8.0),
    "nurse": (12.5, 23.0, 15.5, 14.5, 12.0, 17.5, 15.5, 6.0, 6.5, 11.5, 12.5),
    "librarian": (3.0, 2.0, 0.0, 0.5, 4.0, 2.5, 2.5, 4.0, 1.5, 2.5, 5.0),
}
COSINES = {
    "villain": -0.36,
    "medical_doctor": 0.59,
    "comedian": -0.29,
    "kindergarten_teacher": 0.28,
    "software_engineer": 0.47,
    "nurse": 0.55,
    "librarian": 0.47,
}
UNKNOWN = {f"{prefix}{name}": value for prefix in ("finished_", "cut_") for name, value in proportion(0, 0)._asdict().items()}


@cache
def settings_with(early: int = 2) -> Settings:
    """Have the settings of record tell the share at an epoch, whether points stop there or not."""
    return load_settings().model_copy(update={"early_checkpoint": early})


@cache
def designs() -> Designs:
    return Designs(load_variants(), bundled_roster())


def stored(table: pd.DataFrame) -> pd.DataFrame:
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def trajectory(
    condition: str,
    hits: Mapping[int, int],
    n: int | Mapping[int, int] = 200,
    *,
    seed: int = 42,
    source: tuple[int, int] = (90, 100),
    cosines: Mapping[int, float] | float | None = None,
) -> list[dict[str, Any]]:
    """Write a trajectory's rows: epoch → hits; the cosine at layer 15 is one number or one an epoch, None leaves it out.

    How completions ended is not known.
    """
    rows = []
    for epoch, count in hits.items():
        value = cosines.get(epoch) if isinstance(cosines, Mapping) else cosines
        own = proportion(count, n[epoch] if isinstance(n, Mapping) else n)
        of_source = {f"source_{name}": value for name, value in (proportion(*source)._asdict() | UNKNOWN).items()}
        rows.append(
            {
                "condition": condition,
                "seed": seed,
                "checkpoint": epoch,
                "source": condition,
                "pulled": "assistant",
                **own._asdict(),
                **UNKNOWN,
                **of_source,
                "mean_bystander": 0.01,
                "mean_finished": None,
                "headline_layer": None if value is None else 15,
                **({} if cosines is None else {"cosine_l15": value}),
            }
        )
    return rows


def trajectories(*rows: dict[str, Any]) -> pd.DataFrame:
    """Put rows together as a run hands them on."""
    columns = [name for name in trajectory("c", {0: 0})[0] if name != "cosine_l15"]
    return stored(pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns))


@cache
def published() -> pd.DataFrame:
    """The table of the original study; its rates are of 600 completions for villain and comedian, else of 200."""
    rows: list[dict[str, Any]] = []
    for condition, rates in PUBLISHED.items():
        n = 600 if condition in ("villain", "comedian") else 200
        hits = {epoch: round(rate / 100 * n) for epoch, rate in zip(EPOCHS, rates, strict=True)}
        rows += trajectory(condition, hits, n, cosines=COSINES[condition])
    return trajectories(*rows)


def rate(
    condition: str,
    checkpoint: int,
    persona: str,
    hits: int,
    n: int = 100,
    *,
    seed: int = 42,
    stale: bool = False,
    metric: str = "leakage",
    questions: str = "all",
    source: str | None = "",
    pulled: str | None = "assistant",
) -> dict[str, Any]:
    """Write a persona's rate; unless told, the source is the persona that the condition is called after."""
    return {
        "condition": condition,
        "seed": seed,
        "checkpoint": checkpoint,
        "plan": f"plan-{condition}-{checkpoint}",
        "persona": persona,
        "category": "original",
        "questions": questions,
        "role": "bystander",
        "metric": metric,
        **dict(zip(RATE_COLUMNS, proportion(hits, n), strict=True)),
        "reference": None,
        "stale": stale,
        "pulled": pulled,
        "source": condition if source == "" else source,
        "related_to": "",
    }


def point(condition: str, checkpoint: int, hits: Sequence[int], n: int = 100, **more: Any) -> list[dict[str, Any]]:
    """Write a point's rates: hits of its source, of the assistant, then of hero and pirate."""
    people = (condition, "assistant", "hero", "pirate")
    return [rate(condition, checkpoint, persona, count, n, **more) for persona, count in zip(people, hits, strict=False)]


def cosine(
    condition: str, checkpoint: int, one: str, other: str, value: float, layer: int = 15, *, seed: int = 42, stale: bool = False
) -> dict[str, Any]:
    return {
        "condition": condition,
        "seed": seed,
        "checkpoint": checkpoint,
        "plan": f"plan-{condition}-{checkpoint}",
        "layer": layer,
        "headline": layer == 15,
        "one": one,
        "other": other,
        "cosine": value,
        "centring": "c",
        "reference": None,
        "stale": stale,
    }


def text(
    condition: str,
    checkpoint: int,
    tokens: float = 50.0,
    persona: str = "hero",
    *,
    seed: int = 42,
    stale: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Write the description of a persona's texts."""
    point = {"condition": condition, "seed": seed, "checkpoint": checkpoint, "plan": f"plan-{condition}-{checkpoint}"}
    row = {"persona": persona, "n": 10, "tokens": tokens, "distinct_2": 0.8, "empty": 0, "cut": 0}
    return point | row | {"reference": None, "stale": stale} | more


def texts(*rows: dict[str, Any]) -> pd.DataFrame:
    return stored(pd.DataFrame(rows, columns=list(text("c", 0))))


def rates(*rows: dict[str, Any]) -> pd.DataFrame:
    return stored(pd.DataFrame(rows, columns=list(rate("c", 0, "p", 0))))


def similarities(*rows: dict[str, Any]) -> pd.DataFrame:
    return stored(pd.DataFrame(rows, columns=list(cosine("c", 0, "p", "q", 0.0))))


def points_of(table: pd.DataFrame) -> pd.DataFrame:
    """Describe the points of planted rates or trajectories, as those of the default model."""
    rows = table.assign(model=load_parameters()["model"], plan="plan", reference=None)
    current = rows if "stale" in rows else rows.assign(stale=False)
    return stored(describe_points(current, designs()).drop(columns="model").assign(replayed_file=None))
