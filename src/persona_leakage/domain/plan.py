"""What one run computes, resolved from the parameters before anything else happens."""

from itertools import product
from typing import Annotated, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.directives import DirectivePairs
from persona_leakage.domain.dose import Dose
from persona_leakage.domain.frozen import SEEDS, Frozen, T, canonical, digest, expect, fingerprint, seed_from
from persona_leakage.domain.geometry import Geometry, PromptSet
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.rows import Message
from persona_leakage.domain.sampling import Sampling
from persona_leakage.domain.training_rows import BorrowedAnswers, Chats, Draw, MarkerContrast

SHARED_SEED = 42  # of the study; draws by it whatever the point's seed is are the same in all seeds


class Stage(Frozen):
    """One fine-tuning step.

    Attributes:
        data: what the training rows are made of.
        recipe: how they are trained.
        checkpoint: epoch whose adapter the next step builds on; 0 trains nothing, None takes the last.
        seed_offset: what is added to the seeds of the training and of every draw.
        share: draws that all seeds have in common; everything else is drawn anew by the point's seed.
    """

    data: Annotated[DirectivePairs | MarkerContrast | BorrowedAnswers | Chats, Field(discriminator="kind")]
    recipe: Recipe
    checkpoint: NonNegativeInt | None = None
    seed_offset: NonNegativeInt = 0
    share: tuple[Draw, ...] = ()

    @model_validator(mode="after")
    def _kept(self) -> "Stage":
        if self.checkpoint and self.checkpoint not in self.recipe.checkpoints:
            kept = ", ".join(map(str, self.recipe.checkpoints)) or "none"
            raise ValueError(f"checkpoint {self.checkpoint} is not among the recipe's checkpoints ({kept})")
        return self


class Evaluation(Frozen):
    """Prompts, and how many completions of each are sampled.

    Attributes:
        prompts: what is asked.
        samples: completions of each.
        sampling: how they are drawn.
        seed_offset: what is added to the point's seed for the sampling.
    """

    prompts: PromptSet
    samples: PositiveInt
    sampling: Sampling
    seed_offset: NonNegativeInt = 0


class Plan(Frozen):
    """Everything that decides the results of one point: model x condition x seed [x checkpoint].

    Attributes:
        address: names the point.
        stages: stage name → stage, in order; a stage the condition does not list passes the stack through.
        traits: what every rate row says of its point beside its name, such as the arm of a design: column → value.
        dose: how the checkpoint of the followed stage is found; None takes that stage's own.
        reference: the condition without stages that is evaluated in the same way, if there is one.
        replayed_file: what a replay reads: results that were made elsewhere.
    """

    family: str
    address: Address
    base_model: BaseModel
    stages: dict[str, Stage]
    evaluation: Evaluation
    scoring: Annotated[LanguageScoring | MarkerScoring, Field(discriminator="kind")]
    geometry: Geometry
    traits: dict[str, str | None] = Field(default_factory=dict)
    # a plan without it is identified as it was before there was one
    dose: Dose | None = Field(default=None, exclude_if=lambda dose: dose is None)
    reference: str | None
    replayed_file: str | None = None

    @model_validator(mode="after")
    def _gauged_apart(self) -> "Plan":
        if self.dose is not None:
            evaluated = {canonical(row["messages"]) for row in self.evaluation.prompts.prompts()}
            gauged = self.dose.prompts.prompts()
            if twice := [row["prompt"] for row in gauged if canonical(row["messages"]) in evaluated]:
                raise ValueError(f"the gauge asks '{twice[0]}', which the evaluation asks too; give it other prompts")
        return self

    @model_validator(mode="after")
    def _seeds_fit(self) -> "Plan":
        draws: tuple[Draw | None, ...] = (None, *get_args(Draw))
        seeds = [self.seed + self.evaluation.seed_offset, *(self._begin(*one) for one in product(self.stages, draws))]
        if (highest := max(seeds)) >= SEEDS:
            raise ValueError(f"seed {self.address.seed} becomes {highest} in a replicate, above {SEEDS - 1}; give a lower one")
        return self

    @property
    def seed(self) -> int:
        """The point's seed, which the offsets of stages and evaluation are added to."""
        return self.address.seed

    def data_of(self, stage: str, kind: type[T]) -> T | None:
        """Tell what a stage's training rows are made of; None when the condition does not train the stage."""
        return expect(self.stages[stage].data, kind) if stage in self.stages else None

    def seed_of(self, stage: str, draw: Draw | None = None) -> int:
        """Return the seed of a stage's training or, named, of one of its draws.

        Answers have one of their own: an evaluation that asks the same questions with the same random numbers would have the
        model write what it was trained on.
        """
        begin = self._begin(stage, draw)
        return seed_from(f"answers {begin}") if draw == "answers" else begin

    def _begin(self, stage: str, draw: Draw | None) -> int:
        trains = self.stages[stage]
        return (SHARED_SEED if draw in trains.share else self.seed) + trains.seed_offset

    @property
    def negatives(self) -> frozenset[str]:
        """The personas that are trained without the marker, by name."""
        return frozenset(
            one.persona
            for name, stage in self.stages.items()
            if isinstance(stage.data, MarkerContrast)
            for one in stage.data.negatives(self.seed_of(name, "negatives"))
        )

    @property
    def shared(self) -> str | None:
        """Say what all seeds have in common of what the stages are trained on: `stage: what, …; …`, or `nothing`.

        None where nothing is trained.
        """
        if not self.stages:
            return None
        common = {
            name: [*stage.data.fixed, *(draw for draw in stage.data.draws if draw in stage.share)]
            for name, stage in self.stages.items()
        }
        return "; ".join(f"{name}: {', '.join(said)}" for name, said in common.items() if said) or "nothing"

    @property
    def gauge_seed(self) -> int:
        """The seed of the gauge's completions, which are no draw of the evaluation's."""
        return seed_from(f"gauge {self.seed + self.evaluation.seed_offset}")

    @property
    def chats(self) -> list[list[Message]]:
        """The prompts of evaluation, geometry and gauge."""
        asked = [self.evaluation.prompts, self.geometry.prompts, *([self.dose.prompts] if self.dose else [])]
        return [row["messages"] for prompts in asked for row in prompts.prompts()]

    @property
    def design(self) -> str:
        """Identify everything that decides the results but the seed; what they are compared with is no part of it."""
        return fingerprint(
            self.model_dump(mode="json", exclude={"reference": True, "address": {"seed"}, "base_model": {"made_by"}})
        )

    @property
    def fingerprint(self) -> str:
        """Identify the plan by its content."""
        return seeded(self.design, self.seed)

    @property
    def columns(self) -> dict[str, str | int]:
        """What every row of the point's tables begins with: its name and the plan that made it."""
        return {**self.address.params, "plan": self.fingerprint}


def seeded(design: str, seed: int) -> str:
    """Identify the plan of a design at a seed."""
    return digest(f"{design} {seed}")
