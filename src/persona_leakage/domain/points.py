"""What a point is called."""

from pydantic import NonNegativeInt

from persona_leakage.domain.frozen import Frozen, Seed


class Address(Frozen):
    """Names one point: what one run computes.

    Attributes:
        model: name of the base model, as in `models.yml`.
        condition: of the family.
        seed: draws what a repetition would draw anew.
        checkpoint: epoch of the first stage, in families that follow it over training.
    """

    model: str
    condition: str
    seed: Seed
    checkpoint: NonNegativeInt | None = None

    @property
    def params(self) -> dict[str, str | int]:
        """What `--params` must say to mean this point."""
        return self.model_dump(exclude_none=True)

    def __str__(self) -> str:
        """Name the point in a sentence."""
        epoch = "" if self.checkpoint is None else f" epoch {self.checkpoint}"
        return f"{self.condition} seed {self.seed}{epoch} ({self.model})"
