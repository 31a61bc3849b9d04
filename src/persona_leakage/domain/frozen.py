"""Base class of every typed value, and the fingerprint that identifies one by its content."""

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from persona_leakage.domain.errors import UserError


class Frozen(BaseModel):
    """An immutable value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Validate like pydantic does, but fail with one line that names the key and the value.

        Raises:
            UserError: `obj` does not fit the type.
        """
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as error:
            raise UserError(one_line(error)) from error


def one_line(error: ValidationError) -> str:
    """Say every problem of a validation error as `key: problem (got value)`, joined by semicolons."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']} (got {problem['input']!r:.80})"
        for problem in error.errors()
    )


def fingerprint(*parts: Any) -> str:
    """Identify values by content: 16 hex digits of the SHA-256 of their canonical JSON.

    Args:
        *parts: JSON-able values or `Frozen` ones.
    """
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    canonical = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
