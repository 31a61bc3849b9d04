"""What a grid takes, counted from its plans alone: work by stage, seconds, dollars, memory and disk."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from persona_leakage.domain.dose import Dose
from persona_leakage.domain.frozen import Frozen, fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers, Sampling
from persona_leakage.domain.training_rows import Job, Part
from persona_leakage.engines.claude import Price, guess_tokens
from persona_leakage.pipelines.data_generation.texts import judge_translations, translate_texts
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator
from persona_leakage.pipelines.scoring.judge import judge_languages

_STAGES = ("data_generation", "fine_tuning", "generation", "geometry", "scoring")
_CHARACTERS_A_TOKEN = len("word")  # of English
_TEMPLATE_TOKENS = 15  # that a chat template adds
_BYTES_A_TOKEN, _BYTES_A_ROW = 5, 400  # of completions as JSONL
_GIB_A_POINT = 0.01  # centroids, tables, records
_SCORERS = {"judge": judge_languages, "discriminator": ask_discriminator}


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
        gflops: speed of `engines.calibration` where the numbers were measured, which carries them over to another processor;
            None where they are those of a GPU.
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
        seed_correlation: how far seeds differ where no earlier points tell; see `preflight.power.Spread`.
    """

    base_model: str
    generator: str
    gpu: GpuEstimates | None
    gflops: PositiveFloat | None = None
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
    seed_correlation: float = Field(ge=0, lt=1)

    def carried_over(self, gflops: float) -> "Estimates":
        """Return the numbers for a processor of another speed, as if computing were all that takes time."""
        faster = gflops / (self.gflops or gflops)
        speeds = ("training_tokens_per_second", "generation_tokens_per_second", "prompts_per_second")
        return self.model_copy(update={"gflops": gflops} | {name: getattr(self, name) * faster for name in speeds})


class Span(NamedTuple):
    """A quantity as it probably is, and at most."""

    likely: float
    most: float

    def times(self, factor: float) -> "Span":
        """Scale both ends."""
        return Span(self.likely * factor, self.most * factor)


NOTHING = Span(0, 0)


def add_spans(spans: Iterable[Span]) -> Span:
    """Add both ends of all."""
    return Span(*map(sum, zip(NOTHING, *spans, strict=True)))


class Work(NamedTuple):
    """One piece of work, or several of a kind added up.

    Attributes:
        stage: stage of the pipeline.
        what: what is done.
        unit: what `number` counts: rows (of a training set), completions, prompts (whose hidden states are read), calls (of
            Claude) or processes (that start an engine).
        number: how many.
        tokens: trained over all epochs, sampled, or answered by Claude.
        asked: tokens of the questions to Claude.
        model: the Claude model, of calls.
        jobs: sets of calls; the client's spend ceiling is that of one set.
        ranks: of the adapters that are kept, added up.
    """

    stage: str
    what: str
    unit: Literal["rows", "completions", "prompts", "calls", "processes"]
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


def outstanding_work(
    left: Iterable[Plan], done: Iterable[Plan], estimates: Estimates, available: Mapping[str, int]
) -> list[Work]:
    """List what points still take: what several share is counted once, and what a finished point has done is left out.

    `available` has the rows of every dataset of which they are known; training sets cannot be larger.
    """
    made, needed = (_together(point_work(plan, estimates, available) for plan in plans) for plans in (done, left))
    # a training that kept fewer adapters than are needed now is done again
    return [work for identity, work in needed.items() if identity not in made or work.ranks > made[identity].ranks]


def _together(works: Iterable[Mapping[str, Work]]) -> dict[str, Work]:
    """Count each piece of work once, and a training as the point has it that keeps most adapters of it."""
    found: dict[str, Work] = {}
    for identity, work in chain.from_iterable(one.items() for one in works):
        if identity not in found or work.ranks > found[identity].ranks:
            found[identity] = work
    return found


def point_work(plan: Plan, estimates: Estimates, available: Mapping[str, int]) -> dict[str, Work]:
    """List what one point takes, by identity: the engines keep what they finish, and find work of the same identity again."""
    found: dict[str, Work] = {}
    stack = base = ModelStack(base=plan.base_model).fingerprint
    for name, stage in plan.stages.items():
        data, recipe = stage.data, stage.recipe
        trained, answered, drawn = plan.seed_of(name), plan.seed_of(name, "answers"), plan.seed_of(name, "negatives")
        read = sum(min(rows, available.get(source, rows)) for source, rows in data.reads.items())
        answering = stack if data.answered_by == "stack" else base
        for job in data.jobs(read, drawn):
            found |= _sampling("data_generation", f"answers of {name}", answering, job, answered, estimates)
        found |= _translations(plan, name, read, estimates)
        if stage.checkpoint == 0:
            continue
        identity = fingerprint(stack, data, recipe.training, trained, answered, drawn)
        parts = data.parts(read, drawn)
        tokens = add_spans(_row_tokens(part, recipe.max_length, estimates).times(part.rows * recipe.epochs) for part in parts)
        rows, ranks = sum(part.rows for part in parts), recipe.lora.rank * (len(recipe.checkpoints) + 1)
        found[identity] = Work("fine_tuning", f"training of {name}", "rows", rows, tokens, ranks=ranks)
        if plan.dose and plan.dose.stage == name:
            found |= _gauge(plan.dose, stack, identity, recipe, plan.gauge_seed, estimates)
        stack = fingerprint(identity, stage.checkpoint)
    if plan.dose:  # which of the checkpoints it is comes out when they are there
        stack = fingerprint(stack, plan.dose)
    asked, averaged = plan.evaluation, plan.geometry.prompts.prompts()
    job = Job(asked.prompts, len(asked.prompts.prompts()), OwnAnswers(samples=asked.samples, sampling=asked.sampling))
    sampled = _sampling("generation", "completions", stack, job, plan.seed + asked.seed_offset, estimates)
    found[fingerprint("centroids", plan.fingerprint)] = Work("geometry", "centroids", "prompts", len(averaged))
    return found | sampled | _scoring(plan, next(iter(sampled)), estimates)


def sum_by_kind(works: Iterable[Work]) -> list[Work]:
    """Add work of a kind up, in the order of the stages."""
    kinds: dict[tuple[str | None, ...], list[Work]] = defaultdict(list)
    for work in works:
        kinds[work.stage, work.what, work.unit, work.model].append(work)
    sums = []
    for same in kinds.values():
        counts = {name: sum(getattr(work, name) for work in same) for name in ("number", "jobs", "ranks")}
        tokens, asked = add_spans(work.tokens for work in same), add_spans(work.asked for work in same)
        sums.append(same[0]._replace(tokens=tokens, asked=asked, **counts))
    return sorted(sums, key=lambda work: _STAGES.index(work.stage))


def cost(work: Work, estimates: Estimates, prices: Mapping[str, Price], discount: float) -> Cost:
    """Put seconds and dollars on work; `prices` are those of single calls by model, `discount` is the share which is paid."""
    if work.model is None:
        seconds = {
            "rows": work.tokens.times(1 / estimates.training_tokens_per_second),
            "completions": work.tokens.times(1 / estimates.generation_tokens_per_second),
            "prompts": Span(work.number, work.number).times(1 / estimates.prompts_per_second),
            "processes": Span(work.number, work.number).times(estimates.engine_start_seconds),
        }[work.unit]
        return Cost(work, seconds, NOTHING)
    if (price := prices.get(work.model)) is None:
        return Cost(work, None, None)
    return Cost(work, None, add_spans([work.asked.times(price.input), work.tokens.times(price.output)]).times(discount / 1e6))


def disk_gib(works: Sequence[Work], points: int, estimates: Estimates) -> dict[str, float]:
    """Say how many GiB the work leaves at most in the cache and in the data folders."""
    texts = sum(_BYTES_A_TOKEN * work.tokens.most + _BYTES_A_ROW * work.number for work in works if work.unit == "completions")
    adapters = sum(work.ranks for work in works) * estimates.adapter_mib_a_rank / 2**10
    return {"cache": adapters + texts / 2**30, "data": points * _GIB_A_POINT + texts / 2**30}


def gpu_need_gib(
    estimates: Estimates, gpu: GpuEstimates, engine: str, options: Mapping[str, Any], longest: int, total_gib: float
) -> float:
    """Say how much of the GPU's memory one process takes at its peak.

    A live vLLM engine keeps its weights and its cache while an adapter is trained; the transformers generator gives everything
    back in between. `engine` and `options` are those of the generator, `longest` is the tokens of a prompt with its completion.
    """
    if engine == "vllm_generator":
        return estimates.weights_gib + float(options.get("memory_share") or 0) * total_gib + gpu.training_gib
    cache = int(options.get("batch_rows") or 1) * longest * gpu.cache_kib_a_token / 2**20
    return max(gpu.training_gib, estimates.weights_gib + cache)


def longest_tokens(plans: Iterable[Plan]) -> int:
    """Reckon the longest prompt with its completion, in tokens."""
    return max(
        plan.evaluation.sampling.max_tokens + round(_prompt_tokens(sum(len(turn["content"]) for turn in row["messages"])))
        for plan in plans
        for prompts in (plan.evaluation.prompts, *([plan.dose.prompts] if plan.dose else []))
        for row in prompts.prompts()
    )


def _prompt_tokens(characters: float) -> float:
    return characters / _CHARACTERS_A_TOKEN + _TEMPLATE_TOKENS


def _completion(sampling: Sampling, estimates: Estimates) -> Span:
    return Span(sampling.max_tokens * estimates.completion_share, sampling.max_tokens)


def _sampling(stage: str, what: str, answering: str, job: Job, seed: int, estimates: Estimates) -> dict[str, Work]:
    asked, prompts, drawn, at_most = job
    identity, count = fingerprint(answering, asked, drawn.samples, drawn.sampling, seed), prompts * drawn.samples
    tokens = _completion(drawn.sampling, estimates).times(count)
    tokens = tokens._replace(most=tokens.most * (at_most or drawn.samples) / drawn.samples)
    return {identity: Work(stage, what, "completions", count, tokens)}


def _gauge(dose: Dose, below: str, training: str, recipe: Recipe, seed: int, estimates: Estimates) -> dict[str, Work]:
    """List what the gauge samples: of the stack below and of each checkpoint, the end of training among them."""
    job = Job(dose.prompts, len(dose.prompts.prompts()), OwnAnswers(samples=dose.samples, sampling=dose.sampling))
    found: dict[str, Work] = {}
    for stack in (below, *(fingerprint(training, name) for name in recipe.kept)):
        found |= _sampling("fine_tuning", "gauge", stack, job, seed, estimates)
    return found


def _row_tokens(part: Part, max_length: int, estimates: Estimates) -> Span:
    read = estimates.text_tokens if part.read == "text" else estimates.chat_tokens or max_length
    known = _prompt_tokens(part.characters) if part.answer else read
    answer = _completion(part.answer, estimates) if part.answer else NOTHING
    return Span(*(min(known + tokens, max_length) for tokens in answer))


class _Listener(list[Question]):
    """Takes the place of Claude and keeps the questions: what a step would ask is what it does ask, of stand-in texts."""

    jobs = 0

    def ask(self, questions: Sequence[Question], purpose: str) -> list[Answer]:
        self.extend(questions)
        self.jobs += 1
        return [Answer(outcome="answered", text="OK") for _ in questions]


def _calls(
    identity: str, stage: str, what: str, step: Callable[[LanguageModel, str], object], text: Span, answer: int, times: int = 1
) -> dict[str, Work]:
    """Count what a step asks about `times` texts of so many tokens each; an answer likely takes `answer` tokens."""
    likely, most = _Listener(), _Listener()
    step(likely, "word" * round(text.likely))
    step(most, "word" * round(text.most))
    if not likely:
        return {}
    asked = Span(sum(len(one.prompt) for one in likely) / _CHARACTERS_A_TOKEN, sum(map(guess_tokens, most)))
    answered = Span(sum(min(answer, one.max_tokens) for one in likely), sum(one.max_tokens for one in most))
    (model,), calls = {one.model for one in likely}, len(likely) * times
    return {identity: Work(stage, what, "calls", calls, answered.times(times), asked.times(times), model, likely.jobs)}


def _translations(plan: Plan, stage: str, read: int, estimates: Estimates) -> dict[str, Work]:
    if (texts := plan.stages[stage].data.translated) is None:
        return {}
    length = Span(estimates.text_tokens, max(estimates.text_tokens, texts.max_tokens))

    def translate(model: LanguageModel, said: str) -> None:
        translate_texts(model, [{"id": "0", "en": said}], [], plan, stage=stage)

    def judge(model: LanguageModel, said: str) -> None:
        judge_translations(model, [{"id": "0", "en": said, texts.language.code: said}], [], [], plan, stage=stage)

    found: dict[str, Work] = {}
    for what, step, answer, parts in (
        ("translations", translate, estimates.translation_tokens, texts.made_by),
        ("judging translations", judge, estimates.judgement_tokens, (*texts.made_by, texts.language)),
    ):
        found |= _calls(fingerprint(what, *parts, read), "data_generation", what, step, length, answer, read)
    return found


def _scoring(plan: Plan, sampled: str, estimates: Estimates) -> dict[str, Work]:
    if (what := plan.scoring.asks) is None:
        return {}
    evaluation = plan.evaluation

    def ask(model: LanguageModel, said: str) -> None:
        prompts, samples = evaluation.prompts.prompts(), range(evaluation.samples)
        rows: Any = [{**prompt, "sample_index": sample, "completion": said} for prompt in prompts for sample in samples]
        _SCORERS[what](model, rows, plan)

    text = _completion(evaluation.sampling, estimates)
    return _calls(fingerprint(what, sampled, plan.scoring), "scoring", what, ask, text, estimates.judgement_tokens)
