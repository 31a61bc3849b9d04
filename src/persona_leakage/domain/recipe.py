"""A stage's hyper-parameters."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from persona_leakage.domain.frozen import Frozen


class Lora(Frozen):
    """Low-rank adaptation (Hu et al. 2021); `rslora` scales by alpha/sqrt(rank) (Kalajdzievski 2023)."""

    rank: PositiveInt
    alpha: PositiveInt
    rslora: bool
    dropout: float = Field(ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(min_length=1)


class Recipe(Frozen):
    """How one stage is trained.

    Attributes:
        loss: `completion` puts labels on the completion and its end-of-turn token, `full` on every token.
        batch_size: rows in a forward pass.
        gradient_accumulation: forward passes in an optimiser step.
        warmup_ratio: share of the optimiser steps spent warming up.
        max_length: tokens kept of a row; a row that would lose all its labels is an error.
        batching: `random`, or `length_grouped` which puts rows of similar length into a batch.
    """

    loss: Literal["completion", "full"]
    lora: Lora
    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: float = Field(ge=0, lt=1)
    epochs: PositiveInt
    batch_size: PositiveInt
    gradient_accumulation: PositiveInt
    weight_decay: float = Field(ge=0)
    max_grad_norm: PositiveFloat
    max_length: PositiveInt
    batching: Literal["random", "length_grouped"]
    gradient_checkpointing: bool
