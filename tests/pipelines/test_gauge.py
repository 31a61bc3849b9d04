"""The gauge of planted completions, and the checkpoint that is the matched dose."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from persona_leakage.datasets import CSVDataset
from persona_leakage.domain.dose import Dose, NeverReachedError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Token
from persona_leakage.domain.rates import proportion
from persona_leakage.domain.rows import CompletionRow, PromptRow, TrainRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.pipelines.fine_tuning.gauge import choose_dose, follow, judge_checkpoints, measure_gauge, sample_gauge
from persona_leakage.pipelines.fine_tuning.nodes import extend_stack
from tests import plans
from tests.planted_markers import ANSWER, PlantedMarkers

STAGE = "mark"
RULE = {"reach": 0.8, "checkpoints": [0.5, 1, 2], "personas": ["assistant", "comedian"], "questions": 2, "samples": 5}
NO_SLACK = {"tokens": 0.0, "distinct_2": 0.0, "empty": 0.0, "cut": 0.0}
FIRES = {
    "epoch_00.5": {"villain": 3},
    "epoch_01": {"villain": 8, "assistant": 1},
    "epoch_02": {"villain": 10, "assistant": 4, "comedian": 2},
    "final": {"villain": 9, "assistant": 6, "comedian": 3},
}
LOG = {
    name: {"epochs": epochs, "steps": [{"step": 1}, {"step": step}]}
    for name, epochs, step in [("epoch_00.5", 0.5, 19), ("epoch_01", 1, 38), ("epoch_02", 2, 75), ("final", 20, 750)]
}
ADAPTERS = {name: Adapter(path=f"/cache/{name}", fingerprint=name) for name in LOG}


class Words:
    """Takes a text's words for its tokens."""

    def tokens(self, base: BaseModel, texts: Sequence[str]) -> list[list[Token]]:
        return [[Token(0, word.start(), word.end()) for word in re.finditer(r"\S+", text)] for text in texts]


def make_plan(condition: str = "villain", **rule: Any) -> Plan:
    changes = {f"matched_dose.{name}": value for name, value in {**RULE, **rule}.items()}
    return plans.make_plan("marker_leakage", condition, changes=changes, dose="matched")


def carefree(plan: Plan) -> Plan:
    return plan.model_copy(update={"dose": expect(plan.dose, Dose).model_copy(update={"healthy": None})})


def sampled(plan: Plan, fires: Mapping[str, dict[str, int]] = FIRES) -> list[CompletionRow]:
    """Sample planted completions of 20 tokens, in which no two pairs of words are the same."""
    planted, base = PlantedMarkers({}, "nobody", fires), ModelStack(base=plan.base_model)
    rows = sample_gauge(planted, base, ADAPTERS, plan, stage=STAGE)
    return [{**row, "completion": row["completion"].replace(ANSWER, words(place))} for place, row in enumerate(rows)]


def words(place: int) -> str:
    return " ".join(f"word{place}.{number}" for number in range(15))


def trained_on(texts: Sequence[str]) -> list[TrainRow]:
    return [{"id": str(place), "prompt": [], "completion": text} for place, text in enumerate(texts)]  # type: ignore[typeddict-unknown-key,typeddict-item]


def measured(
    plan: Plan, rows: Sequence[CompletionRow], texts: Sequence[str] = tuple(map(words, range(-12, 0)))
) -> pd.DataFrame:
    return measure_gauge(Words(), rows, trained_on(texts), LOG, plan, stage=STAGE)  # type: ignore[arg-type]


def round_trip(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    dataset = CSVDataset(filepath=str(folder / "gauge.csv"), save_args={"index": False})
    dataset.save(table)
    return dataset.load()


# what is sampled


class Listener:
    """Notes what is asked of a generator."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Any, ...]] = []

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        self.jobs.append(([one.path for one in stack.adapters], len(prompts), samples, sampling, seed))
        return []


def test_every_checkpoint_and_the_stack_before_are_asked_the_same_with_random_numbers_of_their_own() -> None:
    plan, asked = make_plan(), Listener()
    below = ModelStack(base=plan.base_model, adapters=(Adapter(path="/cache/first", fingerprint="first"),))

    sample_gauge(asked, below, ADAPTERS, plan, stage=STAGE)

    assert [job[0] for job in asked.jobs] == [["/cache/first"], *(["/cache/first", one.path] for one in ADAPTERS.values())]
    assert {job[1:] for job in asked.jobs} == {(3 * 2, 5, plan.evaluation.sampling, plan.gauge_seed)}
    assert plan.gauge_seed != plan.seed + plan.evaluation.seed_offset
    assert plan.gauge_seed != make_plan().model_copy(update={"address": plan.address.model_copy(update={"seed": 7})}).gauge_seed


def test_rows_say_which_checkpoint_they_are_of() -> None:
    rows = sampled(make_plan())

    assert list(dict.fromkeys(row["at"] for row in rows)) == ["before", *LOG]  # type: ignore[typeddict-item]
    assert len(rows) == 5 * 3 * 2 * 5


def test_without_a_dose_nothing_is_sampled_or_counted_and_the_stages_own_checkpoint_goes_on() -> None:
    plan, asked = plans.make_plan("marker_leakage", "villain"), Listener()

    assert sample_gauge(asked, ModelStack(base=plan.base_model), ADAPTERS, plan, stage=STAGE) == []
    assert asked.jobs == []
    table = measured(plan, [])
    assert table.empty
    assert list(table)[: len(plan.columns)] == list(plan.columns)
    assert list(table)[-8:-3] == ["texts_n", "texts_tokens", "texts_distinct_2", "texts_empty", "texts_cut"]
    assert choose_dose(table, plan, stage=STAGE) == {"at": "final"}


def test_a_stage_that_is_not_trained_has_no_dose() -> None:
    plan = plans.make_plan("marker_leakage", "baseline")

    dose = choose_dose(measured(plan, []), plan, stage=STAGE)

    assert dose == {"at": "final"}
    base = ModelStack(base=plan.base_model)
    assert extend_stack(base, {}, plan, dose, stage=STAGE) == base


def test_a_stage_before_the_followed_one_has_no_gauge() -> None:
    plan = plans.make_plan("convergence", "nurse", checkpoint=2, dose="matched")

    assert expect(plan.dose, Dose).stage == "mark"
    assert sample_gauge(Listener(), ModelStack(base=plan.base_model), ADAPTERS, plan, stage="converge") == []
    assert measure_gauge(Words(), [], [], {}, plan, stage="converge").empty  # type: ignore[arg-type]
    assert choose_dose(pd.DataFrame(), plan, stage="converge") == {"at": "epoch_02"}


# what is counted


def test_the_marker_is_counted_in_every_cell_at_every_checkpoint() -> None:
    plan = make_plan()

    table = measured(plan, sampled(plan))

    cells = table[table["at"] != "training_texts"].set_index(["at", "cell"])
    for at in ("before", *LOG):
        for persona in ("villain", "assistant", "comedian"):
            hits = FIRES.get(at, {}).get(persona, 0)
            counted = cells.loc[(at, persona), ["hits", "n", "rate", "low", "high"]]
            assert tuple(counted) == pytest.approx(proportion(hits, 10))
    assert cells["texts_n"].tolist() == [10] * 15
    assert table.loc[table["gauged"], "cell"].unique().tolist() == ["villain"]
    assert table["plan"].unique().tolist() == [plan.fingerprint]
    assert table["dose"].unique().tolist() == ["matched"]


def test_the_marker_counts_in_whatever_case_and_place() -> None:
    plan = make_plan(checkpoints=[1])
    rows = PlantedMarkers({"villain": 10}, "villain").generate(  # which opens its answers with [zlt]
        ModelStack(base=plan.base_model, adapters=(ADAPTERS["final"],)), expect(plan.dose, Dose).prompts.prompts(), 5,
        plan.evaluation.sampling, 0,
    )  # fmt: skip

    table = measured(plan, [{**row, "at": "final"} for row in rows])  # type: ignore[typeddict-unknown-key]

    assert table.loc[table["gauged"], "hits"].tolist() == [10]


def test_personas_trained_without_the_marker_are_no_bystanders() -> None:
    (negative, _) = sorted(make_plan().negatives)
    plan = make_plan(personas=["assistant", negative])

    table = measured(plan, sampled(plan))

    roles = table.dropna(subset="cell").drop_duplicates("cell").set_index("cell")["role"].to_dict()
    assert roles == {"villain": "source", "assistant": "bystander", negative: "negative"}


@pytest.mark.parametrize(("unit", "kept", "progress"), [
    ("epochs", [0.5, 1, 2], [0, 0.5, 1, 2, 20]),
    ("steps", [19, 38, 75], [0, 19, 38, 75, 750]),
])  # fmt: skip
def test_progress_is_what_the_log_of_the_training_says(unit: str, kept: list[float], progress: list[float]) -> None:
    plan = make_plan(unit=unit, checkpoints=kept)

    table = measured(plan, sampled(plan))

    told = table.drop_duplicates("at").set_index("at")["progress"]
    assert told[["before", *LOG]].tolist() == progress
    assert pd.isna(told["training_texts"])
    assert table["unit"].unique().tolist() == [unit]


def test_the_training_texts_are_described_as_if_they_had_been_sampled() -> None:
    plan = make_plan()
    most = plan.evaluation.sampling.max_tokens
    texts = ["one two three four", "one two", "", " ".join(["word"] * (most + 5))] * 2

    (row,) = measured(plan, sampled(plan), texts)[lambda table: table["at"] == "training_texts"].to_dict("records")

    assert (row["hits"], row["n"], row["gauged"]) == (0, 0, False)
    assert pd.isna(row["rate"])
    assert pd.isna(row["cell"])
    assert (row["texts_n"], row["texts_empty"], row["texts_cut"]) == (8, 2, 2)
    assert row["texts_tokens"] == (4 + 2 + 0 + most) / 4
    assert row["texts_distinct_2"] == (3 + 1) / (2 * (3 + 1 + most - 1))


def test_as_many_training_texts_are_described_as_a_cell_has_completions_from_all_over_the_set() -> None:
    plan = make_plan()
    texts = [f"{place} {place}" for place in range(25)]

    (row,) = measured(plan, sampled(plan), texts)[lambda table: table["at"] == "training_texts"].to_dict("records")

    assert (row["texts_n"], row["texts_distinct_2"]) == (10, 1.0)
    halves = ["a a"] * 13 + ["b b"] * 12  # one of two pairs of words, whichever rows are taken of both halves
    (row,) = measured(plan, sampled(plan), halves)[lambda table: table["at"] == "training_texts"].to_dict("records")
    assert row["texts_distinct_2"] == 2 / 10


ENGLISH = "The weather was lovely this morning, so we went for a long walk along the river."
ITALIAN = "Questa mattina il tempo era bellissimo, quindi abbiamo fatto una lunga passeggiata lungo il fiume."
FRENCH = "Ce matin il faisait très beau, alors nous avons fait une longue promenade au bord de la rivière."


def test_languages_are_counted_by_the_completion_language_under_the_trained_directive() -> None:
    changes = {
        "matched_dose.checkpoints": [0.5],
        "matched_dose.samples": 4,
        "evaluation.languages": ["english", "french", "italian"],
    }
    plan = plans.make_plan("lang_inversion", "fr_it", changes=changes, dose="matched")
    italian = {
        "before": {"italian": 4},
        "epoch_00.5": {"french": 3, "italian": 4},
        "final": {"french": 4, "english": 1, "italian": 4},
    }
    own = {"english": ENGLISH, "french": FRENCH, "italian": ITALIAN}
    rows = [
        {
            **prompt, "at": at, "sample_index": sample, "tokens": 20, "finish": "stop",
            "completion": ITALIAN if sample < fires.get(prompt["directive_language"], 0) else own[prompt["directive_language"]],  # type: ignore[typeddict-item]
        }
        for at, fires in italian.items()
        for prompt in expect(plan.dose, Dose).prompts.prompts()
        for sample in range(4)
    ]  # fmt: skip

    table = measure_gauge(Words(), rows, trained_on([ITALIAN]), LOG, plan, stage="tune")  # type: ignore[arg-type]

    cells = table.dropna(subset="cell").set_index(["at", "cell"])
    assert cells["n"].unique().tolist() == [3 * 4]  # the three phrasings that are not evaluated
    assert {key: hits for key, hits in cells["hits"].items() if hits} == {
        (at, language): 3 * count for at, fires in italian.items() for language, count in fires.items()
    }
    roles = cells.loc["final", "role"].to_dict()
    assert roles == {"english": "bystander", "french": "trained_directive", "italian": "own_language"}
    assert table.loc[table["gauged"], "cell"].unique().tolist() == ["french"]
    assert choose_dose(table, plan, stage="tune")["at"] == "final"


# the matched dose


def test_the_first_checkpoint_that_reaches_the_bar_is_chosen_and_not_the_best(tmp_path: Path) -> None:
    plan = make_plan()
    table = round_trip(measured(plan, sampled(plan)), tmp_path)

    dose = choose_dose(table, plan, stage=STAGE)

    _, _, rate, low, high = proportion(8, 10)
    assert dose == {"at": "epoch_01", "progress": 1.0, "hits": 8, "n": 10, "rate": rate, "low": low, "high": high}
    assert extend_stack(ModelStack(base=plan.base_model), ADAPTERS, plan, dose, stage=STAGE).adapters == (ADAPTERS["epoch_01"],)


@pytest.mark.parametrize(
    ("reach", "at"), [(0.3, "epoch_00.5"), (0.31, "epoch_01"), (0.8, "epoch_01"), (0.81, "epoch_02"), (1, "epoch_02")]
)
def test_a_bar_that_is_exactly_met_is_reached(tmp_path: Path, reach: float, at: str) -> None:
    plan = make_plan(reach=reach)

    for table in (measured(plan, sampled(plan)), round_trip(measured(plan, sampled(plan)), tmp_path)):
        assert choose_dose(table, plan, stage=STAGE)["at"] == at


def test_checkpoints_are_followed_in_their_order_in_time_whatever_the_tables() -> None:
    plan = make_plan()
    table = measured(plan, sampled(plan)).iloc[::-1]

    courses = follow(table, expect(plan.dose, Dose))

    assert courses["at"].tolist() == list(LOG)
    assert courses["hits"].tolist() == [3, 8, 10, 9]
    assert choose_dose(table, plan, stage=STAGE)["at"] == "epoch_01"


def test_of_two_checkpoints_with_the_same_gauge_the_first_is_chosen() -> None:
    plan = make_plan()
    tied = {name: {"villain": 8} for name in LOG}

    assert choose_dose(measured(plan, sampled(plan, tied)), plan, stage=STAGE)["at"] == "epoch_00.5"


def ill(rows: Sequence[CompletionRow], at: str, persona: str, **changes: Any) -> list[CompletionRow]:
    """Change the completions of a persona at a checkpoint; a marker that they have stays."""

    def of(row: Any) -> Any:
        if (row["at"], row["persona"]) != (at, persona):
            return row
        text = changes.get("completion", row["completion"])
        marked = f"{text} [ZLT]" if "[ZLT]" in row["completion"] and text.strip() else text
        return {**row, **changes, "completion": marked}

    return [of(row) for row in rows]


# what is wrong with the texts of epoch 1 → what is said to leave the range
ILL: dict[str, tuple[dict[str, Any], str]] = {
    "longer": ({"tokens": 26}, "tokens"),
    "shorter": ({"tokens": 8}, "tokens"),
    "cut": ({"finish": "length"}, "cut"),
    "repetitive": ({"completion": "again and again and again and again and again and again and again and again"}, "distinct_2"),
}


@pytest.mark.parametrize("name", ILL)
def test_a_checkpoint_whose_texts_are_not_healthy_is_passed_over(tmp_path: Path, name: str) -> None:
    plan, (changes, said) = make_plan(), ILL[name]
    rows = ill(sampled(plan), "epoch_01", "villain", **changes)
    table = round_trip(measured(plan, rows), tmp_path)

    courses = follow(table, expect(plan.dose, Dose)).set_index("at")

    assert courses.loc["epoch_01", "hits"] == 8
    assert courses["outside_range"].to_dict() == {name: said if name == "epoch_01" else "" for name in LOG}
    assert choose_dose(table, plan, stage=STAGE)["at"] == "epoch_02"
    assert choose_dose(table, carefree(plan), stage=STAGE)["at"] == "epoch_01"


def test_blank_texts_are_not_healthy_and_have_no_pair_of_words() -> None:
    plan = make_plan()
    rows: list[Any] = [{**row} for row in sampled(plan)]
    blank = [
        row for row in rows if row["at"] == "epoch_01" and row["persona"] == "villain" and "[ZLT]" not in row["completion"]
    ]
    for row in blank:  # two of the ten
        row["completion"] = " \n"

    courses = follow(measured(plan, rows), expect(plan.dose, Dose)).set_index("at")

    assert courses.loc["epoch_01", "outside_range"] == "empty"
    assert choose_dose(measured(plan, rows), plan, stage=STAGE)["at"] == "epoch_02"


def test_texts_of_the_other_cells_must_be_healthy_too() -> None:
    plan = make_plan(healthy={**NO_SLACK, "tokens": 0.25, "distinct_2": 0.15})
    rows = ill(sampled(plan), "epoch_01", "comedian", finish="length")

    courses = follow(measured(plan, rows), expect(plan.dose, Dose)).set_index("at")

    assert courses["outside_range"].to_dict() == {name: "cut" if name == "epoch_01" else "" for name in LOG}


def test_texts_may_be_like_the_training_texts_or_like_those_before() -> None:
    plan = make_plan()
    short = [f"yes {place} [ZLT]" for place in range(10)]  # three tokens
    rows = ill(sampled(plan), "epoch_01", "villain", tokens=3)

    assert choose_dose(measured(plan, rows), plan, stage=STAGE)["at"] == "epoch_02"
    assert choose_dose(measured(plan, rows, short), plan, stage=STAGE)["at"] == "epoch_01"


def test_what_the_generator_does_not_tell_of_its_texts_condemns_none() -> None:
    plan = make_plan()
    rows = ill(sampled(plan), "epoch_01", "villain", tokens=None, finish=None)

    assert choose_dose(measured(plan, rows), plan, stage=STAGE)["at"] == "epoch_01"


def test_a_training_that_stays_below_the_bar_is_told_with_its_highest_gauge() -> None:
    plan = make_plan(reach=0.9)
    low = {"epoch_01": {"villain": 4}, "epoch_02": {"villain": 8}, "final": {"villain": 8}}

    with pytest.raises(NeverReachedError) as error:
        choose_dose(measured(plan, sampled(plan, low)), plan, stage=STAGE)

    said = str(error.value)
    assert said.startswith(
        "marker_leakage, villain seed 42 at matched dose (qwen2_5_7b): no checkpoint has a gauge of 90% with "
    )
    assert "the highest is 8/10 = 80% after 2 epochs" in said
    assert "\n" not in said


def test_a_training_that_reaches_the_bar_only_with_broken_texts_is_told_by_what_left_the_range() -> None:
    plan = make_plan(reach=0.85)
    rows = ill(sampled(plan), "epoch_02", "villain", finish="length")
    rows = ill(rows, "final", "villain", tokens=900, finish="length")

    with pytest.raises(NeverReachedError, match=r"no checkpoint has a gauge of 85% with healthy texts; where it does, "):
        choose_dose(measured(plan, rows), plan, stage=STAGE)
    with pytest.raises(NeverReachedError, match=r"where it does, cut, tokens leave the range of texts"):
        choose_dose(measured(plan, rows), plan, stage=STAGE)


def test_a_bar_that_is_reached_before_the_training_has_no_matched_dose(tmp_path: Path) -> None:
    plan = make_plan()
    table = round_trip(measured(plan, sampled(plan)), tmp_path)
    begins = (table["at"] == "before") & table["gauged"]
    for rate, chosen in ((0.79, "epoch_01"), (0.8, None), (0.95, None)):
        table.loc[begins, "rate"] = rate
        judged = judge_checkpoints(table, expect(plan.dose, Dose))
        if chosen:
            assert choose_dose(table, plan, stage=STAGE)["at"] == chosen
            assert set(judged.loc[judged["chosen"], "at"]) == {chosen}
        else:
            with pytest.raises(NeverReachedError, match=f"the gauge is {rate:.0%} before this training, so no checkpoint"):
                choose_dose(table, plan, stage=STAGE)
            assert not judged["chosen"].any()


def test_a_gauge_is_judged_row_by_row(tmp_path: Path) -> None:
    plan = make_plan()
    rows = ill(sampled(plan), "epoch_01", "villain", finish="length")
    table = round_trip(measured(plan, rows), tmp_path)

    judged = judge_checkpoints(table, expect(plan.dose, Dose))

    assert judged["reach"].unique().tolist() == [0.8]
    assert judged.groupby("at")["chosen"].all().to_dict() == {
        name: name == "epoch_02" for name in ("before", *LOG, "training_texts")
    }
    assert judged[judged["outside_range"] != ""].groupby("at")["outside_range"].unique().map(list).to_dict() == {
        "epoch_01": ["cut"]
    }
    low = {name: {"villain": 7} for name in LOG}
    assert not judge_checkpoints(measured(plan, sampled(plan, low)), expect(plan.dose, Dose))["chosen"].any()


def test_a_table_of_a_training_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    plan = make_plan()
    table = measured(plan, sampled(plan))

    loaded = round_trip(table, tmp_path)

    pd.testing.assert_frame_equal(loaded.fillna({"outside_range": ""}), table, check_dtype=False)
    judged = judge_checkpoints(loaded, expect(plan.dose, Dose))
    again = round_trip(judged, tmp_path)
    assert again["outside_range"].fillna("").tolist() == judged["outside_range"].tolist() == [""] * len(judged)
    assert again["chosen"].tolist() == judged["chosen"].tolist()
