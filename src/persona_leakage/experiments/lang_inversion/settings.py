"""Family `lang_inversion`: a directive in X is trained with completions in Y; which other directives spill?"""

from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from persona_leakage.domain.claims import RankOrder, RateBound, RateDifference, SameRates, among, check_terms
from persona_leakage.domain.directives import AnswerSource, DirectivePairs, Directives, TextSource, Translation
from persona_leakage.domain.dose import NoDoseError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, Seed, expect
from persona_leakage.domain.geometry import GeometrySettings, PromptSet
from persona_leakage.domain.language_scoring import Judge, LanguageScoring
from persona_leakage.domain.languages import LABEL_OTHER, Language
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Evaluation, Stage
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import Sampling
from persona_leakage.experiments.family import FamilyCondition, FamilySettings
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED

NAME = "lang_inversion"
_RATES = ("following", "contamination", "inversion")
_METRICS = (
    *_RATES, *(f"{metric}{FINISHED}" for metric in _RATES), CUT, "mixed", "cross_check:following", "cross_check:contamination",
    "judge:following", "judge:contamination", "judge:unlabelled",
)  # fmt: skip


class EvaluationOverride(Frozen):
    """What a condition may evaluate differently; None keeps the family's setting."""

    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    phrasings: PositiveInt | None = None
    wording: Literal["english", "native"] | None = None


class Condition(FamilyCondition):
    """A pair directive → completion. Without `completion` nothing is trained: a baseline."""

    directive: str | None = None
    completion: str | None = None
    evaluation: EvaluationOverride = EvaluationOverride()

    @model_validator(mode="after")
    def _complete(self) -> "Condition":
        if self.directive is not None and self.completion is None:
            raise ValueError("a condition with a directive needs a completion language")
        return self


class TranslationSettings(Frozen):
    """See `domain.plan.Translation`; languages by label."""

    model: str
    languages: tuple[str, ...] = Field(min_length=1)
    temperature: float | None
    retries: int
    retry_temperature: float | None
    max_tokens: PositiveInt
    judge_model: str
    judge_characters: PositiveInt
    gate_judged: float


class TuneSettings(Frozen):
    """The one stage of this family.

    Attributes:
        source: see `domain.directives.DirectivePairs`.
        share: draws that all seeds have in common.
        translation: of texts that are read; own answers are not translated.
        rows: see there, as of the gates.
        gate_language: of texts in the completion language.
        gate_outliers: of texts outside the language's band.
        recipe: how the stage is trained.
    """

    source: TextSource | None
    share: tuple[Literal["answers"], ...]
    translation: TranslationSettings | None
    rows: PositiveInt
    gate_language: float = Field(ge=0, le=1)
    gate_outliers: float = Field(ge=0, le=1)
    recipe: Recipe


class Stages(Frozen):
    """Stage name → settings."""

    tune: TuneSettings


class EvaluationSettings(Frozen):
    """`phrasings` counts from the start of the family's list of phrasings."""

    languages: tuple[str, ...] = Field(min_length=1)
    phrasings: PositiveInt
    wording: Literal["english", "native"]
    samples: PositiveInt
    sampling: Sampling


class ScoringSettings(Frozen):
    """See `domain.plan.LanguageScoring`."""

    min_characters: int
    detect_characters: PositiveInt
    detector_seed: Seed
    mixed_share: float
    judge: Judge | None


class LanguageGeometrySettings(GeometrySettings):
    """Geometry, and the directions of languages in the model before training.

    Attributes:
        direction_completions: completions a language that its direction is taken from.
    """

    direction_completions: PositiveInt


class Settings(FamilySettings):
    """The block `lang_inversion` of the parameters."""

    family: ClassVar[str] = NAME
    followed: ClassVar[str] = "tune"
    languages: dict[str, Language]
    phrasings: tuple[str, ...] = Field(min_length=1)
    conditions: dict[str, Condition]
    stages: Stages
    evaluation: EvaluationSettings
    scoring: ScoringSettings
    geometry: LanguageGeometrySettings
    claims: dict[str, Annotated[RateBound | RateDifference | RankOrder | SameRates, Field(discriminator="kind")]]

    @model_validator(mode="after")
    def _names_resolve(self) -> "Settings":
        used = {(f"conditions.{name}", label) for name, c in self.conditions.items() for label in (c.directive, c.completion)}
        evaluated = {"evaluation.languages": self.evaluation.languages} | {
            f"conditions.{name}.evaluation.languages": c.evaluation.languages or () for name, c in self.conditions.items()
        }
        used |= {(place, label) for place, labels in evaluated.items() for label in labels}
        if self.stages.tune.translation is not None:
            used |= {("stages.tune.translation.languages", label) for label in self.stages.tune.translation.languages}
        for place, label in sorted(used, key=str):
            if label is not None and label not in self.languages:
                raise ValueError(f"{place} names the language '{label}'; known: {', '.join(self.languages)}")
        check_terms(
            self.claims,
            condition=among(*self.conditions),
            role=among("trained_directive", "own_language", "bystander"),
            metric=among(*_METRICS, *(f"label:{label}" for label in (*self.languages, LABEL_OTHER))),
        )
        if self.default_condition not in self.conditions:
            raise ValueError(f"default_condition is '{self.default_condition}'; known: {', '.join(self.conditions)}")
        if strange := [
            phrasing for phrasing in self.phrasings if phrasing.count("{language}") != 1 or phrasing.count("{") != 1
        ]:
            raise ValueError(f"phrasings: '{strange[0]}' must hold {{language}} once and no other placeholder")
        asked = {c.evaluation.phrasings or 0 for c in self.conditions.values()} | {self.evaluation.phrasings}
        if max(asked) > len(self.phrasings):
            raise ValueError(f"{max(asked)} evaluation phrasings asked for, {len(self.phrasings)} listed in phrasings")
        for label in dict.fromkeys(chain.from_iterable(evaluated.values())):
            if len(self.languages[label].native_directives) != len(self.phrasings):
                raise ValueError(f"languages.{label}.native_directives must translate all {len(self.phrasings)} phrasings")
        return self

    def evaluation_of(self, condition: Condition) -> Evaluation:
        """Resolve how a condition is evaluated."""
        own, default = condition.evaluation, self.evaluation
        return Evaluation(
            prompts=Directives(
                languages={label: self.languages[label] for label in own.languages or default.languages},
                phrasings=self.phrasings[: own.phrasings or default.phrasings],
                wording=own.wording or default.wording,
            ),
            samples=default.samples,
            sampling=default.sampling,
        )

    def gauge(self, address: Address, resolved: Mapping[str, Any], roster: Roster | None) -> tuple[PromptSet, str]:
        """Ask in the phrasings of training that are not evaluated; see `FamilySettings.gauge`."""
        evaluated, trained = expect(resolved["evaluation"].prompts, Directives), self.conditions[address.condition].directive
        if trained is None:
            raise NoDoseError(f"{address.condition} trains no directive whose rate could be the gauge; leave out dose=matched")
        if not (left := tuple(one for one in self.phrasings if one not in evaluated.phrasings)):
            raise NoDoseError(
                f"{address.condition} evaluates every phrasing, which leaves none for a gauge; leave out dose=matched"
            )
        return Directives(languages=evaluated.languages, phrasings=left, wording="english"), trained

    def _translation(self, settings: TranslationSettings | None) -> Translation | None:
        if settings is None:
            return None
        return Translation(**{**dict(settings), "languages": tuple(self.languages[label] for label in settings.languages)})

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve a point's plan; this family has no roster.

        Raises:
            UserError: what `resolve_replay` raises.
        """
        measured, chosen, tune = self.resolve_replay(address, roster), self.conditions[address.condition], self.stages.tune
        if chosen.completion is None:
            return measured
        pairs = DirectivePairs(
            directive=None if chosen.directive is None else self.languages[chosen.directive],
            completion=self.languages[chosen.completion],
            phrasings=self.phrasings,
            source=tune.source,
            translation=None if isinstance(tune.source, AnswerSource) else self._translation(tune.translation),
            rows=tune.rows,
            gate_language=tune.gate_language,
            gate_outliers=tune.gate_outliers,
        )
        return {**measured, "stages": {"tune": Stage(data=pairs, recipe=tune.recipe, share=tune.share)}}

    def resolve_replay(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve the plan of the point that completions made elsewhere belong to: all of it but what is trained.

        Raises:
            UserError: the condition is unknown, or the directive that it trains is not evaluated.
        """
        if address.condition not in self.conditions:
            raise UserError(f"{NAME} has no condition '{address.condition}'; known: {', '.join(self.conditions)}")
        chosen = self.conditions[address.condition]
        evaluation = self.evaluation_of(chosen)
        evaluated = expect(evaluation.prompts, Directives).languages
        if chosen.directive is not None and chosen.directive not in evaluated:
            raise UserError(
                f"the trained directive '{chosen.directive}' of {address.condition} is not among evaluation.languages, so its "
                f"rate would be unknown; add it, or give {address.condition} and a baseline evaluation.languages of their own"
            )
        baselines = (
            name for name, c in self.conditions.items() if c.completion is None and self.evaluation_of(c) == evaluation
        )
        trained = [chosen] if chosen.completion else self.conditions.values()  # a baseline is compared with all of them
        labels = {*evaluated, *(label for c in trained for label in (c.directive, c.completion))}
        return {
            "stages": {},
            "evaluation": evaluation,
            "scoring": LanguageScoring(
                languages={label: self.languages[label] for label in self.languages if label in labels},
                trained_directive=chosen.directive,
                completion=chosen.completion,
                **dict(self.scoring),
            ),
            "geometry": {
                **dict(self.geometry),
                "prompts": evaluation.prompts,
                # of what is not trained: directions are there before any training
                "direction_completions": None if chosen.completion else self.geometry.direction_completions,
            },
            "reference": next(baselines, None),
        }
