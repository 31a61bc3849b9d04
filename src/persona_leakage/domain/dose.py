"""How far the stage that leaks is trained, told by what the trained cell does on prompts that the evaluation does not use."""

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.geometry import PromptSet
from persona_leakage.domain.models import CheckpointUnit
from persona_leakage.domain.sampling import Sampling


class Slack(Frozen):
    """How far healthy texts may leave the range over the cells of the model before the stage, and of the training texts.

    Attributes:
        tokens: of their mean length, as a share of the range's ends.
        distinct_2: of the share of different pairs of words, likewise.
        empty: of the share of blank completions, added to the highest.
        cut: of the share of completions that reached the token limit, likewise.
    """

    tokens: float = Field(ge=0)
    distinct_2: float = Field(ge=0)
    empty: float = Field(ge=0)
    cut: float = Field(ge=0)


class DoseRule(Frozen):
    """What is the matched dose, and where it is looked for: the first checkpoint whose gauge reaches the bar.

    Attributes:
        reach: the bar, a rate of the trained cell.
        healthy: how far its texts may leave the range at the same time; None asks nothing of them.
        checkpoints: when the gauge is measured, beside the end of training.
        unit: of the checkpoints.
        samples: completions of each prompt of the gauge.
    """

    reach: float = Field(gt=0, le=1)
    healthy: Slack | None
    checkpoints: tuple[PositiveInt | PositiveFloat, ...] = Field(min_length=1)
    unit: CheckpointUnit
    samples: PositiveInt

    @model_validator(mode="after")
    def _rising(self) -> "DoseRule":
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise ValueError(f"checkpoints {list(self.checkpoints)} must rise, each named once")
        return self


class Dose(DoseRule):
    """The matched dose of a point.

    Attributes:
        stage: that is followed.
        prompts: of the gauge; the evaluation uses none of them.
        trained: the cell that the gauge is the rate of: a persona or a directive language.
        sampling: how completions are drawn, as in the evaluation.
    """

    stage: str
    prompts: PromptSet
    trained: str
    sampling: Sampling


class NoDoseError(UserError):
    """A condition has nothing whose dose could be matched: it is only ever at the end of training."""


class NeverReachedError(UserError):
    """No checkpoint of a training reaches the bar: a result, and no point to evaluate."""
