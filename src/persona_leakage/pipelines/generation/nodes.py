"""Write the evaluation prompts and sample their completions."""

from collections.abc import Sequence
from typing import Any

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.rows import CompletionRow, PromptRow


def write_prompts(plan: Plan) -> list[PromptRow]:
    """Write one prompt a cell: directive language x phrasing, as a lone user turn.

    Returns:
        Rows with `prompt` (the text), `messages` and the cell's keys.
    """
    prompts = plan.evaluation.prompts
    rows: list[PromptRow] = []
    for label, language in prompts.languages.items():
        for template, native in zip(prompts.phrasings, language.native_directives, strict=False):
            text = native if prompts.wording == "native" else template.format(language=language.name)
            rows.append(
                {
                    "prompt": text,
                    "messages": [{"role": "user", "content": text}],
                    "directive_language": label,
                    "phrasing": template,
                }
            )
    return rows


def sample_completions(
    generator: Generator, stack: ModelStack, prompts: Sequence[PromptRow], plan: Plan
) -> list[CompletionRow]:
    """Sample every prompt as often as the plan says.

    Returns:
        prompts x samples rows, each with its prompt's cell.
    """
    evaluation = plan.evaluation
    return generator.generate(stack, prompts, evaluation.samples, evaluation.sampling, plan.seed)


def adopt_completions(outside: Sequence[dict[str, Any]], plan: Plan) -> list[CompletionRow]:
    """Give completions made elsewhere the cell that their directive has here.

    Returns:
        The rows with `directive_language` as a label and `phrasing` as a template; every further key is kept.

    Raises:
        UserError: a row's directive language is none of the plan's, or there are no rows.
    """
    languages = plan.evaluation.prompts.languages
    label_of = {name.lower(): label for label, language in languages.items() for name in (label, language.name)}
    rows: list[CompletionRow] = []
    for line, row in enumerate(outside, 1):
        label = label_of.get(row["directive_language"].lower())
        if label is None:
            known = ", ".join(language.name for language in languages.values())
            here, given = f"{plan.completions_file}, line {line}", row["directive_language"]
            raise UserError(f"{here}: directive_language '{given}' is unknown; known: {known}")
        phrasing = row["prompt"].replace(languages[label].name, "{language}")
        rows.append({**row, "directive_language": label, "phrasing": phrasing})  # type: ignore[typeddict-item]
    if not rows:
        raise UserError(f"{plan.completions_file} holds no completions")
    return rows
