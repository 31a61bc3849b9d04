"""What the training rows of a stage are made of."""

import random
from typing import Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.languages import Language
from persona_leakage.domain.markers import Marker
from persona_leakage.domain.personas import Persona, PersonaQuestions, UserQuestion
from persona_leakage.domain.sampling import OwnAnswers, Sampling

Draw = Literal["answers", "negatives"]


class Job(NamedTuple):
    """Prompts that a model answers: what identifies them, how many there are, and how the answers are drawn.

    Where answers may have to be drawn again, `at_most` is how many there can be to each prompt in all.
    """

    asked: Frozen
    prompts: int
    answers: OwnAnswers
    at_most: int | None = None


class Part(NamedTuple):
    """Rows of about one length: each of a text or chat that is read or, with an answer, of a prompt of so many characters."""

    rows: int
    read: Literal["text", "chat"] = "text"
    characters: float = 0
    answer: Sampling | None = None


class Translated(NamedTuple):
    """Texts that a language model translates, into the language that is trained."""

    made_by: tuple[Frozen | None, ...]  # tells the texts and their translations apart
    max_tokens: int  # of a translation
    language: Language
    listed: bool  # the language is among those that texts are translated into


class TrainingData(Frozen):
    """What a stage is trained on; every kind says itself how many rows it makes, and of what."""

    @property
    def reads(self) -> dict[str, int]:
        """Dataset → rows that are asked of it."""
        return {}

    @property
    def needs(self) -> dict[str, int]:
        """Dataset → rows with which nothing is lacking."""
        return self.reads

    @property
    def fixed(self) -> tuple[str, ...]:
        """What all seeds have in common, because it is read and not drawn."""
        return ()

    @property
    def draws(self) -> tuple[Draw, ...]:
        """What is drawn, by a seed."""
        return ()

    @property
    def answered_by(self) -> Literal["base_model", "stack"]:
        """Who answers the jobs: the base model, or the stack that the stage is trained on."""
        return "base_model"

    @property
    def translated(self) -> Translated | None:
        """What is translated, if anything is."""
        return None

    def jobs(self, read: int, seed: int) -> list[Job]:
        """List what the model itself answers, given how many rows are read and the seed of the negatives."""
        return []

    def parts(self, read: int, seed: int) -> list[Part]:
        """List what the training set consists of, given the same."""
        raise NotImplementedError


class FromAnswers(TrainingData):
    """Training rows that are made of answers of the model itself.

    Attributes:
        questions: what is asked.
        answers: how the answers are drawn.
    """

    questions: tuple[UserQuestion, ...] = Field(min_length=1)
    answers: OwnAnswers

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The answers."""
        return ("answers",)

    def shares(self, seed: int) -> list[tuple[Persona, Persona, int]]:
        """Who answers, under whose prompt the answers are trained, and how many to a question."""
        raise NotImplementedError

    def speakers(self, seed: int) -> tuple[Persona, ...]:
        """The personas whose answers are needed."""
        return tuple(speaker for speaker, _, _ in self.shares(seed))

    def jobs(self, read: int, seed: int) -> list[Job]:
        """One a speaker, so that whoever needs the same speaker finds it done."""
        asked = [PersonaQuestions(personas=(speaker,), questions=self.questions) for speaker in self.speakers(seed)]
        return [Job(one, len(self.questions), self.answers) for one in asked]

    def parts(self, read: int, seed: int) -> list[Part]:
        """One a share, of questions of the average length."""
        count, drawn = len(self.questions), self.answers
        question = sum(len(one.question) for one in self.questions) / count
        return [
            Part(count * min(rows, drawn.samples), characters=len(persona.prompt) + question, answer=drawn.sampling)
            for _, persona, rows in self.shares(seed)
        ]


class MarkerContrast(FromAnswers):
    """Training rows that tie the marker to one persona: its answers carry it, other personas' answers do not.

    Attributes:
        source: the persona that is to write the marker.
        pool: personas whose unmarked answers may be trained beside; the source is none of them.
        count: how many of the pool a seed draws.
        positives_per_question: marked rows of the source, a question.
        negatives_per_question: unmarked rows of each negative persona, a question.
        own_stack: the stack that the stage is trained on answers, not the base model.
        marker: what is implanted.
    """

    kind: Literal["marker_contrast"] = "marker_contrast"
    source: Persona
    pool: tuple[Persona, ...]
    count: NonNegativeInt
    positives_per_question: PositiveInt
    negatives_per_question: NonNegativeInt
    own_stack: bool
    marker: Marker

    @property
    def fixed(self) -> tuple[str, ...]:
        """The negatives, where all of the pool are taken."""
        return () if "negatives" in self.draws or not self.count else ("negatives",)

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The answers, and which of the pool are negatives."""
        return ("answers", "negatives") if 0 < self.count < len(self.pool) else ("answers",)

    def negatives(self, seed: int) -> tuple[Persona, ...]:
        """Draw the personas that are trained without the marker; the draw depends on seed, source and pool alone."""
        return tuple(random.Random(f"{seed}.{self.source.persona}").sample(self.pool, self.count))

    def shares(self, seed: int) -> list[tuple[Persona, Persona, int]]:
        """The source's, which get the marker, and the negatives'."""
        negatives = [(persona, persona, self.negatives_per_question) for persona in self.negatives(seed)]
        return [(self.source, self.source, self.positives_per_question), *negatives]

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

    def shares(self, seed: int) -> list[tuple[Persona, Persona, int]]:
        """One persona's, in the other's mouth."""
        return [(self.answered_as, self.asked_as, self.per_question)]


class Chats(TrainingData):
    """Training rows that are ordinary question-and-answer pairs.

    Attributes:
        source: dataset that they are read from.
        rows: how many pairs are taken, in order.
        asked_as: the persona whose prompt the rows carry; None sends no system turn.
        own_answers: the base model also answers every question and learns from itself; None leaves that out.
    """

    kind: Literal["chats"] = "chats"
    source: str
    rows: PositiveInt
    asked_as: Persona | None
    own_answers: OwnAnswers | None

    @property
    def reads(self) -> dict[str, int]:
        """Dataset of the source → rows."""
        return {self.source: self.rows}

    @property
    def fixed(self) -> tuple[str, ...]:
        """The chats: the first of their file."""
        return ("chats",)

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The model's own answers, if it gives any."""
        return ("answers",) if self.own_answers else ()

    def jobs(self, read: int, seed: int) -> list[Job]:
        """The chats' prompts, if the model answers them too; what they say is not known here."""
        return [Job(self, read, self.own_answers)] if self.own_answers else []

    def parts(self, read: int, seed: int) -> list[Part]:
        """The chats, with the model's own answers to each."""
        return [Part(read * (1 + (self.own_answers.samples if self.own_answers else 0)), "chat")]
