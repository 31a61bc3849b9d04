"""What the pipelines ask of an engine; the implementations live in `persona_leakage.engines`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.rows import CompletionRow, Message, PromptRow, TrainRow
from persona_leakage.domain.sampling import Sampling

# environment variable: how many processes share this machine's GPU
POINTS_AT_ONCE = "PERSONA_LEAKAGE_POINTS_AT_ONCE"
# environment variable: set where a process computes many points, so that it reads the base model once
KEEP_BASE_MODEL = "PERSONA_LEAKAGE_KEEP_BASE_MODEL"


class TrainedAdapter(NamedTuple):
    """An adapter on disk, and the record of its training (JSON-able)."""

    adapter: Adapter
    log: dict[str, object]


class Trainer(Protocol):
    """Trains LoRA adapters."""

    def train(self, stack: ModelStack, rows: Sequence[TrainRow], recipe: Recipe, seed: int) -> dict[str, TrainedAdapter]:
        """Train a fresh adapter on top of the stack; rows that `fitting` leaves out are not trained on.

        Returns:
            checkpoint → adapter; `final` is the last one. The stack's own weights are not changed.
        """
        ...

    def fitting(self, base: BaseModel, rows: Sequence[TrainRow], recipe: Recipe) -> Sequence[TrainRow]:
        """Keep the rows that the recipe's `max_length` leaves something of to train on.

        Raises:
            UserError: none is left.
        """
        ...


class Generator(Protocol):
    """Samples completions."""

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        """Sample every prompt `samples` times.

        Returns:
            `len(prompts) * samples` rows, ordered by prompt and then by sample index.
        """
        ...


class Extractor(Protocol):
    """Reads hidden states."""

    def last_token_states(
        self, stack: ModelStack, chats: Sequence[list[Message]], layers: Sequence[int], batch_size: int
    ) -> dict[int, np.ndarray]:
        """Return, for each layer, the last prompt token's hidden state of every chat.

        Returns:
            layer → float32 array of shape (chats, hidden size): the output of decoder block `layer` (0-based), before the
            final norm, at the last token of system + user + generation prompt.
        """
        ...

    def completion_states(
        self,
        stack: ModelStack,
        chats: Sequence[list[Message]],
        completions: Sequence[str],
        layers: Sequence[int],
        batch_size: int,
    ) -> dict[int, np.ndarray]:
        """Return, for each layer, the mean hidden state over the tokens of each chat's completion, which is not blank.

        Returns:
            layer → float32 array of shape (chats, hidden size), as of `last_token_states`.
        """
        ...


class Token(NamedTuple):
    """One token of a text: its id, and the characters from `start` up to `end` that it stands for."""

    id: int
    start: int
    end: int


class Tokenizer(Protocol):
    """Splits texts into a model's tokens."""

    def tokens(self, base: BaseModel, texts: Sequence[str]) -> list[list[Token]]:
        """Tokenise every text as it stands, without template or special tokens."""
        ...


class LanguageModel(Protocol):
    """Answers questions, and remembers its answers."""

    def ask(self, questions: Sequence[Question], purpose: str) -> list[Answer]:
        """Answer every question, from the store of `purpose` where it can.

        Returns:
            One answer a question, in their order; a failure is an outcome, not an exception.
        """
        ...
