"""What a point is called."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from persona_leakage.domain.frozen import Frozen, Seed

DoseName = Literal["final", "matched"]
MATCHED: DoseName = "matched"
_AT_MATCHED = f"@{MATCHED}"  # ends the name of a series


class Address(Frozen):
    """Names one point: what one run computes.

    Attributes:
        model: name of the base model, as in `models.yml`.
        condition: of the family.
        seed: draws what a repetition would draw anew.
        checkpoint: epoch of the first stage, in families that follow it over training.
        dose: how far the stage that leaks is trained: to its end, or as far as `domain.dose.Dose` says.
    """

    model: str
    condition: str
    seed: Seed
    checkpoint: NonNegativeInt | None = None
    # a point of the end of training is called what it was called before there were others
    dose: DoseName = Field(default="final", exclude_if=lambda dose: dose == "final")

    @property
    def params(self) -> dict[str, str | int]:
        """What names this point in tables, and in `--params` where they name no dose."""
        return self.model_dump(exclude_none=True)

    @property
    def overrides(self) -> dict[str, str | int]:
        """What parameters must be changed to for a run of this point, whichever they name."""
        return {**self.params, "dose": self.dose}

    @property
    def series(self) -> str:
        """What reports never pool: the model, and the dose where it is not the end of training."""
        return series_of(self.model, self.dose)

    def __str__(self) -> str:
        """Name the point in a sentence."""
        epoch = "" if self.checkpoint is None else f" epoch {self.checkpoint}"
        dose = " at matched dose" if self.dose == MATCHED else ""
        return f"{self.condition} seed {self.seed}{epoch}{dose} ({self.model})"


def series_of(model: str, dose: DoseName) -> str:
    """Name the series of a model at a dose."""
    return model + (_AT_MATCHED if dose == MATCHED else "")


def model_of(series: str) -> str:
    """Name the model of a series."""
    return series.removesuffix(_AT_MATCHED)


def dose_of(series: str) -> DoseName:
    """Name the dose of a series."""
    return MATCHED if series.endswith(_AT_MATCHED) else "final"
