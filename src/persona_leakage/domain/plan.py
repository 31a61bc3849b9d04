"""What one run computes, resolved from the parameters before anything else happens."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.frozen import Frozen, canonical, digest
from persona_leakage.domain.languages import Language
from persona_leakage.domain.markers import BorrowedAnswers, Chats, MarkerContrast, MarkerScoring
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import Sampling

Role = Literal["trained_directive", "own_language", "trained_directive+own_language", "bystander"]


class ChatSource(Frozen):
    """Texts are the first assistant turns of chats.

    Attributes:
        min_characters: a shorter turn is dropped.
    """

    min_characters: PositiveInt


class Translation(Frozen):
    """How texts get the languages they lack.

    Attributes:
        model: the translator.
        languages: every language of the grid; a text that is refused in one of them is left out of all conditions.
        temperature: of the first try; None sends none, which newer models insist on.
        retries: how often a refused, empty or cut translation is tried again.
        retry_temperature: of these.
        max_tokens: limit of a translation.
        judge_model: compares each translation with its English text.
        judge_characters: how much of both the judge sees.
        gate_judged: smallest share of judged translations that must be OK.
    """

    model: str
    languages: tuple[Language, ...] = Field(min_length=1)
    temperature: float | None = Field(ge=0, le=1)
    retries: NonNegativeInt
    retry_temperature: float | None = Field(ge=0, le=1)
    max_tokens: PositiveInt
    judge_model: str
    judge_characters: PositiveInt
    gate_judged: float = Field(ge=0, le=1)


class DirectivePairs(Frozen):
    """Training rows that pair a directive with a text in the completion language.

    Attributes:
        directive: language the directive asks for; None trains with an empty user turn (the no-directive ablation).
        completion: language of the text.
        phrasings: English templates of the directive, cycled by the text's index.
        source: how texts are read from chats; None when the source holds texts.
        translation: how missing languages are made; None when the source holds every language.
        rows: how many texts to take, in order, before the skip-list is applied.
        gate_language: smallest share of texts that langdetect must recognise.
        gate_outliers: largest share of texts whose length ratio may lie outside the language's band.
    """

    kind: Literal["directive_pairs"] = "directive_pairs"
    directive: Language | None
    completion: Language
    phrasings: tuple[str, ...]
    source: ChatSource | None = None
    translation: Translation | None = None
    rows: PositiveInt
    gate_language: float = Field(ge=0, le=1)
    gate_outliers: float = Field(ge=0, le=1)


class Stage(Frozen):
    """One fine-tuning step.

    Attributes:
        data: what the training rows are made of.
        recipe: how they are trained.
        checkpoint: epoch whose adapter the next step builds on; 0 trains nothing, None takes the last.
        seed: of the training, where it is not the point's.
    """

    data: Annotated[DirectivePairs | MarkerContrast | BorrowedAnswers | Chats, Field(discriminator="kind")]
    recipe: Recipe
    checkpoint: NonNegativeInt | None = None
    seed: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _kept(self) -> "Stage":
        if self.checkpoint and self.checkpoint not in self.recipe.checkpoints:
            kept = ", ".join(map(str, self.recipe.checkpoints)) or "none"
            raise ValueError(f"checkpoint {self.checkpoint} is not among the recipe's checkpoints ({kept})")
        return self


class Directives(Frozen):
    """Evaluation prompts that are a language directive and nothing else.

    The cell of a prompt is directive language x phrasing.

    Attributes:
        languages: label → language.
        phrasings: English templates; their positions also pick the native directives.
        wording: `english` ("Speak in French.") or `native` ("Parle en français.").
    """

    kind: Literal["directives"] = "directives"
    languages: dict[str, Language]
    phrasings: tuple[str, ...]
    wording: Literal["english", "native"]


PromptSet = Annotated[Directives | PersonaQuestions, Field(discriminator="kind")]


class Evaluation(Frozen):
    """Prompts, and how many completions of each are sampled.

    Attributes:
        prompts: what is asked.
        samples: completions of each.
        sampling: how they are drawn.
        seed: of the sampling, where it is not the point's.
    """

    prompts: PromptSet
    samples: PositiveInt
    sampling: Sampling
    seed: NonNegativeInt | None = None


class Judge(Frozen):
    """A language model that names the language of a completion.

    Attributes:
        model: the judge.
        temperature: None sends none, which newer models insist on.
        max_tokens: limit of its answer.
        shows_directive: also show it the directive; the original's judge saw it and then took compliance for language.
    """

    model: str
    temperature: float | None = Field(ge=0, le=1)
    max_tokens: PositiveInt
    shows_directive: bool


class LanguageScoring(Frozen):
    """Which language each completion is in.

    Attributes:
        languages: label → language; anything else is `other`.
        trained_directive: label of the directive language of training, if any.
        completion: label of the completion language of training, if any.
        min_characters: a stripped completion shorter than this is `other`.
        detect_characters: langdetect sees this many leading characters.
        detector_seed: seed of langdetect, which is random by nature.
        mixed_share: a completion is mixed when a second language covers at least this share of its characters.
        judge: a language model as a further label; None asks none.
    """

    kind: Literal["language"] = "language"
    languages: dict[str, Language]
    trained_directive: str | None
    completion: str | None
    min_characters: NonNegativeInt
    detect_characters: PositiveInt
    detector_seed: int
    mixed_share: float = Field(gt=0, le=1)
    judge: Judge | None = None

    def role(self, directive_language: str) -> Role:
        """Name the role of a directive language in this condition; only bystanders are spill."""
        trained, own = directive_language == self.trained_directive, directive_language == self.completion
        if trained and own:
            return "trained_directive+own_language"
        return "trained_directive" if trained else "own_language" if own else "bystander"


class GeometrySettings(Frozen):
    """Which decoder blocks' outputs are averaged into centroids (0-based).

    Attributes:
        layers: the blocks.
        headline_layer: the one that a report leads with.
        batch_size: prompts in a forward pass.
    """

    layers: tuple[NonNegativeInt, ...] = Field(min_length=1)
    headline_layer: NonNegativeInt
    batch_size: PositiveInt

    @model_validator(mode="after")
    def _listed(self) -> "GeometrySettings":
        if self.headline_layer not in self.layers:
            raise ValueError(f"headline_layer {self.headline_layer} is not among the layers {list(self.layers)}")
        return self


class Geometry(GeometrySettings):
    """The prompts whose last-token states are averaged, by directive language or by persona; all of them centre a cosine."""

    prompts: PromptSet


class Plan(Frozen):
    """Everything that decides the results of one point: condition x seed [x checkpoint].

    Attributes:
        checkpoint: epoch of the first stage, in families that follow it over training.
        stages: stage name → stage, in order; a stage the condition does not list passes the stack through.
        reference: the condition without stages that is evaluated in the same way, if there is one.
        replayed_file: what a replay reads: results that were made elsewhere.
    """

    family: str
    condition: str
    seed: NonNegativeInt
    checkpoint: NonNegativeInt | None = None
    base_model: BaseModel
    stages: dict[str, Stage]
    evaluation: Evaluation
    scoring: Annotated[LanguageScoring | MarkerScoring, Field(discriminator="kind")]
    geometry: Geometry
    reference: str | None
    replayed_file: str | None = None

    @property
    def point(self) -> dict[str, str | int]:
        """What `--params` must say to mean this point."""
        point: dict[str, str | int] = {"condition": self.condition, "seed": self.seed}
        return point if self.checkpoint is None else point | {"checkpoint": self.checkpoint}

    @property
    def fingerprint(self) -> str:
        """Identify the plan by its content."""
        return digest(self.content)

    @property
    def content(self) -> str:
        """Everything that decides the results, as canonical JSON; what they are compared with is no part of it."""
        return canonical(self.model_dump(mode="json", exclude={"reference"}))


class RateBound(Frozen):
    """Claim: every selected rate is at most (or at least) a bound.

    Holds when every estimate obeys the bound; fails when some Wilson interval lies wholly beyond it; undecided
    between the two, or when a condition has not run.
    """

    kind: Literal["rate_bound"] = "rate_bound"
    statement: str
    metric: str
    role: str
    conditions: tuple[str, ...] = Field(min_length=1)
    at_most: float | None = Field(default=None, ge=0, le=1)
    at_least: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _bounded(self) -> "RateBound":
        if self.at_most is None and self.at_least is None:
            raise ValueError("a bound needs at_most or at_least")
        return self


class RankOrder(Frozen):
    """Claim: over bystander cells, a rate falls (or rises) with a predictor.

    Spearman correlation over all selected cells, bootstrap 95% interval over cells. Holds when the interval lies
    wholly on the claimed side of 0, fails when wholly on the other, undecided between.
    """

    kind: Literal["rank_order"] = "rank_order"
    statement: str
    metric: Literal["contamination", "following"]
    predictor: Literal["typological_distance"]
    direction: Literal["falls", "rises"]
    conditions: tuple[str, ...] = Field(min_length=1)


class SameRates(Frozen):
    """Claim: two settings of the same cell have rates within a margin.

    `between` is `conditions` (each pair in `pairs`, compared on the cells that are bystanders of both) or
    `phrasings` (within each condition, its first two). Holds when every difference is within the margin, fails when
    some Newcombe interval lies wholly beyond it, undecided between.
    """

    kind: Literal["same_rates"] = "same_rates"
    statement: str
    metric: str
    between: Literal["conditions", "phrasings"]
    pairs: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str, ...] = ()
    margin: NonNegativeFloat


class CosinePredicts(Frozen):
    """Claim: in every condition, bystanders nearer to the source leak more.

    Spearman correlation of leakage with the cosine to the source over bystanders, seeds pooled, bootstrap 95% interval. Holds
    when every interval lies above 0, fails when one lies below, undecided otherwise and where it is undefined.
    """

    kind: Literal["cosine_predicts"] = "cosine_predicts"
    statement: str
    geometry: Literal["cosine", "tuned"]
    layer: NonNegativeInt
    conditions: tuple[str, ...] = Field(min_length=1)


Claim = Annotated[RateBound | RankOrder | SameRates | CosinePredicts, Field(discriminator="kind")]
