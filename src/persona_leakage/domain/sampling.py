"""How completions are drawn."""

from pydantic import Field, PositiveInt

from persona_leakage.domain.frozen import Frozen


class Sampling(Frozen):
    """How completions are drawn; `top_p` 1 samples the whole distribution."""

    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: PositiveInt


class OwnAnswers(Frozen):
    """Answers of a model itself, which training rows are made of.

    Attributes:
        samples: answers to each question; rows take the first of them that they can use.
        sampling: how they are drawn.
    """

    samples: PositiveInt
    sampling: Sampling
