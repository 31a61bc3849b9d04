"""The report, as Markdown and as one self-contained page."""

import base64
import html
import re

import pandas as pd

from persona_leakage.domain.plan import Plan

FIGURES = {"spill_matrix.png": "Spill matrix", "conditions.png": "Conditions", "published.png": "Published rates"}

_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto}
th, td {border: 1px solid #ddd; padding: .25rem .5rem; text-align: left}
th {background: #f4f4f4} img {max-width: 100%} code {background: #f4f4f4; padding: 0 .2rem}
"""


def write_report(
    rates: pd.DataFrame,
    spill: pd.DataFrame,
    verdicts: pd.DataFrame,
    published_cells: pd.DataFrame,
    correlations: pd.DataFrame,
    plan: Plan,
) -> str:
    """Write the report over every current point; every number in it stands in one of the tables.

    Returns:
        Markdown; the figures are referred to by the names they are saved under, beside it.
    """
    current_rates = rates[~rates["stale"]]
    points = rates.groupby(["condition", "seed", "stale"], sort=False)["plan"].first().reset_index()
    current, stale = points[~points["stale"]], points[points["stale"]]
    parts = [
        f"# {plan.family}: what spills\n",
        f"{_origin(plan)} {len(current)} points: {_listing(current)}. Labels by langdetect; every rate is over all "
        "completions of its cells, with a Wilson 95% interval; `other` counts as a label, not as missing.\n",
    ]
    if len(stale):
        parts.append(f"**Left out as stale** (ran under other parameters, run them again): {_listing(stale)}.\n")
    without_baseline = spill.loc[spill["baseline_rate"].isna(), "condition"].unique()
    if len(without_baseline):
        parts.append(f"**No baseline with the same evaluation has run** for: {', '.join(without_baseline)}.\n")
    unlabelled = current_rates[(current_rates["metric"] == "judge:unlabelled") & (current_rates["phrasing"] == "all")]
    if unlabelled["hits"].sum():
        parts.append(
            f"**The judge left {unlabelled['hits'].sum()} of {unlabelled['n'].sum()} completions without a label**: they are "
            "in no denominator of a `judge:` rate; `judge_agreement.json` of each point has the causes.\n"
        )
    parts += [
        "## Spill matrix\n",
        "Only cells without a mark are spill: T is the directive of training, O the completion language's own directive.\n",
        "![Spill matrix](spill_matrix.png)\n",
        "## Claims\n",
        _table(verdicts),
        "## Conditions\n",
        "![Conditions](conditions.png)\n",
        "Contamination by phrasing; a mean that hides a split between phrasings is no result.\n",
        _table(_shown_cells(spill)),
        "## Correlations over bystander cells\n",
        "A correlation is over cells, which share conditions and prompts; its interval does not know that.\n",
        _table(_shown_correlations(correlations)),
        "![Published rates](published.png)\n",
        _table(_shown_published(published_cells)),
    ]
    return "\n".join(parts)


def render_page(report: str, spill_figure: bytes, conditions_figure: bytes, published_figure: bytes) -> str:
    """Render the report as one HTML page with its figures inside."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(report)
    for name, figure in zip(FIGURES, (spill_figure, conditions_figure, published_figure), strict=True):
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{base64.b64encode(figure).decode()}"')
    title = html.escape(re.sub(r"^# ", "", report.splitlines()[0]))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'


def _origin(plan: Plan) -> str:
    if plan.completions_file:
        return f"Completions made elsewhere, last from `{plan.completions_file}`."
    sampling = plan.evaluation.sampling
    return (
        f"Base model `{plan.base_model.name}` ({plan.base_model.revision}), {plan.evaluation.samples} completions a cell at "
        f"temperature {sampling.temperature}, top_p {sampling.top_p}, at most {sampling.max_tokens} tokens."
    )


def _listing(points: pd.DataFrame) -> str:
    seeds = points.groupby("condition", sort=False)["seed"].apply(lambda values: ", ".join(map(str, values)))
    return "; ".join(f"{condition} (seed {listed})" for condition, listed in seeds.items())


def _shown_cells(spill: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": spill["condition"],
            "directive language": spill["directive_language"],
            "phrasing": spill["phrasing"],
            "role": spill["role"],
            "seeds": spill["seeds"],
            "contamination": _rate(spill, ""),
            "following": _rate(spill, "", "following_"),
            "baseline": ["not run" if said == "not scored" else said for said in _rate(spill, "", "baseline_")],
        }
    )


def _shown_published(cells: pd.DataFrame) -> pd.DataFrame:
    keys = cells[["condition", "directive_language", "role"]].rename(columns={"directive_language": "directive language"})
    return keys.assign(ours=_rate(cells, ""), published=_rate(cells, "_published"))


def _shown_correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "contamination with": correlations["with"],
            "scope": correlations["scope"],
            "layer": ["" if pd.isna(layer) else str(int(layer)) for layer in correlations["layer"]],
            "n": correlations["n"],
            "Spearman": [
                "undefined" if pd.isna(row.rho) else f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}]"
                for row in correlations.itertuples()
            ],
            "p": ["" if pd.isna(p) else f"{p:.3f}" for p in correlations["p"]],
        }
    )


def _rate(table: pd.DataFrame, suffix: str, prefix: str = "") -> list[str]:
    columns = [table[f"{prefix}{name}{suffix}"] for name in ("hits", "n", "rate", "low", "high")]
    return [
        "not scored" if n == 0 else f"{hits}/{n} = {rate:.1%} [{low:.1%}, {high:.1%}]"
        for hits, n, rate, low, high in zip(*columns, strict=True)
    ]


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return "*Nothing to show.*\n"
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(str(value).replace("|", "\\|") for value in row) + " |")
    return "\n".join(lines) + "\n"
