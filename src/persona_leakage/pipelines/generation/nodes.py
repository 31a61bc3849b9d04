"""Write the evaluation prompts and sample their completions."""

from collections.abc import Sequence

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
