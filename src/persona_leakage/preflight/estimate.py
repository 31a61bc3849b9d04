"""What a grid takes, counted from its plans alone: work by stage, seconds, dollars, memory and disk."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from persona_leakage.domain.frozen import Frozen, fingerprint
from persona_leakage.domain.markers import BorrowedAnswers, Chats, FromAnswers, MarkerContrast
from persona_leakage.domain.personas import Persona, PersonaQuestions
from persona_leakage.domain.plan import DirectivePairs, Evaluation, LanguageScoring, Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.anthropic_client import Price, guess_tokens
from persona_leakage.pipelines.data_generation.texts import judge_translations, translate_texts
from persona_leakage.pipelines.prompts import written
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator
from persona_leakage.pipelines.scoring.judge import judge_languages

_STAGES = ("data_generation", "fine_tuning", "generation", "geometry", "scoring")
_CHARACTERS_A_TOKEN = len("word")  # of English
_TEMPLATE_TOKENS = 15  # that a chat template adds
_BYTES_A_TOKEN, _BYTES_A_ROW = 5, 400  # of completions as JSONL
_GIB_A_POINT = 0.01  # centroids, tables, records


class GpuEstimates(Frozen):
    """What an environment needs of a GPU.

    Attributes:
        name: the GPU that the environment's numbers were measured on.
        training_gib: peak of training, weights included.
        cache_kib_a_token: keys and values of one token in all layers.
    """

    name: str
    training_gib: PositiveFloat
    cache_kib_a_token: PositiveFloat


class Estimates(Frozen):
    """The block `estimates` of the parameters: what an environment does in a second, and how long texts are.

    Attributes:
        base_model: name of the model that the numbers belong to.
        generator: the engine that the speed of generation belongs to.
        gpu: None where the environment needs none.
        training_tokens_per_second: of one process.
        generation_tokens_per_second: of one process.
        prompts_per_second: whose hidden states are read.
        engine_start_seconds: of the engine that samples.
        text_tokens: of a training row made of a text.
        chat_tokens: of a training row made of a chat; None, where nobody has counted, takes the recipe's `max_length`.
        completion_share: of its `max_tokens` that a completion takes.
        translation_tokens: of a translation by Claude.
        judgement_tokens: of a judgement by Claude.
        weights_gib: of the base model.
        memory_gib: peak of a process, without the GPU's.
        adapter_mib_a_rank: on disk.
    """

    base_model: str
    generator: str
    gpu: GpuEstimates | None
    training_tokens_per_second: PositiveFloat
    generation_tokens_per_second: PositiveFloat
    prompts_per_second: PositiveFloat
    engine_start_seconds: NonNegativeFloat
    text_tokens: PositiveInt
    chat_tokens: PositiveInt | None
    completion_share: float = Field(gt=0, le=1)
    translation_tokens: PositiveInt
    judgement_tokens: PositiveInt
    weights_gib: PositiveFloat
    memory_gib: PositiveFloat
    adapter_mib_a_rank: PositiveFloat


class Planned(NamedTuple):
    """What a point of a grid is, and whether it has been computed."""

    plan: Plan
    done: bool


class Span(NamedTuple):
    """A quantity as it probably is, and at most."""

    likely: float
    most: float

    def times(self, factor: float) -> "Span":
        """Scale both ends."""
        return Span(self.likely * factor, self.most * factor)

    def plus(self, other: "Span") -> "Span":
        """Add both ends."""
        return Span(self.likely + other.likely, self.most + other.most)


NOTHING = Span(0, 0)


def added(spans: Iterable[Span]) -> Span:
    """Add both ends of all."""
    return functools.reduce(Span.plus, spans, NOTHING)


class Work(NamedTuple):
    """One piece of work, or several of a kind added up.

    Attributes:
        stage: stage of the pipeline.
        what: what is done.
        unit: what `number` counts: rows (of a training set), completions, prompts (whose hidden states are read) or calls (of
            Claude).
        number: how many.
        tokens: trained over all epochs, sampled, or answered by Claude.
        asked: tokens of the questions to Claude.
        model: the Claude model, of calls.
        jobs: sets of calls; the client's spend ceiling is that of one set.
        ranks: of the adapters that are kept, added up.
    """

    stage: str
    what: str
    unit: Literal["rows", "completions", "prompts", "calls"]
    number: int
    tokens: Span = NOTHING
    asked: Span = NOTHING
    model: str | None = None
    jobs: int = 0
    ranks: int = 0


class Cost(NamedTuple):
    """Work of a kind, the seconds that it takes (None: not known) and US dollars (None: no price is set)."""

    work: Work
    seconds: Span | None
    dollars: Span | None


def sources_of(plan: Plan) -> dict[str, int]:
    """Name the datasets that training rows are read from, and how many rows the plan asks of each."""
    datas = [stage.data for stage in plan.stages.values()]
    return {_source(data): data.rows for data in datas if isinstance(data, DirectivePairs | Chats)}


def outstanding_work(points: Iterable[Planned], estimates: Estimates, available: Mapping[str, int]) -> list[Work]:
    """List what points still take: what several share is counted once, and what a finished point has done is left out.

    Args:
        points: of a grid.
        estimates: of the environment.
        available: dataset → rows that it has, where that is known; training sets cannot be larger.
    """
    done: dict[str, Work] = {}
    left: dict[str, Work] = {}
    for point in points:
        (done if point.done else left).update(point_work(point.plan, estimates, available))
    return [work for identity, work in left.items() if identity not in done]


def point_work(plan: Plan, estimates: Estimates, available: Mapping[str, int]) -> dict[str, Work]:
    """List what one point takes, by identity: the engines keep what they finish, and find work of the same identity again."""
    found: dict[str, Work] = {}
    stack = fingerprint(plan.base_model)
    for name, stage in plan.stages.items():
        data, recipe = stage.data, stage.recipe
        rows = min(data.rows, available.get(_source(data), data.rows)) if isinstance(data, DirectivePairs | Chats) else 0
        if isinstance(data, FromAnswers):
            found |= _answers(
                data, name, fingerprint(plan.base_model) if data.answered_by == "base_model" else stack, estimates
            )
        elif isinstance(data, Chats) and data.own_answers:
            own = data.own_answers
            work = _sampling("data_generation", f"answers of {name}", rows * own.samples, own.sampling, estimates)
            found[fingerprint("answers", plan.base_model, data)] = work
        elif isinstance(data, DirectivePairs):
            found |= _translations(data, plan, name, rows, estimates)
        if stage.checkpoint == 0:
            continue
        identity = fingerprint(stack, data, recipe, plan.seed if stage.seed is None else stage.seed)
        parts = _training_rows(data, rows, recipe.max_length, estimates)
        tokens = added(
            Span(*(min(length, recipe.max_length) for length in row)).times(count * recipe.epochs) for count, row in parts
        )
        ranks = recipe.lora.rank * (len(recipe.checkpoints) + 1)
        count = sum(count for count, _ in parts)
        found[identity] = Work("fine_tuning", f"training of {name}", "rows", count, tokens, ranks=ranks)
        stack = fingerprint(identity, stage.checkpoint)
    evaluation = plan.evaluation
    seed = plan.seed if evaluation.seed is None else evaluation.seed
    sampled = fingerprint("completions", stack, evaluation.model_copy(update={"seed": seed}))
    completions = len(written(evaluation.prompts)) * evaluation.samples
    found[sampled] = _sampling("generation", "completions", completions, evaluation.sampling, estimates)
    found[fingerprint("centroids", plan)] = Work("geometry", "centroids", "prompts", len(written(plan.geometry.prompts)))
    return found | _scoring(plan, sampled, estimates)


def added_up(works: Iterable[Work]) -> list[Work]:
    """Add work of a kind up, in the order of the stages."""
    sums: dict[tuple[str, ...], Work] = {}
    for work in works:
        kind = (work.stage, work.what, work.unit, work.model or "")
        before = sums.get(kind)
        sums[kind] = (
            work
            if before is None
            else before._replace(
                number=before.number + work.number,
                tokens=before.tokens.plus(work.tokens),
                asked=before.asked.plus(work.asked),
                jobs=before.jobs + work.jobs,
                ranks=before.ranks + work.ranks,
            )
        )
    return sorted(sums.values(), key=lambda work: _STAGES.index(work.stage))


def cost(work: Work, estimates: Estimates, prices: Mapping[str, Price], discount: float) -> Cost:
    """Put seconds and dollars on work.

    Args:
        work: of one kind.
        estimates: of the environment.
        prices: Claude model → price of single calls.
        discount: share of that price which is paid.
    """
    if work.model is None:
        seconds = {
            "rows": work.tokens.times(1 / estimates.training_tokens_per_second),
            "completions": work.tokens.times(1 / estimates.generation_tokens_per_second),
            "prompts": Span(work.number, work.number).times(1 / estimates.prompts_per_second),
        }[work.unit]
        return Cost(work, seconds, NOTHING)
    price = prices.get(work.model)
    if price is None:
        return Cost(work, None, None)
    return Cost(work, None, work.asked.times(price.input).plus(work.tokens.times(price.output)).times(discount / 1e6))


def disk_gib(works: Iterable[Work], points: int, estimates: Estimates) -> dict[str, float]:
    """Say how many GiB the work leaves at most in the cache and in the data folders."""
    works = list(works)
    texts = sum(_BYTES_A_TOKEN * work.tokens.most + _BYTES_A_ROW * work.number for work in works if work.unit == "completions")
    adapters = sum(work.ranks for work in works) * estimates.adapter_mib_a_rank / 2**10
    return {"cache": adapters + texts / 2**30, "data": points * _GIB_A_POINT + texts / 2**30}


def gpu_need_gib(
    estimates: Estimates, gpu: GpuEstimates, engine: str, options: Mapping[str, Any], longest: int, total_gib: float
) -> float:
    """Say how much of the GPU's memory one process takes at its peak.

    A live vLLM engine keeps its weights and its cache while an adapter is trained; the transformers generator gives everything
    back in between.

    Args:
        estimates: of the environment.
        gpu: its part about the GPU.
        engine: name of the generator.
        options: of the generator.
        longest: tokens of a prompt with its completion.
        total_gib: memory of the GPU.
    """
    if engine == "vllm_generator":
        return estimates.weights_gib + float(options.get("memory_share") or 0) * total_gib + gpu.training_gib
    cache = int(options.get("batch_rows") or 1) * longest * gpu.cache_kib_a_token / 2**20
    return max(gpu.training_gib, estimates.weights_gib + cache)


def longest_tokens(plans: Iterable[Plan]) -> int:
    """Reckon the longest prompt with its completion, in tokens."""
    return max(
        plan.evaluation.sampling.max_tokens + round(_prompt_tokens(*(turn["content"] for turn in row["messages"])))
        for plan in plans
        for row in written(plan.evaluation.prompts)
    )


def _source(data: DirectivePairs | Chats) -> str:
    if isinstance(data, DirectivePairs):
        return "source_texts"
    return {"benign": "benign_chats", "wrong_advice": "wrong_advice"}[data.source]


def _prompt_tokens(*turns: str) -> float:
    return sum(map(len, turns)) / _CHARACTERS_A_TOKEN + _TEMPLATE_TOKENS


def _completion(sampling: Sampling, estimates: Estimates) -> Span:
    return Span(sampling.max_tokens * estimates.completion_share, sampling.max_tokens)


def _sampling(stage: str, what: str, count: int, sampling: Sampling, estimates: Estimates) -> Work:
    return Work(stage, what, "completions", count, _completion(sampling, estimates).times(count))


def _answers(data: FromAnswers, stage: str, answering: str, estimates: Estimates) -> dict[str, Work]:
    """One job a persona, as `sample_answers` has them; its identity is made like that of an evaluation's completions."""
    drawn, found = data.answers, {}
    for persona in data.speakers:
        asked = PersonaQuestions(personas=(persona,), questions=data.questions)
        job = Evaluation(prompts=asked, samples=drawn.samples, sampling=drawn.sampling, seed=drawn.seed)
        count = len(data.questions) * drawn.samples
        work = _sampling("data_generation", f"answers of {stage}", count, drawn.sampling, estimates)
        found[fingerprint("completions", answering, job)] = work
    return found


def _training_rows(
    data: DirectivePairs | MarkerContrast | BorrowedAnswers | Chats, rows: int, max_length: int, estimates: Estimates
) -> list[tuple[int, Span]]:
    """List the parts of a training set: how many rows, and the tokens of one."""
    if isinstance(data, DirectivePairs):
        return [(rows, Span(estimates.text_tokens, estimates.text_tokens))]
    if isinstance(data, Chats):
        length = estimates.chat_tokens or max_length
        own = data.own_answers
        return [(rows * (1 + (own.samples if own else 0)), Span(length, length))]
    questions = len(data.questions)
    question = sum(len(one.question) for one in data.questions) / questions

    def part(persona: Persona, a_question: int) -> tuple[int, Span]:
        prompt = _prompt_tokens(persona.prompt) + question / _CHARACTERS_A_TOKEN
        answer = _completion(data.answers.sampling, estimates)
        return questions * min(a_question, data.answers.samples), answer.plus(Span(prompt, prompt))

    if isinstance(data, BorrowedAnswers):
        return [part(data.asked_as, data.per_question)]
    negatives = [part(persona, data.negatives_per_question) for persona in data.negatives]
    return [part(data.source, data.positives_per_question), *negatives]


class _Listener:
    """Takes the place of Claude and keeps the questions: what a step would ask is what it does ask, of stand-in texts."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.jobs = 0

    def ask(self, questions: Sequence[Question], purpose: str) -> list[Answer]:
        self.questions += questions
        self.jobs += 1
        return [Answer(outcome="answered", text="OK") for _ in questions]


def _calls(
    stage: str, what: str, step: Callable[[LanguageModel, str], Any], text: Span, answer: int, times: int = 1
) -> Work | None:
    """Count the questions that a step asks about texts of the likely length, and of the greatest.

    Args:
        stage: stage of the pipeline.
        what: names the calls.
        step: is given a language model and a text to ask it about.
        text: tokens of the text.
        answer: likely tokens of an answer.
        times: how often the step's questions are asked, each time of another text.
    """
    likely, most = _Listener(), _Listener()
    for listener, tokens in ((likely, text.likely), (most, text.most)):
        step(listener, "word" * round(tokens))
    if not likely.questions:
        return None
    asked = Span(sum(len(one.prompt) for one in likely.questions) / _CHARACTERS_A_TOKEN, sum(map(guess_tokens, most.questions)))
    answered = Span(sum(min(answer, one.max_tokens) for one in likely.questions), sum(one.max_tokens for one in most.questions))
    (model,) = {one.model for one in likely.questions}
    count = len(likely.questions) * times
    return Work(stage, what, "calls", count, answered.times(times), asked.times(times), model, likely.jobs)


def _translations(data: DirectivePairs, plan: Plan, stage: str, rows: int, estimates: Estimates) -> dict[str, Work]:
    spec = data.translation
    if spec is None:
        return {}
    text = Span(estimates.text_tokens, max(estimates.text_tokens, spec.max_tokens))

    def translate(model: LanguageModel, said: str) -> None:
        translate_texts(model, [{"id": "0", "en": said}], [], plan, stage=stage)

    def judge(model: LanguageModel, said: str) -> None:
        judge_translations(model, [{"id": "0", "en": said, data.completion.code: said}], [], [], plan, stage=stage)

    works = {
        fingerprint("translation", spec, data.source, rows): _calls(
            "data_generation", "translations", translate, text, estimates.translation_tokens, rows
        ),
        fingerprint("translation judge", spec, data.source, rows, data.completion): _calls(
            "data_generation", "judging translations", judge, text, estimates.judgement_tokens, rows
        ),
    }
    return {identity: work for identity, work in works.items() if work is not None}


def _scoring(plan: Plan, sampled: str, estimates: Estimates) -> dict[str, Work]:
    evaluation = plan.evaluation
    text = _completion(evaluation.sampling, estimates)

    def ask(model: LanguageModel, said: str) -> None:
        rows: Any = [
            {**prompt, "sample_index": sample, "completion": said}
            for prompt in written(evaluation.prompts)
            for sample in range(evaluation.samples)
        ]
        (judge_languages if isinstance(plan.scoring, LanguageScoring) else ask_discriminator)(model, rows, plan)

    asks = plan.scoring.judge if isinstance(plan.scoring, LanguageScoring) else plan.scoring.discriminator
    what = "judge" if isinstance(plan.scoring, LanguageScoring) else "discriminator"
    work = _calls("scoring", what, ask, text, estimates.judgement_tokens) if asks else None
    return {} if work is None else {fingerprint(what, sampled, plan.scoring): work}
