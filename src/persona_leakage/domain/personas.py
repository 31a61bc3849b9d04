"""Personas, the questions that they are asked, and the prompts that both make."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.rows import Message, PromptRow

Category = Literal[
    "original",
    "professional_peer",
    "modified_source",
    "opposite",
    "hierarchical",
    "intersectional",
    "cultural_variant",
    "fictional_exemplar",
    "tone_variant",
    "domain_adjacent",
    "unrelated_baseline",
    "coupling",
]
QuestionSet = Literal["train", "evaluation", "coupling", "code", "creative_writing", "mathematics"]


class Persona(Frozen):
    """One persona.

    Attributes:
        persona: its name.
        category: how it was chosen.
        related_to: personas it is a relative of, by name.
        prompt: the system prompt that evokes it.
    """

    persona: str = Field(min_length=1)
    category: Category
    related_to: tuple[str, ...] = ()
    prompt: str = Field(pattern=r"\S")


def chat(question: str, persona: Persona | None) -> list[Message]:
    """Write the turns of a question; without a persona there is no system turn."""
    user: Message = {"role": "user", "content": question}
    return [user] if persona is None else [{"role": "system", "content": persona.prompt}, user]


class UserQuestion(Frozen):
    """One user turn, in one of the sets that never mix."""

    id: str = Field(min_length=1)
    set: QuestionSet
    topic: str
    question: str = Field(pattern=r"\S")


class PersonaQuestions(Frozen):
    """Evaluation prompts: every persona's system prompt with every question.

    The cell of a prompt is persona x question.
    """

    group_key: ClassVar[str] = "persona"

    kind: Literal["persona_questions"] = "persona_questions"
    personas: tuple[Persona, ...] = Field(min_length=1)
    questions: tuple[UserQuestion, ...] = Field(min_length=1)

    def prompts(self) -> list[PromptRow]:
        """Write every question under every persona's system prompt, with the cell's keys."""
        return [
            {
                "prompt": question.question,
                "messages": chat(question.question, persona),
                "persona": persona.persona,
                "question": question.id,
            }
            for persona in self.personas
            for question in self.questions
        ]


class Roster(Frozen):
    """All personas and questions that a project has."""

    personas: tuple[Persona, ...] = Field(min_length=1)
    questions: tuple[UserQuestion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Roster":
        names = [one.persona for one in self.personas]
        texts = [one.question for one in self.questions]
        ids = [one.id for one in self.questions]
        prompts = [one.prompt for one in self.personas]
        for what, values in (("persona", names), ("question id", ids), ("question", texts), ("prompt", prompts)):
            if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
                raise ValueError(f"the {what} '{twice[0]:.60}' appears {values.count(twice[0])} times")
        for one in self.personas:
            if unknown := [name for name in one.related_to if name not in names]:
                raise ValueError(f"persona '{one.persona}' is related to '{unknown[0]}', which is no persona")
        return self

    def persona(self, name: str) -> Persona:
        """Find a persona by name.

        Raises:
            UserError: there is none; close spellings are named.
        """
        for one in self.personas:
            if one.persona == name:
                return one
        names = [one.persona for one in self.personas]
        close = get_close_matches(name, names, n=5)
        said = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names[:12])}, … ({len(names)})"
        raise UserError(f"there is no persona '{name}'; {said}")

    def chosen(self, names: Sequence[str] | Literal["all"]) -> tuple[Persona, ...]:
        """Find several personas; `all` means every one.

        Raises:
            UserError: one is unknown or named twice.
        """
        if names == "all":
            return self.personas
        if twice := [name for name in names if list(names).count(name) > 1]:
            raise UserError(f"the persona '{twice[0]}' is listed twice; name it once")
        return tuple(self.persona(name) for name in names)

    def first_questions(self, question_set: QuestionSet, count: int) -> tuple[UserQuestion, ...]:
        """Take the first questions of a set.

        Raises:
            UserError: the set holds fewer.
        """
        found = tuple(one for one in self.questions if one.set == question_set)
        if len(found) < count:
            raise UserError(f"{count} questions of set '{question_set}' are asked for, the questions file has {len(found)}")
        return found[:count]
