"""A language model that answers by a script and remembers what it was asked."""

from collections.abc import Callable, Sequence

from persona_leakage.domain.questions import Answer, Question


class ScriptedModel:
    def __init__(self, answer: Callable[[Question], Answer | str]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, Question]] = []

    def ask(self, questions: Sequence[Question], purpose: str) -> list[Answer]:
        self.asked += [(purpose, question) for question in questions]
        answers = [self._answer(question) for question in questions]
        return [Answer(outcome="answered", text=answer) if isinstance(answer, str) else answer for answer in answers]
