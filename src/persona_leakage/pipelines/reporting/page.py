"""What every report is made of: tables, statements of origin, and the self-contained page."""

import base64
import html
import re
from collections.abc import Mapping

import pandas as pd

from persona_leakage.domain.plan import Plan

_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto}
th, td {border: 1px solid #ddd; padding: .25rem .5rem; text-align: left}
th {background: #f4f4f4} img {max-width: 100%} code {background: #f4f4f4; padding: 0 .2rem}
"""


def render_page(report: str, figures: Mapping[str, str]) -> str:
    """Render a Markdown report as one HTML page.

    Args:
        report: Markdown, which refers to figures by file name.
        figures: file name → the HTML that takes the image's place.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(report)
    for name, figure in figures.items():
        body = re.sub(rf'<img src="{re.escape(name)}"[^>]*>', lambda _, html=figure: html, body)  # type: ignore[misc]
    title = html.escape(re.sub(r"^# ", "", report.splitlines()[0]))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'


def picture(png: bytes) -> str:
    """Write an image that needs no file beside the page."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def origin(plan: Plan) -> str:
    """Say what the numbers were computed from."""
    if plan.replayed_file:
        return f"Completions made elsewhere, last from `{plan.replayed_file}`."
    sampling = plan.evaluation.sampling
    return (
        f"Base model `{plan.base_model.name}` ({plan.base_model.revision}), {plan.evaluation.samples} completions a cell at "
        f"temperature {sampling.temperature}, top_p {sampling.top_p}, at most {sampling.max_tokens} tokens."
    )


def listing(points: pd.DataFrame) -> str:
    """List points as `condition (seed …)`."""
    seeds = points.groupby("condition", sort=False)["seed"].apply(lambda values: ", ".join(map(str, values)))
    return "; ".join(f"{condition} (seed {listed})" for condition, listed in seeds.items())


def said_rate(table: pd.DataFrame, suffix: str = "", prefix: str = "") -> list[str]:
    """Say every rate of a table as `hits/n = rate [interval]`; the columns may carry a prefix or a suffix."""
    columns = [table[f"{prefix}{name}{suffix}"] for name in ("hits", "n", "rate", "low", "high")]
    return [
        "not scored" if n == 0 else f"{hits}/{n} = {rate:.1%} [{low:.1%}, {high:.1%}]"
        for hits, n, rate, low, high in zip(*columns, strict=True)
    ]


def table(frame: pd.DataFrame) -> str:
    """Write a table as Markdown."""
    if frame.empty:
        return "*Nothing to show.*\n"
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(str(value).replace("|", "\\|") for value in row) + " |")
    return "\n".join(lines) + "\n"


def number(value: float, form: str) -> str:
    """Format a number; one that is not known is blank."""
    return "" if pd.isna(value) else f"{value:{form}}"


def interval(value: float, low: float, high: float) -> str:
    """Say a correlation with its interval; one that is not known is undefined."""
    return "undefined" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def split_points(rates: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the points behind a table of rates: the current ones, and the stale ones."""
    points = rates.groupby(["condition", "seed", "stale"], sort=False)["plan"].first().reset_index()
    stale = points["stale"].astype(bool)
    return points[~stale], points[stale]


def stale_note(stale: pd.DataFrame) -> list[str]:
    """Say which points are left out because other parameters made them; nothing if none is."""
    said = f"**Left out as stale** (ran under other parameters, run them again): {listing(stale)}.\n"
    return [said] if len(stale) else []
