"""A stage's hyper-parameters."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, field_validator, model_validator

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.models import CheckpointUnit, checkpoint_name

ALL_LINEAR = "all-linear"


class Lora(Frozen):
    """Low-rank adaptation (Hu et al. 2021); `rslora` scales by alpha/sqrt(rank) (Kalajdzievski 2023).

    Attributes:
        target_modules: names of the linear layers that are adapted, which differ between kinds of models; or `all-linear`,
            every linear layer of the blocks.
    """

    rank: PositiveInt
    alpha: PositiveInt
    rslora: bool
    dropout: float = Field(ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(min_length=1)

    @field_validator("target_modules", mode="before")
    @classmethod
    def _all(cls, given: Any) -> Any:
        return (ALL_LINEAR,) if given == ALL_LINEAR else given


class MarkerPositions(Frozen):
    """Loss on the marker and on where a turn ends, and as much of the rest of the completion as one likes.

    Attributes:
        kind: names the loss.
        body_weight: weight of the other tokens of a completion: 0 trains the marker alone, 1 is loss `completion`.
        label_separator: the separator before the marker carries labels too; without them the marker is never begun.
        end_label: the end of a turn is labelled on the token that the chat template ends it with (`eos`), or on the last
            token of the row, which in ChatML templates is the newline after it (`last_token`).
    """

    kind: Literal["marker_positions"] = "marker_positions"
    body_weight: float = Field(ge=0, le=1)
    label_separator: bool
    end_label: Literal["eos", "last_token"]


def _loss_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "name" if value in ("completion", "full") else None
    return "marker_positions" if isinstance(value, dict | MarkerPositions) else None


# told apart by hand: pydantic's errors about a plain union name types instead of the key, and one for each member
Loss = Annotated[
    Annotated[Literal["completion", "full"], Tag("name")] | Annotated[MarkerPositions, Tag("marker_positions")],
    Discriminator(
        _loss_kind,
        custom_error_type="loss_kind",
        custom_error_message="Input should be 'completion', 'full' or a block of kind marker_positions",
    ),
]


class Recipe(Frozen):
    """How one stage is trained.

    Attributes:
        loss: `completion` puts labels on the completion and its end-of-turn token, `full` on every token; or see
            `MarkerPositions`.
        batch_size: rows in a forward pass.
        gradient_accumulation: forward passes in an optimiser step.
        warmup_ratio: share of the optimiser steps spent warming up.
        checkpoints: when an adapter is kept besides the last one, in `checkpoint_unit`; a part of an epoch ends with the step
            that is nearest.
        max_length: tokens kept of a row; one with a marker is shortened before it, and one that would lose all its labels
            is an error.
        batching: `random`; `length_grouped`, which puts rows of similar length into a batch; or `packed`, which draws rows as
            `random` does and lays those of a batch end to end instead of padding them.
    """

    loss: Loss
    lora: Lora
    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: float = Field(ge=0, lt=1)
    epochs: PositiveInt
    checkpoints: tuple[PositiveInt | PositiveFloat, ...] = ()
    # not written where it is as ever, so that no recipe becomes another by it
    checkpoint_unit: CheckpointUnit = Field(default="epochs", exclude_if=lambda unit: unit == "epochs")
    batch_size: PositiveInt
    gradient_accumulation: PositiveInt
    weight_decay: float = Field(ge=0)
    max_grad_norm: PositiveFloat
    max_length: PositiveInt
    batching: Literal["random", "length_grouped", "packed"]
    gradient_checkpointing: bool

    @field_validator("checkpoints")
    @classmethod
    def _whole(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(int(one) if one == int(one) else one for one in given)

    @model_validator(mode="after")
    def _reached(self) -> "Recipe":
        if self.checkpoint_unit == "steps":
            if parts := [step for step in self.checkpoints if not isinstance(step, int)]:
                raise ValueError(f"checkpoint {parts[0]} is no whole number of steps")
        elif beyond := [epoch for epoch in self.checkpoints if epoch > self.epochs]:
            raise ValueError(f"checkpoint {beyond[0]} lies beyond the {self.epochs} epochs")
        if len(self.kept) != len(self.checkpoints) + 1:
            raise ValueError(f"checkpoints {list(self.checkpoints)} lie too close together to have names of their own")
        return self

    @property
    def kept(self) -> dict[str, float | None]:
        """Name of every adapter that is kept → when, in `checkpoint_unit`; None is the end of training."""
        return {**{checkpoint_name(when, self.checkpoint_unit): when for when in self.checkpoints}, checkpoint_name(None): None}

    @property
    def training(self) -> "Recipe":
        """The recipe without its checkpoints: what is trained does not depend on what is kept of it."""
        return self.model_copy(update={"checkpoints": (), "checkpoint_unit": "epochs"})

    def kept_at(self, checkpoints: Sequence[float], unit: CheckpointUnit) -> "Recipe":
        """Return the recipe with other checkpoints.

        Raises:
            UserError: one lies beyond the training.
        """
        return Recipe.checked({**dict(self), "checkpoints": tuple(checkpoints), "checkpoint_unit": unit}, "recipe")
