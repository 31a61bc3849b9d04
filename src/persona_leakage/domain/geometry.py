"""Which hidden states are read, and of which prompts."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.directives import Directives
from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.personas import PersonaQuestions

PromptSet = Annotated[Directives | PersonaQuestions, Field(discriminator="kind")]


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
    """The prompts whose last-token states are averaged, by directive language or by persona; all of them centre a cosine.

    Attributes:
        direction_completions: completions a language whose states make its direction; None finds no directions.
    """

    prompts: PromptSet
    # a plan without it is identified as it was before there was one
    direction_completions: PositiveInt | None = Field(default=None, exclude_if=lambda count: count is None)
