"""Write out the prompts that a set of them stands for."""

from collections.abc import Sequence

from persona_leakage.domain.personas import Persona, UserQuestion
from persona_leakage.domain.plan import Directives, PromptSet
from persona_leakage.domain.rows import Message, PromptRow


def written(prompts: PromptSet) -> list[PromptRow]:
    """Write one prompt a cell: a directive as a lone user turn, or a persona's system prompt with a question.

    Returns:
        Rows with `prompt` (the user turn), `messages` and the cell's keys.
    """
    if isinstance(prompts, Directives):
        return _directives(prompts)
    return persona_prompts(prompts.personas, prompts.questions)


def group_key(prompts: PromptSet) -> str:
    """Name the key of a cell whose prompts share a centroid."""
    return "directive_language" if isinstance(prompts, Directives) else "persona"


def persona_prompts(personas: Sequence[Persona], questions: Sequence[UserQuestion]) -> list[PromptRow]:
    """Write every question under every persona's system prompt."""
    return [
        {
            "prompt": question.question,
            "messages": asked(question.question, persona),
            "persona": persona.persona,
            "question": question.id,
        }
        for persona in personas
        for question in questions
    ]


def asked(question: str, persona: Persona | None) -> list[Message]:
    """Write the turns of a question; without a persona there is no system turn."""
    user: Message = {"role": "user", "content": question}
    return [user] if persona is None else [{"role": "system", "content": persona.prompt}, user]


def _directives(prompts: Directives) -> list[PromptRow]:
    rows: list[PromptRow] = []
    for label, language in prompts.languages.items():
        for template, native in zip(prompts.phrasings, language.native_directives, strict=False):
            text = native if prompts.wording == "native" else template.format(language=language.name)
            rows.append({"prompt": text, "messages": asked(text, None), "directive_language": label, "phrasing": template})
    return rows
