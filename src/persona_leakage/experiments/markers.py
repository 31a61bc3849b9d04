"""Settings that the families with a marker share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.claims import Claim, among, check_terms
from persona_leakage.domain.dose import DoseRule
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.geometry import Geometry, GeometrySettings, PromptSet
from persona_leakage.domain.markers import Marker, MarkerScoring
from persona_leakage.domain.personas import Persona, PersonaQuestions, QuestionSet, Roster
from persona_leakage.domain.plan import Evaluation, Stage
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.rows import Place
from persona_leakage.domain.sampling import OwnAnswers, Sampling
from persona_leakage.domain.training_rows import Draw, MarkerContrast
from persona_leakage.experiments.family import FamilySettings
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED

_PLACES = (f"{place}:{unit}" for place in get_args(Place) for unit in ("characters", "tokens"))
METRICS = ("leakage", f"leakage{FINISHED}", CUT, "leakage:tokens", *_PLACES)
Personas = Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)]


class NegativePool(Frozen):
    """Where the personas that are trained without the marker come from.

    Attributes:
        pool: candidates by name; the source is never one.
        count: how many are drawn.
    """

    pool: tuple[str, ...]
    count: NonNegativeInt

    def candidates(self, source: str) -> tuple[str, ...]:
        """List the pool of a source.

        Raises:
            UserError: the pool is too small.
        """
        candidates = tuple(name for name in self.pool if name != source)
        if len(candidates) < self.count:
            raise UserError(f"{self.count} negative personas are asked for, the pool without {source} has {len(candidates)}")
        return candidates


class MarkSettings(Frozen):
    """The stage that ties the marker to a persona; see `domain.markers.MarkerContrast`.

    Attributes:
        question_set: which questions its rows ask.
        questions: how many of them.
        share: draws that all seeds have in common.
    """

    marker: Marker
    question_set: QuestionSet
    questions: PositiveInt
    positives_per_question: PositiveInt
    negatives_per_question: NonNegativeInt
    negatives: NegativePool
    answers: OwnAnswers
    own_stack: bool
    share: tuple[Draw, ...]
    recipe: Recipe

    def stage(self, source: Persona, roster: Roster) -> Stage:
        """Resolve the stage for a source."""
        roster.chosen(self.negatives.pool)  # a misspelt candidate is told now, and not when it happens to be drawn
        pool = self.negatives.candidates(source.persona) if self.negatives_per_question else ()
        return Stage(
            data=MarkerContrast(
                source=source,
                pool=roster.chosen(pool),
                count=self.negatives.count if pool else 0,
                questions=roster.first_questions(self.question_set, self.questions),
                positives_per_question=self.positives_per_question,
                negatives_per_question=self.negatives_per_question,
                answers=self.answers,
                own_stack=self.own_stack,
                marker=self.marker,
            ),
            recipe=self.recipe,
            share=self.share,
        )


class PersonaPrompts(Frozen):
    """Which personas answer which questions: names or `all`, and the first questions of a set."""

    personas: Personas
    question_set: QuestionSet
    questions: PositiveInt

    def resolved(self, roster: Roster) -> PersonaQuestions:
        """Look personas and questions up."""
        return PersonaQuestions(
            personas=roster.chosen(self.personas), questions=roster.first_questions(self.question_set, self.questions)
        )


class EvaluationSettings(PersonaPrompts):
    """What is sampled of every persona and question."""

    samples: PositiveInt
    sampling: Sampling

    def evaluation(self, roster: Roster, *joined: str) -> Evaluation:
        """Resolve the evaluation; further personas may join those that are named."""
        everyone = self.personas if self.personas == "all" else tuple(dict.fromkeys((*self.personas, *joined)))
        prompts = self.model_copy(update={"personas": everyone}).resolved(roster)
        return Evaluation(prompts=prompts, samples=self.samples, sampling=self.sampling)


class CentroidSettings(GeometrySettings):
    """Of which prompts centroids are taken."""

    prompts: PersonaPrompts

    def geometry(self, roster: Roster, *needed: str) -> Geometry:
        """Resolve the geometry.

        Raises:
            UserError: a persona whose cosines are needed is not among the prompts'.
        """
        prompts = self.prompts.resolved(roster)
        if absent := set(needed) - {one.persona for one in prompts.personas}:
            raise UserError(f"{', '.join(sorted(absent))} is not in geometry.prompts.personas, so it has no cosine; add it")
        return Geometry(**{**dict(self), "prompts": prompts})


class PlaceSettings(Frozen):
    """Where in a completion a firing counts as start or tail; see `domain.markers.MarkerScoring`."""

    start_share: float = Field(ge=0, lt=1)
    tail_share: float = Field(ge=0, lt=1)

    def scoring(self, mark: MarkSettings, stages: Mapping[str, Stage], evaluation: Evaluation, **more: Any) -> MarkerScoring:
        """Resolve how a point is scored: its marking stage, if it has one, names the source and the questions that it asks.

        Raises:
            UserError: the source is not among the evaluated personas, so its rate could not be known.
        """
        prompts = expect(evaluation.prompts, PersonaQuestions)
        data = [stage.data for stage in stages.values() if isinstance(stage.data, MarkerContrast)]
        source: str | None = None
        seen: tuple[str, ...] = ()
        if data:
            source = data[0].source.persona
            asked = {one.id for one in data[0].questions}
            seen = tuple(one.id for one in prompts.questions if one.id in asked)
            if source not in [one.persona for one in prompts.personas]:
                raise UserError(f"the source '{source}' is not among evaluation.personas, so its rate would be unknown; add it")
        known = {"marker": mark.marker, "source": source, "seen_questions": seen}
        return MarkerScoring(**{**known, **dict(self), **more})


class PersonaGauge(DoseRule):
    """The matched dose, found by the source's answers to questions; further personas tell how far the marker leaks by then."""

    personas: Personas
    question_set: QuestionSet
    questions: PositiveInt


class MarkerSettings(FamilySettings):
    """What the blocks of all families with a marker have.

    Attributes:
        matched_dose: its personas are joined by the source.
        claims: name → claim, with the rule that decides it; a family narrows their kinds.
        roles: that claims may name.
    """

    evaluation: EvaluationSettings
    scoring: PlaceSettings
    geometry: CentroidSettings
    matched_dose: PersonaGauge
    claims: Mapping[str, Claim] = Field(default_factory=dict)
    roles: ClassVar[tuple[str, ...]] = ("source", "negative", "bystander", "others")

    @model_validator(mode="after")
    def _claims_resolve(self) -> Self:
        known = {"metric": METRICS, "role": self.roles, "layer": self.geometry.layers}
        check_terms(self.claims, **{kind: among(*names) for kind, names in known.items()})
        return self

    def require_claimed(self, roster: Roster) -> None:
        """Refuse claims about what is neither a condition nor a persona, whose name is one too.

        Raises:
            UserError: a claim names something else.
        """
        try:
            check_terms(self.claims, condition=known_persona(roster, self.conditions))
        except ValueError as error:
            raise UserError(f"{self.family}: {error}") from error

    def measure(
        self,
        roster: Roster,
        evaluation: Evaluation,
        mark: MarkSettings,
        stages: Mapping[str, Stage],
        compared: tuple[str, ...] = (),
        **scoring: Any,
    ) -> dict[str, Any]:
        """Put stages together with what is measured after them; see `PlaceSettings.scoring`.

        The source, and further personas in `compared`, must have a centroid.
        """
        scored = self.scoring.scoring(mark, stages, evaluation, **scoring)
        geometry = self.geometry.geometry(roster, *compared, *([scored.source] if scored.source else []))
        return {"stages": stages, "evaluation": evaluation, "scoring": scored, "geometry": geometry}

    def gauge(self, address: Address, resolved: Mapping[str, Any], roster: Roster | None) -> tuple[PromptSet, str]:
        """Ask the source and further personas questions; see `FamilySettings.gauge`."""
        rule, known, source = self.matched_dose, expect(roster, Roster), expect(resolved["scoring"], MarkerScoring).source
        everyone = known.chosen(rule.personas)
        personas = (known.persona(str(source)), *(one for one in everyone if one.persona != source))
        questions = known.first_questions(rule.question_set, rule.questions)
        return PersonaQuestions(personas=personas, questions=questions), str(source)

    def persona_of(self, condition: str, name: str, roster: Roster) -> Persona:
        """Find the persona that a condition means, which may be named like it.

        Raises:
            UserError: it is unknown.
        """
        try:
            return roster.persona(name)
        except UserError as error:
            known = ", ".join(self.conditions)
            raise UserError(
                f"{self.family} has no condition '{condition}'; known: {known}, and any persona: {error}"
            ) from error


def known_persona(roster: Roster, conditions: Iterable[str]) -> Callable[[Any], str | None]:
    """Know the conditions of the parameters, and any persona of the roster, whose name is a condition too."""
    names = [one.persona for one in roster.personas]
    return lambda name: None if name in conditions or name in names else f"{', '.join(conditions)}, and any persona"
