"""Which language a completion is in, and what that means for a directive."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.frozen import Frozen, Seed
from persona_leakage.domain.languages import Language
from persona_leakage.domain.questions import Respondent

Role = Literal["trained_directive", "own_language", "trained_directive+own_language", "bystander"]


class Judge(Respondent):
    """A language model that names the language of a completion.

    Attributes:
        shows_directive: also show it the directive; the original's judge saw it and then took compliance for language.
    """

    shows_directive: bool


class LanguageScoring(Frozen):
    """Which language each completion is in.

    Attributes:
        languages: label → language; anything else is `other`.
        trained_directive: label of the directive language of training, if any.
        completion: label of the completion language of training, if any.
        min_characters: a stripped completion shorter than this is `other`.
        detect_characters: langdetect sees this many leading characters.
        detector_seed: seed of langdetect, which is random by nature.
        mixed_share: a completion is mixed when a second language covers at least this share of its characters.
        judge: a language model as a further label; None asks none.
    """

    kind: Literal["language"] = "language"
    languages: dict[str, Language]
    trained_directive: str | None
    completion: str | None
    min_characters: NonNegativeInt
    detect_characters: PositiveInt
    detector_seed: Seed
    mixed_share: float = Field(gt=0, le=1)
    judge: Judge | None = None

    @property
    def asks(self) -> Literal["judge"] | None:
        """The step that asks a language model, if one does."""
        return "judge" if self.judge else None

    @model_validator(mode="after")
    def _told_apart(self) -> "LanguageScoring":
        for which, how in (("detected_as", "detected as"), ("cross_check_codes", "cross-checked as")):
            labels: dict[str, str] = {}
            for label, language in self.languages.items():
                for code in getattr(language, which):
                    if (other := labels.setdefault(code, label)) != label:
                        raise ValueError(f"the languages '{other}' and '{label}' are both {how} '{code}'; evaluate one")
        return self

    def role(self, directive_language: str) -> Role:
        """Name the role of a directive language in this condition; only bystanders are spill."""
        trained, own = directive_language == self.trained_directive, directive_language == self.completion
        if trained and own:
            return "trained_directive+own_language"
        return "trained_directive" if trained else "own_language" if own else "bystander"
