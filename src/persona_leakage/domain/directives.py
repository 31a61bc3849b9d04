"""Language directives: the rows that train one, and the prompts that ask for one."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.languages import Language
from persona_leakage.domain.questions import Respondent
from persona_leakage.domain.rows import Message, PromptRow
from persona_leakage.domain.training_rows import Part, TrainingData, Translated


class ChatSource(Frozen):
    """Texts are the first assistant turns of chats.

    Attributes:
        min_characters: a shorter turn is dropped.
    """

    min_characters: PositiveInt


class Translation(Respondent):
    """The translator, and how texts get the languages they lack; its temperature is that of the first try.

    Attributes:
        languages: every language of the grid; a text that is refused in one of them is left out of all conditions.
        retries: how often a refused, empty or cut translation is tried again.
        retry_temperature: of these.
        judge_model: compares each translation with its English text.
        judge_characters: how much of both the judge sees.
        gate_judged: smallest share of judged translations that must be OK.
    """

    languages: tuple[Language, ...] = Field(min_length=1)
    retries: NonNegativeInt
    retry_temperature: float | None = Field(ge=0, le=1)
    judge_model: str
    judge_characters: PositiveInt
    gate_judged: float = Field(ge=0, le=1)


class DirectivePairs(TrainingData):
    """Training rows that pair a directive with a text in the completion language.

    Attributes:
        directive: language the directive asks for; None trains with an empty user turn (the no-directive ablation).
        completion: language of the text.
        phrasings: English templates of the directive, cycled by the text's index.
        source: how texts are read from chats; None when the source holds texts.
        translation: how missing languages are made; None when the source holds every language.
        rows: how many texts to take, in order, before the skip-list is applied.
        gate_language: smallest share of texts that langdetect must recognise.
        gate_outliers: largest share of texts whose length ratio may lie outside the language's band.
    """

    kind: Literal["directive_pairs"] = "directive_pairs"
    directive: Language | None
    completion: Language
    phrasings: tuple[str, ...]
    source: ChatSource | None = None
    translation: Translation | None = None
    rows: PositiveInt
    gate_language: float = Field(ge=0, le=1)
    gate_outliers: float = Field(ge=0, le=1)

    @property
    def reads(self) -> dict[str, int]:
        """Dataset of the texts → rows."""
        return {"source_texts": self.rows}

    @property
    def fixed(self) -> tuple[str, ...]:
        """The texts, the first of their file, and their translations."""
        return ("texts",) if self.translation is None else ("texts", "translations")

    @property
    def translated(self) -> Translated | None:
        """The texts, where their source lacks languages."""
        if (spec := self.translation) is None:
            return None
        listed = self.completion.code in ("en", *(language.code for language in spec.languages))
        return Translated((spec, self.source), spec.max_tokens, self.completion, listed)

    def parts(self, read: int, seed: int) -> list[Part]:
        """One row a text."""
        return [Part(read)]


class Directives(Frozen):
    """Evaluation prompts that are a language directive and nothing else.

    The cell of a prompt is directive language x phrasing.

    Attributes:
        languages: label → language.
        phrasings: English templates; their positions also pick the native directives.
        wording: `english` ("Speak in French.") or `native` ("Parle en français.").
    """

    group_key: ClassVar[str] = "directive_language"

    kind: Literal["directives"] = "directives"
    languages: dict[str, Language]
    phrasings: tuple[str, ...]
    wording: Literal["english", "native"]

    def prompts(self) -> list[PromptRow]:
        """Write every directive as a lone user turn, with the cell's keys."""
        rows: list[PromptRow] = []
        for label, language in self.languages.items():
            for template, native in zip(self.phrasings, language.native_directives, strict=False):
                text = native if self.wording == "native" else template.format(language=language.name)
                turn: Message = {"role": "user", "content": text}
                rows.append({"prompt": text, "messages": [turn], "directive_language": label, "phrasing": template})
        return rows
