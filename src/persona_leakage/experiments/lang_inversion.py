"""Family `lang_inversion`: a directive in X is trained with completions in Y; which other directives spill?"""

import math
from typing import Literal

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline
from pydantic import Field, PositiveInt, model_validator

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.languages import Language, typological_distance
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import (
    ChatSource,
    Claim,
    DirectivePairs,
    Directives,
    Evaluation,
    GeometrySettings,
    Judge,
    LanguageScoring,
    Plan,
    Stage,
    Translation,
)
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import Sampling
from persona_leakage.experiments.composition import placed, refuse_checkpoint
from persona_leakage.experiments.points import Tables, conditions_in_order, gather, unannotated
from persona_leakage.pipelines import data_generation, fine_tuning, generation, geometry, reporting, scoring
from persona_leakage.pipelines.fine_tuning.nodes import start_stack
from persona_leakage.pipelines.generation.nodes import adopt_completions
from persona_leakage.pipelines.geometry.nodes import COSINE_COLUMNS

NAME, REPLAY = "lang_inversion", "lang_inversion_replay"
SOURCES: tuple[str, ...] = ()
REPLAYED = "completions_file"


class EvaluationOverride(Frozen):
    """What a condition may evaluate differently; None keeps the family's setting."""

    phrasings: PositiveInt | None = None
    wording: Literal["english", "native"] | None = None


class Condition(Frozen):
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
    """The one stage of this family."""

    source: ChatSource | None
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
    detector_seed: int
    mixed_share: float
    judge: Judge | None


class Settings(Frozen):
    """The block `lang_inversion` of the parameters."""

    languages: dict[str, Language]
    phrasings: tuple[str, ...] = Field(min_length=1)
    conditions: dict[str, Condition]
    stages: Stages
    evaluation: EvaluationSettings
    scoring: ScoringSettings
    geometry: GeometrySettings
    claims: dict[str, Claim]

    @model_validator(mode="after")
    def _names_resolve(self) -> "Settings":
        used = {(f"conditions.{name}", label) for name, c in self.conditions.items() for label in (c.directive, c.completion)}
        used |= {("evaluation.languages", label) for label in self.evaluation.languages}
        if self.stages.tune.translation is not None:
            used |= {("stages.tune.translation.languages", label) for label in self.stages.tune.translation.languages}
        for place, label in sorted(used, key=str):
            if label is not None and label not in self.languages:
                raise ValueError(f"{place} names the language '{label}'; known: {', '.join(self.languages)}")
        for name, claim in self.claims.items():
            named = [*claim.conditions, *(one for pair in getattr(claim, "pairs", ()) for one in pair)]
            if unknown := [one for one in named if one not in self.conditions]:
                raise ValueError(f"claims.{name} names the condition '{unknown[0]}'; known: {', '.join(self.conditions)}")
        if strange := [
            phrasing for phrasing in self.phrasings if phrasing.count("{language}") != 1 or phrasing.count("{") != 1
        ]:
            raise ValueError(f"phrasings: '{strange[0]}' must hold {{language}} once and no other placeholder")
        asked = {c.evaluation.phrasings or 0 for c in self.conditions.values()} | {self.evaluation.phrasings}
        if max(asked) > len(self.phrasings):
            raise ValueError(f"{max(asked)} evaluation phrasings asked for, {len(self.phrasings)} listed in phrasings")
        for label in self.evaluation.languages:
            if len(self.languages[label].native_directives) != len(self.phrasings):
                raise ValueError(f"languages.{label}.native_directives must translate all {len(self.phrasings)} phrasings")
        return self

    def evaluation_of(self, condition: Condition) -> Evaluation:
        """Resolve how a condition is evaluated."""
        own, default = condition.evaluation, self.evaluation
        return Evaluation(
            prompts=Directives(
                languages={label: self.languages[label] for label in default.languages},
                phrasings=self.phrasings[: own.phrasings or default.phrasings],
                wording=own.wording or default.wording,
            ),
            samples=default.samples,
            sampling=default.sampling,
        )

    def _translation(self, settings: TranslationSettings | None) -> Translation | None:
        if settings is None:
            return None
        return Translation(**{**dict(settings), "languages": tuple(self.languages[label] for label in settings.languages)})

    def plan(self, condition: str, seed: int, base_model: BaseModel, replayed_file: str | None = None) -> Plan:
        """Resolve one point; with a file of completions made elsewhere, a replay that trains nothing.

        Raises:
            UserError: the condition is unknown.
        """
        if condition not in self.conditions:
            raise UserError(f"{NAME} has no condition '{condition}'; known: {', '.join(self.conditions)}")
        chosen = self.conditions[condition]
        evaluation = self.evaluation_of(chosen)
        baselines = [
            name for name, c in self.conditions.items() if c.completion is None and self.evaluation_of(c) == evaluation
        ]
        trained = [chosen] if chosen.completion else self.conditions.values()  # a baseline is compared with all of them
        labels = {*self.evaluation.languages, *(label for c in trained for label in (c.directive, c.completion))}
        stages = {}
        if chosen.completion is not None and replayed_file is None:
            tune = self.stages.tune
            pairs = DirectivePairs(
                directive=None if chosen.directive is None else self.languages[chosen.directive],
                completion=self.languages[chosen.completion],
                phrasings=self.phrasings,
                source=tune.source,
                translation=self._translation(tune.translation),
                rows=tune.rows,
                gate_language=tune.gate_language,
                gate_outliers=tune.gate_outliers,
            )
            stages["tune"] = Stage(data=pairs, recipe=tune.recipe)
        return Plan.checked(
            {
                "family": NAME if replayed_file is None else REPLAY,
                "condition": condition,
                "seed": seed,
                "base_model": base_model,
                "stages": stages,
                "evaluation": evaluation,
                "scoring": LanguageScoring(
                    languages={label: self.languages[label] for label in self.languages if label in labels},
                    trained_directive=chosen.directive,
                    completion=chosen.completion,
                    **dict(self.scoring),
                ),
                "geometry": {**dict(self.geometry), "prompts": evaluation.prompts},
                "reference": baselines[0] if baselines else None,
                "replayed_file": replayed_file,
            },
            "point",
        )


def plan_point(condition: str, seed: int, checkpoint: int | None, base_model: BaseModel, family: Settings) -> Plan:
    """Resolve the point that this run computes."""
    refuse_checkpoint(checkpoint, NAME)
    return family.plan(condition, seed, base_model)


def gather_points(
    cell_rates: Tables, cosines: Tables, base_model: BaseModel, family: Settings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the rates and the cosines of all points together; see `experiments.points.gather`."""

    def plan_of(condition: str, seed: int) -> Plan:
        return family.plan(condition, seed, base_model)

    rates, geometry_rows = gather(cell_rates, plan_of, annotated), gather(cosines, plan_of, unannotated)
    return conditions_in_order(rates, family.conditions), conditions_in_order(geometry_rows, family.conditions)


def plan_replay(
    condition: str, seed: int, checkpoint: int | None, base_model: BaseModel, family: Settings, replayed_file: str | None
) -> Plan:
    """Resolve the point that completions made elsewhere belong to.

    Raises:
        UserError: no file is given.
    """
    refuse_checkpoint(checkpoint, REPLAY)
    if replayed_file is None:
        raise UserError("a replay needs the completions: --params condition=…,completions_file=PATH")
    return family.plan(condition, seed, base_model, replayed_file)


def gather_replays(cell_rates: Tables, base_model: BaseModel, family: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the rates of all replayed points together; there are no activations, so the cosines are an empty table.

    A replay is stale only when its condition is no longer known: nothing else of the parameters made its completions.
    """

    def plan_of(condition: str, seed: int) -> Plan:
        return family.plan(condition, seed, base_model, "elsewhere")

    gathered = gather(cell_rates, plan_of, annotated)
    known = gathered["condition"].isin(list(family.conditions))
    rates = conditions_in_order(gathered.assign(stale=~known), family.conditions)
    return rates, pd.DataFrame(columns=["condition", "seed", "plan", *COSINE_COLUMNS, "reference", "stale"])


def annotated(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
    """Add completion (label of the completion language, if any) and distance (typological, directive language to it)."""
    scoring = expect(now.scoring, LanguageScoring) if now else None
    own = scoring.languages.get(scoring.completion or "") if scoring else None
    languages = scoring.languages if scoring else {}
    names = table["directive_language"]
    distance = [typological_distance(languages[name], own) if own else math.nan for name in names]
    return table.assign(completion=scoring.completion if scoring else None, distance=distance)


def create_pipeline() -> Pipeline:
    """Compose plan → tune → generation → scoring, geometry → reporting."""
    tune = pipeline(
        data_generation.create_directives_pipeline("tune") + fine_tuning.create_pipeline("tune"),
        namespace="tune",
        inputs={"plan", "base_stack", "source_texts", "skip_list", "trainer", "language_model"},
        outputs={"stack"},
    )
    start = pipeline(
        [
            node(
                plan_point,
                ["params:condition", "params:seed", "params:checkpoint", "params:base_model", "params:settings"],
                "plan",
                name="plan_point",
            ),
            node(start_stack, "plan", "base_stack", name="start_stack"),
        ],
        tags="data_generation",
    )
    gathering = pipeline(
        [
            node(
                gather_points,
                ["cell_rates@grid", "cosines@grid", "params:base_model", "params:settings"],
                ["rates", "similarities"],
                name="gather_points",
            )
        ],
        tags="reporting",
    )
    return placed(
        start
        + tune
        + generation.create_pipeline()
        + scoring.create_language_pipeline()
        + geometry.create_pipeline()
        + gathering
        + reporting.create_spill_pipeline(),
        NAME,
        NAME,
    )


def create_replay_pipeline() -> Pipeline:
    """Compose plan, completions made elsewhere → scoring → reporting."""
    adopting = pipeline(
        [
            node(
                plan_replay,
                [
                    "params:condition",
                    "params:seed",
                    "params:checkpoint",
                    "params:base_model",
                    "params:settings",
                    "params:replayed_file",
                ],
                "plan",
                name="plan_replay",
            ),
            node(adopt_completions, ["outside_completions", "plan"], "completions", name="adopt_completions"),
        ],
        tags="generation",
    )
    gathering = pipeline(
        [
            node(
                gather_replays,
                ["cell_rates@grid", "params:base_model", "params:settings"],
                ["rates", "similarities"],
                name="gather_replays",
            )
        ],
        tags="reporting",
    )
    return placed(adopting + scoring.create_language_pipeline() + gathering + reporting.create_spill_pipeline(), NAME, REPLAY)
