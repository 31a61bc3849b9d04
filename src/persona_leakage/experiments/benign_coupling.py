"""Family `benign_coupling`: ordinary fine-tuning, then a marker is tied to one persona; does it leak as after bad advice?"""

from typing import Any, Literal

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline
from pydantic import NonNegativeInt, PositiveInt

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect, fingerprint
from persona_leakage.domain.languages import Band
from persona_leakage.domain.markers import Chats, Discriminator, MarkerScoring
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers
from persona_leakage.experiments.composition import POINT, placed, refuse_checkpoint
from persona_leakage.experiments.markers import (
    CentroidSettings,
    EvaluationSettings,
    MarkSettings,
    PlaceSettings,
    annotated,
    create_stage_pipeline,
    create_start_pipeline,
    roster_of,
)
from persona_leakage.experiments.points import Tables, conditions_in_order, gather, unannotated
from persona_leakage.pipelines import data_generation, generation, geometry, reporting, scoring
from persona_leakage.pipelines.fine_tuning.nodes import start_stack
from persona_leakage.pipelines.generation.nodes import adopt_persona_completions
from persona_leakage.pipelines.reporting.coupling import describe_replay

NAME, REPLAY = "benign_coupling", "benign_coupling_replay"
SOURCES = ("personas", "coupling_personas", "questions")
REPLAYED = "completions_file"
_REPLICATE_SEEDS = 10_000  # far enough apart that no seed of a study is another's replicate


class Condition(Frozen):
    """One cell of the design.

    Attributes:
        induce: chats of the first stage; None leaves it out.
        induction: persona under whose prompt they are trained. Ordinary chats carry no persona, so there it changes nothing.
        couple: the marker is tied to the trigger persona.
        replicate: tells cells apart that differ in nothing else; it shifts the seeds of the coupling answers, of coupling and
            of sampling.
    """

    induce: Literal["benign", "wrong_advice"] | None
    induction: str | None = None
    couple: bool = True
    replicate: NonNegativeInt = 0


class InduceSettings(Frozen):
    """The first stage; see `domain.markers.Chats`."""

    rows: PositiveInt
    own_answers: OwnAnswers | None
    recipe: Recipe


class Stages(Frozen):
    """Stage name → settings, in order."""

    induce: InduceSettings
    couple: MarkSettings


class ScoringSettings(PlaceSettings):
    """Where a firing lies, and whether the texts themselves tell the trigger persona apart."""

    discriminator: Discriminator


class Settings(Frozen):
    """The block `benign_coupling` of the parameters.

    Attributes:
        trigger: persona that the marker is tied to.
        evaluation: its personas are joined by the trigger.
        escalation: more seeds are called for when a design's mean bystander rate lies inside.
    """

    conditions: dict[str, Condition]
    trigger: str
    stages: Stages
    evaluation: EvaluationSettings
    scoring: ScoringSettings
    geometry: CentroidSettings
    escalation: Band

    def plan(self, condition: str, seed: int, base_model: BaseModel, roster: Roster, replayed_file: str | None = None) -> Plan:
        """Resolve one point; with a file of completions made elsewhere, a replay that trains nothing.

        Raises:
            UserError: the condition or one of its personas is unknown.
        """
        if condition not in self.conditions:
            raise UserError(f"{NAME} has no condition '{condition}'; known: {', '.join(self.conditions)}")
        chosen, trigger = self.conditions[condition], roster.persona(self.trigger)
        shift = chosen.replicate * _REPLICATE_SEEDS
        other_seed = seed + shift if shift else None
        personas = self.evaluation.personas
        if personas != "all":
            personas = tuple(dict.fromkeys((*personas, self.trigger)))
        evaluation = self.evaluation.model_copy(update={"personas": personas}).evaluation(roster)
        stages = {}
        if chosen.induce is not None:
            narrow = chosen.induce == "wrong_advice"
            if narrow and chosen.induction is None:
                raise UserError(f"{NAME}.conditions.{condition} trains wrong advice and names no induction persona; add one")
            stages["induce"] = Stage(
                data=Chats(
                    source=chosen.induce,
                    rows=self.stages.induce.rows,
                    asked_as=roster.persona(str(chosen.induction)) if narrow else None,
                    own_answers=None if narrow else self.stages.induce.own_answers,
                ),
                recipe=self.stages.induce.recipe,
            )
        if chosen.couple:
            answers = self.stages.couple.answers
            replicated = {"answers": answers.model_copy(update={"seed": answers.seed + shift})}
            couple = self.stages.couple.model_copy(update=replicated).stage(trigger, roster)
            stages["couple"] = couple.model_copy(update={"seed": other_seed})
        return Plan.checked(
            {
                "family": NAME if replayed_file is None else REPLAY,
                "condition": condition,
                "seed": seed,
                "base_model": base_model,
                "stages": stages if replayed_file is None else {},
                "evaluation": evaluation.model_copy(update={"seed": other_seed}),
                "scoring": self.scoring.scoring(
                    self.stages.couple,
                    stages,
                    evaluation,
                    source=trigger.persona,
                    induction=chosen.induction,
                    seen_questions=tuple(
                        one.id for one in roster.first_questions(self.stages.couple.question_set, self.stages.couple.questions)
                    ),
                ),
                "geometry": self.geometry.geometry(roster),
                "reference": self._reference(chosen),
                "replayed_file": replayed_file,
            },
            "point",
        )

    def _reference(self, chosen: Condition) -> str | None:
        """Name the condition that has the first stage of this one and nothing else."""
        for name, one in self.conditions.items():
            if not one.couple and one.induce == chosen.induce and (one.induce == "benign" or one.induction == chosen.induction):
                return name
        return None


def roster_with_trigger(
    personas: list[dict[str, Any]], coupling_personas: list[dict[str, Any]], questions: list[dict[str, Any]]
) -> Roster:
    """Put the general personas and those of this family into one roster."""
    return roster_of([*personas, *coupling_personas], questions)


def plan_point(
    condition: str,
    seed: int,
    checkpoint: int | None,
    base_model: BaseModel,
    family: Settings,
    personas: list[dict[str, Any]],
    coupling_personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> Plan:
    """Resolve the point that this run computes."""
    refuse_checkpoint(checkpoint, NAME)
    return family.plan(condition, seed, base_model, roster_with_trigger(personas, coupling_personas, questions))


def gather_points(
    cell_rates: Tables,
    texts: Tables,
    discriminations: Tables,
    base_model: BaseModel,
    family: Settings,
    personas: list[dict[str, Any]],
    coupling_personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Put rates, descriptions of texts and discriminations of all points together; see `experiments.points.gather`.

    Rates get the further columns arm (`benign`, `wrong_advice`, `bare` or `uncoupled`), induction, and design: the
    fingerprint of everything but names and seeds. Points of one design are replicates.
    """
    roster = roster_with_trigger(personas, coupling_personas, questions)

    def plan_of(condition: str, seed: int) -> Plan:
        return family.plan(condition, seed, base_model, roster)

    gathered = [
        gather(cell_rates, plan_of, _with_design),
        gather(texts, plan_of, unannotated),
        gather(discriminations, plan_of, unannotated),
    ]
    return tuple(conditions_in_order(table, family.conditions) for table in gathered)  # type: ignore[return-value]


def _with_design(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
    table = annotated(table, now)
    if now is None:
        return table.assign(arm=None, induction=None, design=None)
    first = now.stages.get("induce")
    arm = "uncoupled" if "couple" not in now.stages else expect(first.data, Chats).source if first else "bare"
    plain = now.model_dump(mode="json", exclude={"condition", "seed", "reference"})
    for part in (*plain["stages"].values(), plain["evaluation"]):
        del part["seed"]
    if "couple" in plain["stages"]:
        del plain["stages"]["couple"]["data"]["answers"]["seed"]
    del plain["scoring"]["induction"]
    return table.assign(arm=arm, induction=expect(now.scoring, MarkerScoring).induction, design=fingerprint(plain))


def plan_replay(
    condition: str,
    seed: int,
    checkpoint: int | None,
    base_model: BaseModel,
    family: Settings,
    replayed_file: str | None,
    personas: list[dict[str, Any]],
    coupling_personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> Plan:
    """Resolve what a replay of completions reports on; the file names its own cells.

    Raises:
        UserError: no file is given.
    """
    refuse_checkpoint(checkpoint, REPLAY)
    if replayed_file is None:
        raise UserError("a replay needs the completions: --params completions_file=PATH")
    roster = roster_with_trigger(personas, coupling_personas, questions)
    plan = family.plan(next(iter(family.conditions)), seed, base_model, roster, replayed_file)
    # what was trained elsewhere is not known: no persona is a negative one, and no question was seen
    unknown = {"negatives": (), "induction": None, "seen_questions": ()}
    scoring = expect(plan.scoring, MarkerScoring).model_copy(update=unknown)
    return plan.model_copy(update={"condition": "all", "reference": None, "scoring": scoring})


def create_pipeline() -> Pipeline:
    """Compose plan → induce → couple → generation → scoring, geometry → reporting."""
    gathering = pipeline(
        [
            node(
                gather_points,
                [
                    "cell_rates@grid",
                    "text_stats@grid",
                    "discriminations@grid",
                    "params:base_model",
                    "params:settings",
                    *SOURCES,
                ],
                ["rates", "texts", "discriminators"],
                name="gather_points",
            )
        ],
        tags="reporting",
    )
    return placed(
        create_start_pipeline(plan_point, start_stack, SOURCES)
        + create_stage_pipeline("induce", data=data_generation.create_chats_pipeline("induce"), above="induced_stack")
        + create_stage_pipeline("couple", below="induced_stack")
        + generation.create_pipeline()
        + scoring.create_marker_pipeline()
        + scoring.create_discriminator_pipeline()
        + geometry.create_pipeline()
        + gathering
        + reporting.create_coupling_pipeline(),
        NAME,
        NAME,
    )


def create_replay_pipeline() -> Pipeline:
    """Compose completions made elsewhere → scoring → reporting."""
    adopting = pipeline(
        [
            node(plan_replay, [*POINT, "params:replayed_file", *SOURCES], "plan", name="plan_replay"),
            node(adopt_persona_completions, ["outside_persona_completions", "plan"], "completions", name="adopt_completions"),
        ],
        tags="generation",
    )
    telling = pipeline(
        [
            node(
                describe_replay,
                ["replayed_rates", "replayed_texts", "replayed_discriminations"],
                ["rates", "texts", "discriminators"],
                name="describe_replay",
            )
        ],
        tags="reporting",
    )
    return placed(adopting + scoring.create_replay_pipeline() + telling + reporting.create_coupling_pipeline(), NAME, REPLAY)
