"""Languages, as the study names, asks for and recognises them."""

from itertools import takewhile

from pydantic import Field, model_validator

from persona_leakage.domain.frozen import Frozen

LABEL_OTHER = "other"
# what the two detectors know; each is silent about any other language
LANGDETECT_CODES = (
    "af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi",
    "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne", "nl", "no", "pa", "pl", "pt", "ro",
    "ru", "sk", "sl", "so", "sq", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh-cn", "zh-tw",
)  # fmt: skip
LINGUA_CODES = (
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo", "es", "et", "eu", "fa",
    "fi", "fr", "ga", "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "ko", "la", "lg", "lt",
    "lv", "mi", "mk", "mn", "mr", "ms", "nb", "nl", "nn", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sn", "so", "sq",
    "sr", "st", "sv", "sw", "ta", "te", "th", "tl", "tn", "tr", "ts", "uk", "ur", "vi", "xh", "yo", "zh", "zu",
)  # fmt: skip


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
        cross_checked_as: codes of lingua that mean it, where they are others than `code`.
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
    # a plan without it is identified as it was before there was one
    cross_checked_as: tuple[str, ...] = Field(default=(), exclude_if=lambda codes: not codes)

    @property
    def cross_check_codes(self) -> tuple[str, ...]:
        """Codes of lingua that mean this language."""
        return self.cross_checked_as or (self.code,)

    @model_validator(mode="after")
    def _detectable(self) -> "Language":
        if unknown := [code for code in self.detected_as if code not in LANGDETECT_CODES]:
            known = ", ".join(LANGDETECT_CODES)
            raise ValueError(f"langdetect knows no '{unknown[0]}', so detected_as would find nothing; known: {known}")
        if unknown := [code for code in self.cross_check_codes if code not in LINGUA_CODES]:
            known = ", ".join(LINGUA_CODES)
            raise ValueError(
                f"lingua, which cross-checks, knows no '{unknown[0]}'; list in cross_checked_as which of its codes mean "
                f"{self.name} (Norwegian: nb, nn); known: {known}"
            )
        return self


def typological_distance(one: Language, other: Language) -> float:
    """Measure how far apart two languages stand in the family tree.

    Returns:
        1 - 2 x (shared leading groups) / (length of both paths): 0 for a language and itself, 1 for languages
        of different families. The tree is Glottolog's, abridged to the groups in the parameters.
    """
    groups = zip(one.genealogy, other.genealogy, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], groups)))
    return 1 - 2 * shared / (len(one.genealogy) + len(other.genealogy))
