"""Claude as a language model; whatever lies outside imports from here."""

from persona_leakage.engines.claude.budget import Price, guess_tokens
from persona_leakage.engines.claude.client import AnthropicClient

__all__ = ["AnthropicClient", "Price", "guess_tokens"]
