"""What questions cost, and a ceiling that they keep."""

import threading
from collections.abc import Mapping

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.questions import Answer, Question

_BYTES_PER_TOKEN = 2.5  # few, as the ceiling rests on it; the bill counts the API's own tokens


class Price(Frozen):
    """US dollars a million tokens, for single calls; a batch costs half."""

    input: float
    output: float


def guess_tokens(question: Question) -> int:
    """Reckon a question's tokens, rather too many than too few."""
    return round(len(question.prompt.encode()) / _BYTES_PER_TOKEN) + 10


class Budget:
    """Money spent and promised; a question is asked only when its dearest answer still fits under the ceiling."""

    def __init__(self, ceiling: float, prices: Mapping[str, Price], discount: float) -> None:
        """Promise and spend nothing yet."""
        self._ceiling = ceiling
        self._prices = prices
        self._discount = discount
        self._promises: dict[str, float] = {}
        self._promised = 0.0
        self._lock = threading.Lock()
        self.spent = 0.0

    def most(self, question: Question) -> float:
        """Reckon the dollars of the dearest answer."""
        return self._cost(question, guess_tokens(question), question.max_tokens)

    def reserve(self, question: Question) -> bool:
        """Promise those dollars, unless that breaks the ceiling."""
        most = self.most(question)
        with self._lock:
            if fits := self.spent + self._promised + most <= self._ceiling:
                self._promised += most
                self._promises[question.fingerprint] = most
            return fits

    def settle(self, question: Question, answer: Answer) -> None:
        """Spend what the answer cost in place of what was promised."""
        with self._lock:
            self.spent += self._cost(question, answer.input_tokens, answer.output_tokens)
        self.release(question)

    def release(self, question: Question) -> None:
        """Take the promise back, if there is one."""
        with self._lock:
            self._promised -= self._promises.pop(question.fingerprint, 0.0)

    def _cost(self, question: Question, input_tokens: float, output_tokens: float) -> float:
        price = self._prices[question.model]
        return self._discount * (input_tokens * price.input + output_tokens * price.output) / 1e6
