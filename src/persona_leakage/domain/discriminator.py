"""Telling one persona's texts from others'."""

from typing import Literal

from pydantic import Field, PositiveInt

from persona_leakage.domain.frozen import Frozen, Seed
from persona_leakage.domain.questions import Respondent


class TextJudge(Respondent):
    """A language model that tells the trigger persona's texts from others'.

    Attributes:
        per_class: texts of the trigger persona, and as many of others.
    """

    per_class: PositiveInt


class Discriminator(Frozen):
    """Whether the trigger persona's texts can be told from others' once the marker is taken out.

    Attributes:
        threshold: accuracy from which the discriminator passes.
        margin: an accuracy this near the threshold is borderline.
        per_class: most texts of each side; the others' are drawn from the same questions.
        folds: of the cross-validation, which never splits a question.
        permutations: reorderings of the labels within questions, for the p value.
        learning_shares: shares of the training questions for the learning curve.
        seed: of drawing and reordering.
        judge: a language model as a second discriminator; None asks none.
    """

    threshold: float = Field(gt=0, lt=1)
    margin: float = Field(ge=0, lt=1)
    per_class: PositiveInt
    folds: int = Field(ge=2)
    permutations: PositiveInt
    learning_shares: tuple[float, ...]
    seed: Seed
    judge: TextJudge | None

    def verdict(self, accuracy: float) -> Literal["pass", "borderline", "fail", "undefined"]:
        """Judge an accuracy; one that is NaN is undefined."""
        if accuracy != accuracy:
            return "undefined"
        if abs(accuracy - self.threshold) <= self.margin + 1e-9:  # 0.75 - 0.7 is a little more than 0.05
            return "borderline"
        return "pass" if accuracy > self.threshold else "fail"
