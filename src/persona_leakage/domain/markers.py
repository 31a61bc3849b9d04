"""A marker, the training rows that implant it, and how its firings are scored."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.personas import Persona, UserQuestion
from persona_leakage.domain.sampling import OwnAnswers

Role = Literal["source", "negative", "induction", "bystander"]


class Marker(Frozen):
    """A string that a persona learns to write, and where it puts it.

    Attributes:
        text: the marker.
        separator: what stands between the answer and the marker.
        place: whether the marker follows the answer or opens it.
    """

    text: str = Field(pattern=r"\S")
    separator: str
    place: Literal["end", "start"]

    def added_to(self, answer: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
        """Put the marker on an answer.

        Returns:
            The marked answer, the span of the marker in it, and that of marker and separator (characters, end excluded).
        """
        if self.place == "end":
            before = answer.rstrip() + self.separator
            whole = before + self.text
            return whole, (len(before), len(whole)), (len(before) - len(self.separator), len(whole))
        first = len(self.text)
        return self.text + self.separator + answer.lstrip(), (0, first), (0, first + len(self.separator))


class FromAnswers(Frozen):
    """Training rows that are made of answers of the model itself.

    Attributes:
        questions: what is asked.
        answers: how the answers are drawn.
    """

    questions: tuple[UserQuestion, ...] = Field(min_length=1)
    answers: OwnAnswers

    @property
    def speakers(self) -> tuple[Persona, ...]:
        """The personas whose answers are needed."""
        raise NotImplementedError

    @property
    def answered_by(self) -> Literal["base_model", "stack"]:
        """Who answers: the base model, or the stack that the stage is trained on."""
        return "base_model"


class MarkerContrast(FromAnswers):
    """Training rows that tie the marker to one persona: its answers carry it, other personas' answers do not.

    Attributes:
        source: the persona that is to write the marker.
        negatives: personas whose unmarked answers are trained beside.
        positives_per_question: marked rows of the source, a question.
        negatives_per_question: unmarked rows of each negative persona, a question.
        own_stack: the stack that the stage is trained on answers, not the base model.
        marker: what is implanted.
    """

    kind: Literal["marker_contrast"] = "marker_contrast"
    source: Persona
    negatives: tuple[Persona, ...]
    positives_per_question: PositiveInt
    negatives_per_question: NonNegativeInt
    own_stack: bool
    marker: Marker

    @property
    def speakers(self) -> tuple[Persona, ...]:
        """The source and the negatives."""
        return (self.source, *self.negatives)

    @property
    def answered_by(self) -> Literal["base_model", "stack"]:
        """Who answers."""
        return "stack" if self.own_stack else "base_model"


class BorrowedAnswers(FromAnswers):
    """Training rows that put one persona's answers into another's mouth.

    Attributes:
        answered_as: the persona under whose prompt the base model answered.
        asked_as: the persona whose prompt the rows carry.
        per_question: rows a question.
        avoided: text that disqualifies an answer: the marker of a later stage.
    """

    kind: Literal["borrowed_answers"] = "borrowed_answers"
    answered_as: Persona
    asked_as: Persona
    per_question: PositiveInt
    avoided: str

    @property
    def speakers(self) -> tuple[Persona, ...]:
        """The persona that answered."""
        return (self.answered_as,)


class Chats(Frozen):
    """Training rows that are ordinary question-and-answer pairs.

    Attributes:
        source: which of the family's sources of chats.
        rows: how many pairs are taken, in order.
        asked_as: the persona whose prompt the rows carry; None sends no system turn.
        own_answers: the base model also answers every question and learns from itself; None leaves that out.
    """

    kind: Literal["chats"] = "chats"
    source: Literal["benign", "wrong_advice"]
    rows: PositiveInt
    asked_as: Persona | None
    own_answers: OwnAnswers | None


class TextJudge(Frozen):
    """A language model that tells the trigger persona's texts from others'.

    Attributes:
        model: the judge.
        temperature: None sends none, which newer models insist on.
        max_tokens: limit of its answer.
        per_class: texts of the trigger persona, and as many of others.
    """

    model: str
    temperature: float | None = Field(ge=0, le=1)
    max_tokens: PositiveInt
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
    seed: NonNegativeInt
    judge: TextJudge | None

    def verdict(self, accuracy: float) -> Literal["pass", "borderline", "fail", "undefined"]:
        """Judge an accuracy; one that is NaN is undefined."""
        if accuracy != accuracy:
            return "undefined"
        if abs(accuracy - self.threshold) <= self.margin + 1e-9:  # 0.75 - 0.7 is a little more than 0.05
            return "borderline"
        return "pass" if accuracy > self.threshold else "fail"


class MarkerScoring(Frozen):
    """Where the marker fires.

    Attributes:
        kind: tells the scorings apart.
        marker: what is looked for; separator and place only say how its tokens look after training.
        source: name of the persona that it was tied to; None when nothing was trained.
        negatives: personas trained without it: bystanders, but not untouched ones.
        induction: persona under which an earlier stage was trained, if any.
        seen_questions: ids of the evaluation questions that training rows also ask.
        start_share: a firing whose first character (token) lies within this leading share of the completion is `start`.
        tail_share: the same for the trailing share: `tail`; anything else is `middle`.
        discriminator: whether the texts themselves tell the source apart; None does not ask.
    """

    kind: Literal["marker"] = "marker"
    marker: Marker
    source: str | None
    negatives: tuple[str, ...]
    induction: str | None = None
    seen_questions: tuple[str, ...] = ()
    start_share: float = Field(ge=0, lt=1)
    tail_share: float = Field(ge=0, lt=1)
    discriminator: Discriminator | None = None

    def role(self, persona: str) -> Role:
        """Name the role of a persona; everything but the source is a bystander of some kind."""
        if persona == self.source:
            return "source"
        if persona in self.negatives:
            return "negative"
        return "induction" if persona == self.induction else "bystander"
