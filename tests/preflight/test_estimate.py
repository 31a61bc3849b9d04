"""Plans of the protocol of record, whose counts are known, and planted settings in round numbers."""

import pytest

from persona_leakage.domain.dose import Dose
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.sampling import OwnAnswers, Sampling
from persona_leakage.domain.training_rows import Job, Part, TrainingData
from persona_leakage.engines.claude import Price
from persona_leakage.preflight.estimate import (
    Estimates,
    Span,
    Work,
    cost,
    disk_gib,
    gpu_need_gib,
    longest_tokens,
    outstanding_work,
    point_work,
    sum_by_kind,
)
from tests.plans import make_plan

ESTIMATES = Estimates.checked(
    {
        "base_model": "m",
        "generator": "vllm_generator",
        "gpu": {"name": "G", "training_gib": 50, "cache_kib_a_token": 64},
        "training_tokens_per_second": 1000,
        "generation_tokens_per_second": 2000,
        "prompts_per_second": 10,
        "engine_start_seconds": 60,
        "text_tokens": 200,
        "chat_tokens": None,
        "completion_share": 0.5,
        "translation_tokens": 300,
        "judgement_tokens": 60,
        "weights_gib": 15,
        "memory_gib": 8,
        "adapter_mib_a_rank": 8,
        "seed_correlation": 0.02,
    },
    "estimates",
)


def counted(*plans: Plan, available: dict[str, int] | None = None) -> dict[str, Work]:
    return {work.what: work for work in sum_by_kind(outstanding_work(plans, [], ESTIMATES, available or {}))}


@pytest.mark.parametrize(
    ("family", "condition", "checkpoint", "completions", "prompts"),
    [
        ("lang_inversion", "fr_it", None, 14 * 40, 14),
        ("lang_inversion", "baseline", None, 14 * 40, 14),
        ("lang_inversion", "fr_it_five_phrasings", None, 35 * 40, 35),
        ("marker_leakage", "villain", None, 111 * 20 * 10, 111 * 20),
        ("convergence", "nurse", 4, 12 * 20 * 10, 111 * 20),
        ("benign_coupling", "benign_assistant", None, 12 * 28 * 10, 113 * 20),
    ],
)
def test_a_point_samples_and_reads_what_the_protocol_says(
    family: str, condition: str, checkpoint: int | None, completions: int, prompts: int
) -> None:
    works = counted(make_plan(family, condition, checkpoint=checkpoint))
    assert works["completions"].number == completions
    assert works["centroids"].number == prompts


def test_completions_are_half_as_long_as_the_longest_where_the_settings_say_so() -> None:
    assert counted(make_plan("lang_inversion", "baseline"))["completions"].tokens == Span(560 * 128, 560 * 256)


def test_a_baseline_trains_nothing_and_answers_nothing() -> None:
    assert set(counted(make_plan("marker_leakage", "baseline"))) == {"completions", "centroids"}


def test_rows_of_texts_are_as_many_as_there_are() -> None:
    plan = make_plan("lang_inversion", "fr_it")
    assert plan.stages["tune"].data.reads == {"source_texts": 5000}
    work = counted(plan)["training of tune"]
    assert (work.number, work.tokens, work.ranks) == (5000, Span(1_000_000, 1_000_000), 32)
    assert counted(plan, available={"source_texts": 176})["training of tune"].number == 176
    assert counted(plan, available={"source_texts": 9000})["training of tune"].number == 5000


def own_answers(condition: str = "fr_it", rows: int = 900, seed: int = 42) -> Plan:
    changes = {"stages.tune.source": {"kind": "own_answers"}, "stages.tune.rows": rows}
    return make_plan("lang_inversion", condition, seed, changes)


def test_own_answers_are_counted_as_the_first_round_and_at_most_as_all_that_may_be_asked() -> None:
    data = own_answers().stages["tune"].data
    assert (data.reads, data.needs) == ({"question_bank": 900}, {"question_bank": 45})  # 20 answers to each of 45
    works = counted(own_answers(), available={"question_bank": 700, "source_texts": 3})
    answers, training = works["answers of tune"], works["training of tune"]
    assert (answers.number, answers.tokens) == (1400, Span(1400 * 128, 14_000 * 256))
    # a directive of at most 37 characters, the template, and an answer
    assert training.number == 900
    assert 900 * (15 + 128) < training.tokens.likely < 900 * (15 + 10 + 128)
    assert counted(own_answers(rows=100), available={"question_bank": 700})["answers of tune"].number == 100
    assert "answers of tune" not in counted(own_answers(), available={"question_bank": 0})


def test_conditions_of_one_completion_language_share_own_answers_and_seeds_do_not() -> None:
    known = {"question_bank": 900}
    shared = counted(own_answers("fr_it"), own_answers("none_it"), available=known)
    assert (shared["answers of tune"].number, shared["training of tune"].number) == (900, 1800)
    assert counted(own_answers("fr_it"), own_answers("it_fr"), available=known)["answers of tune"].number == 1800
    assert counted(own_answers(), own_answers(seed=137), available=known)["answers of tune"].number == 1800


def test_a_marker_is_trained_on_200_rows_with_it_and_400_without() -> None:
    works = counted(make_plan("marker_leakage", "villain"))
    assert works["answers of mark"].number == 3 * 40 * 15
    training = works["training of mark"]
    assert training.number == 600
    # 20 epochs of 256 (at most 512) tokens of answer, and 30 to 120 of prompt and template
    assert 600 * 20 * (256 + 30) < training.tokens.likely < 600 * 20 * (256 + 120)
    assert training.tokens.most - training.tokens.likely == pytest.approx(600 * 20 * 256)


def test_no_more_rows_are_trained_than_answers_are_drawn() -> None:
    plan = make_plan("convergence", "nurse", checkpoint=2)
    stage = plan.stages["converge"]
    answers = stage.data.answers.model_copy(update={"samples": 3})  # type: ignore[union-attr]
    few = stage.model_copy(update={"data": stage.data.model_copy(update={"answers": answers})})
    works = counted(plan.model_copy(update={"stages": {"converge": few}}))
    assert (works["answers of converge"].number, works["training of converge"].number) == (120, 120)


def test_rows_longer_than_the_recipe_keeps_are_counted_as_cut() -> None:
    plan = make_plan("marker_leakage", "villain")
    stage = plan.stages["mark"]
    short = stage.model_copy(update={"recipe": stage.recipe.model_copy(update={"max_length": 100})})
    cut = counted(plan.model_copy(update={"stages": {"mark": short}}))["training of mark"]
    assert cut.tokens == Span(600 * 20 * 100, 600 * 20 * 100)


def test_sources_share_the_base_models_answers_and_conditions_their_adapters() -> None:
    apart = [make_plan("marker_leakage", name) for name in ("villain", "villain_code")]
    works = counted(*apart)
    assert works["answers of mark"].number == 1800
    assert works["training of mark"].number == 600
    assert works["completions"].number == 2 * 22_200


@pytest.mark.parametrize(
    ("share", "answers", "rows"),
    [
        ([], 2 * 3 * 40 * 15, 1200),
        (["negatives"], 2 * 3 * 40 * 15, 1200),
        (["answers"], 5 * 40 * 15, 1200),  # the seeds draw other negatives, and the source answers once
        (["answers", "negatives"], 3 * 40 * 15, 1200),
    ],
)
def test_seeds_answer_anew_what_they_do_not_share(share: list[str], answers: int, rows: int) -> None:
    seeds = (make_plan("marker_leakage", "villain", seed, {"stages.mark.share": share}) for seed in (42, 137))
    works = counted(*seeds)
    assert (works["answers of mark"].number, works["training of mark"].number) == (answers, rows)


def test_all_checkpoints_come_out_of_one_training_and_the_first_trains_nothing() -> None:
    plans = [make_plan("convergence", "nurse", checkpoint=epoch) for epoch in (0, 2, 4)]
    works = counted(*plans)
    assert works["training of converge"].number == 400
    assert works["training of converge"].ranks == 32 * 11
    assert works["training of mark"].number == 3 * 600
    assert "training of converge" not in counted(plans[0])


def left(todo: list[Plan], done: list[Plan]) -> dict[str, Work]:
    return {work.what: work for work in sum_by_kind(outstanding_work(todo, done, ESTIMATES, {}))}


def test_a_gauge_samples_its_prompts_before_at_every_checkpoint_and_at_the_end() -> None:
    marker = counted(make_plan("marker_leakage", "villain", dose="matched"))
    assert marker["gauge"].number == 5 * 20 * 4 * (9 + 1 + 1)
    assert marker["gauge"].tokens == Span(4400 * 256, 4400 * 512)
    assert marker["gauge"].stage == "fine_tuning"
    assert marker["training of mark"].ranks == 32 * (9 + 1)
    language = counted(make_plan("lang_inversion", "fr_it", dose="matched"))
    assert language["gauge"].number == 3 * 7 * 20 * (6 + 1 + 1)
    assert "gauge" not in counted(make_plan("lang_inversion", "fr_it"))


def test_both_doses_come_out_of_one_training_and_are_evaluated_apart() -> None:
    matched, final = (make_plan("marker_leakage", "villain", dose=dose) for dose in ("matched", "final"))
    for plans in ((matched, final), (final, matched)):
        works = counted(*plans)
        assert (works["training of mark"].number, works["training of mark"].ranks) == (600, 320)
        assert works["answers of mark"].number == 3 * 40 * 15
        assert works["completions"].number == 2 * 22_200
        assert works["centroids"].number == 2 * 2220


def test_an_end_is_found_in_what_kept_more_and_a_matched_dose_trains_again_what_kept_less() -> None:
    matched, final = (make_plan("marker_leakage", "villain", dose=dose) for dose in ("matched", "final"))
    assert set(left([final], [matched])) == {"completions", "centroids"}
    again = left([matched], [final])
    assert set(again) == {"training of mark", "gauge", "completions", "centroids"}
    assert again["training of mark"].number == 600
    assert left([matched], [matched]) == {}


def test_another_bar_samples_no_gauge_again_and_evaluates_anew() -> None:
    matched = make_plan("marker_leakage", "villain", dose="matched")
    other = make_plan("marker_leakage", "villain", changes={"matched_dose.reach": 0.5}, dose="matched")
    assert set(left([other], [matched])) == {"completions", "centroids"}


def test_conditions_share_the_gauge_of_the_model_before_and_no_other() -> None:
    pair = [make_plan("lang_inversion", name, dose="matched") for name in ("fr_it", "it_fr")]
    assert counted(*pair)["gauge"].number == 3 * 7 * 20 * (1 + 2 * 7)
    seeds = [make_plan("lang_inversion", "fr_it", seed, dose="matched") for seed in (1, 2)]
    assert counted(*seeds)["gauge"].number == 3 * 7 * 20 * 2 * 8


def test_the_longest_prompt_may_be_one_of_the_gauge() -> None:
    plan = make_plan("marker_leakage", "villain", dose="matched")
    dose = expect(plan.dose, Dose)
    asked = expect(dose.prompts, PersonaQuestions)
    long = asked.questions[0].model_copy(update={"question": "word" * 5000})
    prompts = asked.model_copy(update={"questions": (long,)})
    longer = plan.model_copy(update={"dose": dose.model_copy(update={"prompts": prompts})})
    assert longest_tokens([make_plan("marker_leakage", "villain")]) <= longest_tokens([plan]) < 5000 < longest_tokens([longer])


def test_cells_share_their_first_stage_and_replicates_answer_anew() -> None:
    works = counted(*(make_plan("benign_coupling", name) for name in ("benign_assistant", "benign_villain", "uncoupled")))
    assert works["training of induce"].number == 6000
    assert works["training of induce"].tokens == Span(6000 * 2048, 6000 * 2048)  # chats nobody has counted: the longest
    assert works["training of couple"].number == 2 * 600
    assert works["answers of couple"].number == 2 * 3 * 20 * 15
    own = counted(make_plan("benign_coupling", "uncoupled", env="embedded"))
    assert (own["answers of induce"].number, own["training of induce"].number) == (80, 160)


def test_replicates_answer_and_train_anew() -> None:
    plan = make_plan("benign_coupling", "benign_assistant")
    stages = {**plan.stages, "couple": plan.stages["couple"].model_copy(update={"seed_offset": 10_000})}
    works = counted(plan, plan.model_copy(update={"stages": stages}))
    assert works["training of induce"].number == 6000
    assert (works["answers of couple"].number, works["training of couple"].number) == (2 * 3 * 20 * 15, 2 * 600)


def test_base_models_share_nothing_but_one_of_another_name_is_the_same() -> None:
    plan = make_plan("marker_leakage", "villain")
    other = plan.model_copy(update={"base_model": plan.base_model.model_copy(update={"revision": "other"})})
    works = counted(plan, other)
    assert (works["answers of mark"].number, works["training of mark"].number) == (3600, 1200)
    named = plan.model_copy(
        update={
            "base_model": plan.base_model.model_copy(update={"made_by": "somebody"}),
            "address": plan.address.model_copy(update={"model": "alias"}),
        }
    )
    works = counted(plan, named)
    assert (works["answers of mark"].number, works["training of mark"].number) == (1800, 600)
    assert (works["completions"].number, works["centroids"].number) == (22_200, 2 * 2220)  # centroids are each point's own


class Letters(TrainingData):
    """A kind of training data that nothing but this test knows."""

    pages: int

    @property
    def reads(self) -> dict[str, int]:
        return {"letters": self.pages}

    def jobs(self, read: int, seed: int) -> list[Job]:
        sampling = Sampling(temperature=1, top_p=1, max_tokens=40)
        return [Job(self, read, OwnAnswers(samples=2, sampling=sampling))]

    def parts(self, read: int, seed: int) -> list[Part]:
        return [Part(read), Part(2 * read, characters=100, answer=self.jobs(read, seed)[0].answers.sampling)]


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the union of a stage does not know it either
def test_a_new_kind_of_training_data_is_counted_by_what_it_says_of_itself() -> None:
    plan = make_plan("lang_inversion", "fr_it")
    stage = plan.stages["tune"].model_copy(update={"data": Letters(pages=50)})
    works = counted(plan.model_copy(update={"stages": {"tune": stage}}), available={"letters": 10})
    assert (works["answers of tune"].number, works["answers of tune"].tokens) == (20, Span(20 * 20, 20 * 40))
    training, epochs = works["training of tune"], stage.recipe.epochs
    assert training.number == 30
    # a text has 200 tokens; 100 characters are 25, the template adds 15, and the answer is half its longest
    assert training.tokens == Span(epochs * (10 * 200 + 20 * (25 + 15 + 20)), epochs * (10 * 200 + 20 * (25 + 15 + 40)))


def test_what_a_finished_point_has_made_is_free_for_the_others() -> None:
    done, left = make_plan("marker_leakage", "villain"), make_plan("marker_leakage", "villain_code")
    works = {work.what: work.number for work in outstanding_work([left], [done], ESTIMATES, {})}
    assert works == {"completions": 22_200, "centroids": 2220}
    assert outstanding_work([], [done], ESTIMATES, {}) == []


def test_claude_translates_once_for_all_conditions_and_judges_each() -> None:
    works = counted(*(make_plan("lang_inversion", name, env="qwen") for name in ("fr_it", "it_fr", "es_en")))
    translations, judged, judge = works["translations"], works["judging translations"], works["judge"]
    assert (translations.number, translations.jobs, translations.model) == (35_000, 7, "claude-sonnet-4-5-20250929")
    assert translations.tokens == Span(35_000 * 300, 35_000 * 2048)
    assert 35_000 * 200 < translations.asked.likely < 35_000 * 400
    assert (judged.number, judged.tokens) == (10_000, Span(10_000 * 16, 10_000 * 16))  # English is no translation
    assert (judge.number, judge.jobs, judge.model) == (3 * 560, 3, "claude-haiku-4-5-20251001")
    assert judge.tokens == Span(3 * 560 * 60, 3 * 560 * 512)


def test_the_discriminator_asks_of_as_many_texts_as_it_draws() -> None:
    works = counted(make_plan("benign_coupling", "benign_assistant", env="qwen"))
    assert (works["discriminator"].number, works["discriminator"].jobs) == (100, 1)


def test_no_environment_but_qwen_asks_claude() -> None:
    for env in ("base", "embedded", "embedded_full"):
        for family, condition in (("lang_inversion", "fr_it"), ("benign_coupling", "benign_assistant")):
            plan = make_plan(family, condition, env=env)
            assert not [work for work in point_work(plan, ESTIMATES, {}).values() if work.model]


def test_seconds_come_from_the_speeds() -> None:
    def seconds(work: Work) -> Span | None:
        return cost(work, ESTIMATES, {}, 1.0).seconds

    assert seconds(Work("fine_tuning", "t", "rows", 5, Span(2000, 4000))) == Span(2, 4)
    assert seconds(Work("generation", "c", "completions", 5, Span(2000, 4000))) == Span(1, 2)
    assert seconds(Work("geometry", "g", "prompts", 50)) == Span(5, 5)


def test_dollars_come_from_prices_and_discount_and_are_not_zero_without_a_price() -> None:
    work = Work("scoring", "judge", "calls", 10, Span(1e6, 2e6), Span(3e6, 4e6), "claude-x", 1)
    prices = {"claude-x": Price(input=1, output=5)}
    assert cost(work, ESTIMATES, prices, 1.0).dollars == Span(8, 14)
    assert cost(work, ESTIMATES, prices, 0.5).dollars == Span(4, 7)
    assert cost(work, ESTIMATES, {}, 1.0).dollars is None
    assert cost(work, ESTIMATES, prices, 1.0).seconds is None


def test_adapters_lie_in_the_cache_and_completions_in_both_places() -> None:
    works = [
        Work("fine_tuning", "t", "rows", 600, ranks=32 * 4),
        Work("generation", "c", "completions", 1_000_000, Span(0, 2e8)),
    ]
    texts = (5 * 2e8 + 400 * 1e6) / 2**30
    assert disk_gib(works, 2, ESTIMATES) == pytest.approx({"cache": 1 + texts, "data": 0.02 + texts})


def test_a_live_vllm_engine_keeps_its_memory_while_an_adapter_is_trained() -> None:
    gpu = ESTIMATES.gpu
    assert gpu is not None
    assert gpu_need_gib(ESTIMATES, gpu, "vllm_generator", {"memory_share": 0.5}, 600, 100) == 15 + 50 + 50
    # 512 rows x 1,024 tokens x 64 KiB = 32 GiB beside the weights, less than training takes
    assert gpu_need_gib(ESTIMATES, gpu, "transformers_generator", {"batch_rows": 512}, 1024, 100) == 50
    assert gpu_need_gib(ESTIMATES, gpu, "transformers_generator", {"batch_rows": 1024}, 1024, 100) == 15 + 64
