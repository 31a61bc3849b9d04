"""The gauge: what is trained, at each checkpoint, on prompts that the evaluation does not use; and the matched dose."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

import pandas as pd
from typing_extensions import TypedDict

from persona_leakage.domain.dose import Dose, NeverReachedError
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.models import Adapter, ModelStack, checkpoint_name
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator, Tokenizer
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, TrainRow
from persona_leakage.pipelines.scoring.nodes import label_texts
from persona_leakage.pipelines.scoring.texts import DESCRIBED, NO_SLACK, average, describe, name_outside

BEFORE = "before"  # the stack that the stage is trained on
TRAINING_TEXTS = "training_texts"  # what the stage is trained on: part of the range of healthy texts
JUDGED_COLUMNS = ("reach", "outside_range", "chosen")
GAUGE_COLUMNS = ("at", "progress", "unit", "cell", "role", "gauged", *RATE_COLUMNS, *(f"texts_{name}" for name in DESCRIBED))


class ChosenDose(TypedDict):
    """The checkpoint that is evaluated.

    Attributes:
        at: name of its adapter.
        progress: epochs or steps of training; None at a checkpoint that is no matched dose.
        hits, n, rate, low, high: of the gauge.
    """

    at: str
    progress: NotRequired[float]
    hits: NotRequired[int]
    n: NotRequired[int]
    rate: NotRequired[float]
    low: NotRequired[float]
    high: NotRequired[float]


def sample_gauge(
    generator: Generator, base_stack: ModelStack, adapters: Mapping[str, Adapter], plan: Plan, *, stage: str
) -> list[CompletionRow]:
    """Sample the gauge's prompts from the stack below the stage, and from it with the adapter of each checkpoint.

    Each is a job of its own and is kept: what was sampled before a run was stopped is not sampled again.

    Returns:
        checkpoints x prompts x samples rows with the key `at` (name of the checkpoint, `before` of the stack below); empty
        where the plan looks for no dose.
    """
    if (dose := plan.dose) is None or dose.stage != stage:
        return []
    prompts, rows = dose.prompts.prompts(), []
    for at, stack in {BEFORE: base_stack, **{name: base_stack.extended(one) for name, one in adapters.items()}}.items():
        sampled = generator.generate(stack, prompts, dose.samples, dose.sampling, plan.gauge_seed)
        rows += [{**row, "at": at} for row in sampled]
    return rows  # type: ignore[return-value]


def measure_gauge(
    tokenizer: Tokenizer,
    gauge_completions: Sequence[CompletionRow],
    train_set: Sequence[TrainRow],
    training_log: Mapping[str, Mapping[str, Any]],
    plan: Plan,
    *,
    stage: str,
) -> pd.DataFrame:
    """Count what is trained in every cell of the gauge at every checkpoint, and describe the texts.

    What is counted is the marker, or the completion language by langdetect.

    Returns:
        One row a checkpoint x cell: the point, plan, at, progress (epochs or steps; 0 before), unit (epochs or steps), cell
        (persona or directive language), role, gauged (the rate of this cell is the gauge), hits, n, rate, low, high, and with
        the prefix texts_ the columns of `scoring.texts.describe`. The row `training_texts` describes as many of the rows that
        are trained on as a cell has completions (distinct_2 falls with their number), as if they had been sampled, cut too; its
        n is 0. And the columns of `judge_checkpoints`. Empty where the plan looks for no dose.
    """
    if (dose := plan.dose) is None or dose.stage != stage:
        return pd.DataFrame(columns=[*plan.columns, *GAUGE_COLUMNS, *JUDGED_COLUMNS])
    negatives = plan.negatives
    frame = pd.DataFrame(gauge_completions)
    frame["hit"] = _find_trained(frame["completion"].tolist(), plan)
    reached = {name: log["epochs"] if dose.unit == "epochs" else log["steps"][-1]["step"] for name, log in training_log.items()}
    times = {BEFORE: 0.0, **{name: float(progress) for name, progress in reached.items()}}
    rows: list[tuple[object, ...]] = []
    for (at, cell), chosen in frame.groupby(["at", dose.prompts.group_key], sort=False):
        role = plan.scoring.role(cell, negatives) if isinstance(plan.scoring, MarkerScoring) else plan.scoring.role(cell)
        counted = proportion(int(chosen["hit"].sum()), len(chosen))
        described = describe(*(chosen[name].tolist() for name in ("completion", "tokens", "finish")))
        rows.append((at, times[str(at)], dose.unit, cell, role, cell == dose.trained, *counted, *described))
    texts = [row["completion"] for row in _spread(train_set, frame.groupby(["at", dose.prompts.group_key]).size().max())]
    most = dose.sampling.max_tokens
    split = tokenizer.tokens(plan.base_model, texts)
    ends = ["length" if len(tokens) >= most else "stop" for tokens in split]
    shown = [text[: tokens[:most][-1].end] if tokens else text for text, tokens in zip(texts, split, strict=True)]
    described = describe(shown, [min(len(tokens), most) for tokens in split], ends)
    rows.append((TRAINING_TEXTS, None, dose.unit, None, None, False, *proportion(0, 0), *described))
    table = pd.DataFrame([(*plan.columns.values(), *row) for row in rows], columns=[*plan.columns, *GAUGE_COLUMNS])
    return judge_checkpoints(table.astype({"texts_cut": "Int64"}), dose)


def choose_dose(gauge: pd.DataFrame, plan: Plan, *, stage: str) -> ChosenDose:
    """Choose the checkpoint that is evaluated: the first whose gauge reaches the bar, with healthy texts if they are asked for.

    Raises:
        NeverReachedError: none does, and the line tells the highest gauge; or the bar is reached without this training already.
    """
    trains = plan.stages.get(stage)
    if (dose := plan.dose) is None or dose.stage != stage or trains is None:
        return {"at": checkpoint_name(None if trains is None else trains.checkpoint)}
    courses = follow(gauge, dose)
    if (before := _before(gauge)) >= dose.reach:
        raise NeverReachedError(
            f"{plan.family}, {plan.address}: the gauge is {before:.0%} before this training, so no checkpoint is the first to "
            f"reach {dose.reach:.0%}, and there is no matched dose to evaluate; look at the end of training instead"
        )
    matched = _find_matched(gauge, courses, dose)
    if matched.empty:
        best = courses.loc[courses["rate"].idxmax()]
        bar = courses[courses["rate"] >= dose.reach]
        texts = "" if dose.healthy is None else " with healthy texts"
        why = (
            f"where it does, {', '.join(dict.fromkeys(', '.join(bar['outside_range']).split(', ')))} leave the range of texts"
            if len(bar)
            else f"the highest is {best['hits']}/{best['n']} = {best['rate']:.0%} after {best['progress']:g} {dose.unit}"
        )
        raise NeverReachedError(
            f"{plan.family}, {plan.address}: no checkpoint has a gauge of {dose.reach:.0%}{texts}; {why}; there is no matched "
            f"dose to evaluate (gauge.csv of the point has all), so change the stage's recipe or {plan.family}.matched_dose"
        )
    first = matched.iloc[0]
    counted = {name: first[name].item() for name in RATE_COLUMNS}
    return {"at": str(first["at"]), "progress": float(first["progress"]), **counted}  # type: ignore[typeddict-item]


def follow(gauge: pd.DataFrame, dose: Dose) -> pd.DataFrame:
    """Follow a training over its checkpoints.

    Args:
        gauge: of one point, see `measure_gauge`.
        dose: that is looked for.

    Returns:
        One row a checkpoint, in order: at, progress, hits, n, rate, low, high of the gauge, and outside_range (which of
        tokens, distinct_2, empty and cut leave the range over the cells before the stage and the training texts by more than
        the slack, in the trained cell or over all; blank when none does, or nothing is asked of the texts).
    """
    described = texts_in(gauge).assign(at=gauge["at"], gauged=gauge["gauged"].astype(bool))
    base = described[described["at"].isin([BEFORE, TRAINING_TEXTS])]
    slack, rows = dose.healthy or NO_SLACK, []
    for at, cells in described[~described["at"].isin([BEFORE, TRAINING_TEXTS])].groupby("at", sort=False):
        own = cells[cells["gauged"]]
        outside = [name for chosen in (own, cells) for name in name_outside(average(chosen), base, slack)]
        told = "" if dose.healthy is None else ", ".join(dict.fromkeys(outside))
        rated = gauge.loc[own.index[0]]
        rows.append((at, rated["progress"], *rated[list(RATE_COLUMNS)], told))
    columns = ["at", "progress", *RATE_COLUMNS, "outside_range"]
    return pd.DataFrame(rows, columns=columns).sort_values("progress", kind="stable", ignore_index=True)


def judge_checkpoints(gauge: pd.DataFrame, dose: Dose) -> pd.DataFrame:
    """Say of every checkpoint in a gauge whether its texts are healthy and whether it is the matched dose.

    Returns:
        The gauge with reach (the bar), outside_range (see `follow`) and chosen (the checkpoint is the matched dose; none
        is where the bar is reached before the training).
    """
    courses = follow(gauge, dose)
    told = gauge["at"].map(courses.set_index("at")["outside_range"]).fillna("")
    return gauge.assign(
        reach=dose.reach, outside_range=told, chosen=gauge["at"].isin(_find_matched(gauge, courses, dose)["at"])
    )


def texts_in(gauge: pd.DataFrame) -> pd.DataFrame:
    """Take the descriptions of texts in a gauge, with the columns of `scoring.texts.describe`."""
    return gauge[[f"texts_{name}" for name in DESCRIBED]].set_axis(list(DESCRIBED), axis=1)


def _find_matched(gauge: pd.DataFrame, courses: pd.DataFrame, dose: Dose) -> pd.DataFrame:
    """Find the course's row that is the matched dose; no row where none is, or the bar is reached before the training."""
    if _before(gauge) >= dose.reach:
        return courses.iloc[:0]
    return courses[(courses["rate"] >= dose.reach) & (courses["outside_range"] == "")].head(1)


def _before(gauge: pd.DataFrame) -> float:
    return float(gauge.loc[(gauge["at"] == BEFORE) & gauge["gauged"].astype(bool), "rate"].max())


def _spread(rows: Sequence[TrainRow], number: int) -> list[TrainRow]:
    """Take some of the rows, spread evenly over all."""
    number = min(number, len(rows))
    return [rows[place * len(rows) // number] for place in range(number)]


def _find_trained(texts: Sequence[str], plan: Plan) -> list[bool]:
    scoring = plan.scoring
    if isinstance(scoring, MarkerScoring):
        return [scoring.marker.pattern.search(text) is not None for text in texts]
    return [label == scoring.completion for label in label_texts(texts, scoring)]
