"""The tokens of texts, with their offsets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.protocols import Token
from persona_leakage.engines.base_model import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class ModelTokenizer:
    """Splits texts with the tokenizer of a base model; loads no weights.

    Attributes:
        cache: where base models are.
    """

    cache: Path

    def tokens(self, base: BaseModel, texts: Sequence[str]) -> list[list[Token]]:
        """Tokenise every text; see `domain.protocols.Tokenizer`."""
        if not texts:
            return []
        tokenizer = load_tokenizer(base, self.cache)
        encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [
            [Token(number, start, end) for number, (start, end) in zip(ids, offsets, strict=True)]
            for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
