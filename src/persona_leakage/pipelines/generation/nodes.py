"""Write the evaluation prompts and sample their completions."""

from collections.abc import Sequence
from typing import Any

from persona_leakage.domain.directives import Directives
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.rows import CompletionRow, PromptRow


def write_prompts(plan: Plan) -> list[PromptRow]:
    """Write one prompt a cell: rows with `prompt` (the user turn), `messages` and the cell's keys."""
    return plan.evaluation.prompts.prompts()


def sample_completions(
    generator: Generator, stack: ModelStack, prompts: Sequence[PromptRow], plan: Plan
) -> list[CompletionRow]:
    """Sample every prompt as often as the plan says.

    Returns:
        prompts x samples rows, each with its prompt's cell.
    """
    evaluation = plan.evaluation
    return generator.generate(stack, prompts, evaluation.samples, evaluation.sampling, plan.seed + evaluation.seed_offset)


def adopt_completions(outside: Sequence[dict[str, Any]], plan: Plan) -> list[CompletionRow]:
    """Give completions made elsewhere the cell that their directive has here.

    Returns:
        The rows with `directive_language` as a label and `phrasing` as a template; `further` is kept as it is.

    Raises:
        UserError: a row's directive language is none of the plan's, two of its names hide one row twice, or there are no rows.
    """
    languages = expect(plan.evaluation.prompts, Directives).languages
    label_of = {name.lower(): label for label, language in languages.items() for name in (label, language.name)}
    rows: list[CompletionRow] = []
    first: dict[tuple[str, str, int], int] = {}
    for line, row in enumerate(outside, 1):
        here, given = f"{plan.replayed_file}, line {line}", row["directive_language"]
        if (label := label_of.get(given.lower())) is None:
            known = ", ".join(language.name for language in languages.values())
            raise UserError(f"{here}: directive_language '{given}' is unknown; known: {known}")
        if (seen := first.setdefault((label, row["prompt"], row["sample_index"]), line)) != line:
            raise UserError(
                f"{here}: this sample of '{row['prompt']}' is in line {seen} too, under another name of {label}; remove one"
            )
        phrasing = row["prompt"].replace(languages[label].name, "{language}")
        rows.append({**row, "directive_language": label, "phrasing": phrasing})  # type: ignore[typeddict-item]
    if not rows:
        raise UserError(f"{plan.replayed_file} holds no completions; give a file that has rows")
    return rows


def adopt_persona_completions(outside: Sequence[dict[str, Any]], plan: Plan) -> list[CompletionRow]:
    """Take completions of personas made elsewhere.

    Returns:
        The rows as they are, `further` too.

    Raises:
        UserError: there are no rows, a cell has several sources or designs, or a persona is its cell's source in some rows
            only.
    """
    if not outside:
        raise UserError(f"{plan.replayed_file} holds no completions; give a file that has rows")
    sources: dict[str, set[str]] = {}
    told: dict[tuple[str, str], bool] = {}
    designs: dict[str, str | None] = {}
    for row in outside:
        cell, persona = row["cell"], row["persona"]
        if designs.setdefault(cell, row.get("design")) != row.get("design"):
            raise UserError(f"{plan.replayed_file}: cell '{cell}' is not of one design in all of its rows; keep one")
        if told.setdefault((cell, persona), row["is_source"]) != row["is_source"]:
            raise UserError(
                f"{plan.replayed_file}: is_source of persona '{persona}' in cell '{cell}' is true in some rows and false in "
                "others; make it one of them"
            )
        if row["is_source"]:
            sources.setdefault(cell, set()).add(persona)
    if several := [cell for cell, names in sources.items() if len(names) > 1]:
        names = ", ".join(sorted(sources[several[0]]))
        raise UserError(f"{plan.replayed_file}: cell '{several[0]}' marks several personas as its source ({names}); keep one")
    return list(outside)  # type: ignore[arg-type]
