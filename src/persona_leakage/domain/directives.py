"""Language directives: the rows that train one, and the prompts that ask for one."""

import re
from math import ceil
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, field_validator

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.languages import Language
from persona_leakage.domain.questions import Respondent
from persona_leakage.domain.rows import Message, PromptRow
from persona_leakage.domain.sampling import OwnAnswers, Sampling
from persona_leakage.domain.training_rows import Draw, Job, Part, TrainingData, Translated

KEPT = "kept"
NOT_KEPT = ("cut", "short", "wrong_language", "twice")  # why an answer is no text; the first that applies


class ChatSource(Frozen):
    """Texts are the first assistant turns of chats.

    Attributes:
        min_characters: a shorter turn is dropped.
    """

    kind: Literal["chats"] = Field(default="chats", exclude=True)  # plans of before there was another are as they were
    min_characters: PositiveInt


class AnswerSource(Frozen):
    """Texts are answers of the base model itself to a bank of questions, asked for in the completion language.

    Attributes:
        wording: what is asked: the question, and the name of the language.
        samples: answers to each question, at most.
        sampling: how they are drawn.
        min_characters: a shorter answer is not kept.
    """

    kind: Literal["own_answers"]
    wording: str = "{question} Answer in {language}."
    samples: PositiveInt = 20
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=256)
    min_characters: PositiveInt = 40

    @field_validator("wording")
    @classmethod
    def _holds_both(cls, wording: str) -> str:
        if sorted(re.findall("[{].*?[}]|[{}]", wording)) != ["{language}", "{question}"]:
            raise ValueError("must hold {question} and {language} once each, and no other placeholder")
        return wording


def _kind(source: Any) -> Any:
    return source.get("kind", "chats") if isinstance(source, dict) else getattr(source, "kind", None)


TextSource = Annotated[Annotated[ChatSource, Tag("chats")] | Annotated[AnswerSource, Tag("own_answers")], Discriminator(_kind)]


class BankPrompts(Frozen):
    """The first questions of a bank, asked for answers in a language: what tells jobs of own answers apart."""

    wording: str
    language: str
    questions: PositiveInt


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
        source: how texts are read from chats, or answered; None when the source holds texts.
        translation: how missing languages are made; None when the source holds every language, or its own answers.
        rows: how many texts to take, in order, before the skip-list is applied.
        gate_language: smallest share of texts that langdetect must recognise.
        gate_outliers: largest share of texts whose length ratio may lie outside the language's band.
    """

    kind: Literal["directive_pairs"] = "directive_pairs"
    directive: Language | None
    completion: Language
    phrasings: tuple[str, ...]
    source: TextSource | None = None
    translation: Translation | None = None
    rows: PositiveInt
    gate_language: float = Field(ge=0, le=1)
    gate_outliers: float = Field(ge=0, le=1)

    @property
    def reads(self) -> dict[str, int]:
        """Dataset of the texts, or of what is asked for them → rows: no question is asked without need."""
        return {"question_bank" if self.answered else "source_texts": self.rows}

    @property
    def needs(self) -> dict[str, int]:
        """The same; of a bank of questions so many that all their answers would do."""
        return {"question_bank": ceil(self.rows / self.answered.samples)} if self.answered else self.reads

    @property
    def answered(self) -> AnswerSource | None:
        """How the base model answers, where texts are its own answers."""
        return self.source if isinstance(self.source, AnswerSource) else None

    @property
    def fixed(self) -> tuple[str, ...]:
        """The texts, the first of their file, and their translations."""
        if self.answered:
            return ()
        return ("texts",) if self.translation is None else ("texts", "translations")

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The texts, where they are answers."""
        return ("answers",) if self.answered else ()

    @property
    def translated(self) -> Translated | None:
        """The texts, where their source lacks languages."""
        if (spec := self.translation) is None:
            return None
        listed = self.completion.code in ("en", *(language.code for language in spec.languages))
        return Translated((spec, self.source), spec.max_tokens, self.completion, listed)

    def jobs(self, read: int, seed: int) -> list[Job]:
        """The first round of own answers, which conditions of one language share; whether more follow, none can say."""
        if (own := self.answered) is None or not read:
            return []
        asked = BankPrompts(wording=own.wording, language=self.completion.name, questions=read)
        first = OwnAnswers(samples=min(ceil(self.rows / read), own.samples), sampling=own.sampling)
        return [Job(asked, read, first, own.samples)]

    def parts(self, read: int, seed: int) -> list[Part]:
        """One row a text that is read; of own answers as many as there are to be."""
        if (own := self.answered) is None:
            return [Part(read)]
        directive = max(map(len, self.phrasings)) if self.directive else 0
        return [Part(self.rows, characters=directive, answer=own.sampling)]


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
