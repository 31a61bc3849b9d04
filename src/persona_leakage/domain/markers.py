"""A marker, and how its firings are scored."""

import re
from collections.abc import Container
from typing import Literal

from pydantic import Field

from persona_leakage.domain.discriminator import Discriminator
from persona_leakage.domain.frozen import Frozen

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

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a firing matches: the marker, upper and lower case alike."""
        return re.compile(re.escape(self.text), re.IGNORECASE)

    def add_to(self, answer: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
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


class MarkerScoring(Frozen):
    """Where the marker fires.

    Attributes:
        kind: tells the scorings apart.
        marker: what is looked for; separator and place only say how its tokens look after training.
        source: name of the persona that it was tied to; None when nothing was trained.
        induction: persona under which an earlier stage was trained, if any.
        seen_questions: ids of the evaluation questions that training rows also ask.
        start_share: a firing whose first character (token) lies within this leading share of the completion is `start`.
        tail_share: the same for the trailing share: `tail`; anything else is `middle`.
        discriminator: whether the texts themselves tell the source apart; None does not ask.
    """

    kind: Literal["marker"] = "marker"
    marker: Marker
    source: str | None
    induction: str | None = None
    seen_questions: tuple[str, ...] = ()
    start_share: float = Field(ge=0, lt=1)
    tail_share: float = Field(ge=0, lt=1)
    discriminator: Discriminator | None = None

    @property
    def asks(self) -> Literal["discriminator"] | None:
        """The step that asks a language model, if one does."""
        return "discriminator" if self.discriminator and self.discriminator.judge else None

    def role(self, persona: str, negatives: Container[str]) -> Role:
        """Name the role of a persona; everything but the source is a bystander of some kind.

        Args:
            persona: its name.
            negatives: personas trained without the marker: bystanders, but not untouched ones.
        """
        if persona == self.source:
            return "source"
        if persona in negatives:
            return "negative"
        return "induction" if persona == self.induction else "bystander"
