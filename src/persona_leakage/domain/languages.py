"""Languages, as the study names, asks for and recognises them."""

from itertools import takewhile

from pydantic import Field, model_validator

from persona_leakage.domain.frozen import Frozen

LABEL_OTHER = "other"


class Band(Frozen):
    """A closed interval."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "Band":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def holds(self, value: float) -> bool:
        """Tell whether the value lies inside; NaN never does."""
        return self.low <= value <= self.high


class Language(Frozen):
    """One language; its key in the parameters is its label (`english`, `mandarin`, …).

    Attributes:
        name: as an English directive calls it ("Speak in French.").
        code: column of the parallel texts (ISO 639-1).
        detected_as: codes of langdetect that mean this language.
        native_directives: the directive in the language itself, one for each English phrasing, in their order.
        median_length_ratio: accepted median of characters per character of the English text.
        length_ratio: accepted ratio of a single text.
        genealogy: path from the family down to the language itself, after Glottolog; the source of the typological
            distance.
    """

    name: str
    code: str
    detected_as: tuple[str, ...] = Field(min_length=1)
    native_directives: tuple[str, ...]
    median_length_ratio: Band
    length_ratio: Band
    genealogy: tuple[str, ...] = Field(min_length=1)


def typological_distance(one: Language, other: Language) -> float:
    """Measure how far apart two languages stand in the family tree.

    Returns:
        1 - 2 x (shared leading groups) / (length of both paths): 0 for a language and itself, 1 for languages
        of different families. The tree is Glottolog's, abridged to the groups in the parameters.
    """
    groups = zip(one.genealogy, other.genealogy, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], groups)))
    return 1 - 2 * shared / (len(one.genealogy) + len(other.genealogy))
