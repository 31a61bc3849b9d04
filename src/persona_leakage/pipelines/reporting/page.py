"""What every report is made of: tables, statements of origin, and the self-contained page."""

import base64
import html
import re

import pandas as pd

_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto}
th, td {border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; white-space: pre-line}
th {background: #f4f4f4} img {max-width: 100%} code {background: #f4f4f4; padding: 0 .2rem}
"""

# what Markdown would read as markup: in a table, and (an underscore between letters is none) within a word
_MARKUP = re.compile(r"[\\`*<|~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|(?<=\])\(")


def render_page(report: str, **figures: bytes | str) -> str:
    """Render a Markdown report as one HTML page.

    Args:
        report: Markdown, which refers to figures by file name.
        **figures: name of a figure, its file's without `.png` → the PNG, or the SVG that takes its place.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(report)
    for name, figure in figures.items():
        if isinstance(figure, bytes):
            figure = f'<img src="data:image/png;base64,{base64.b64encode(figure).decode()}">'
        body = re.sub(rf'<img src="{re.escape(name)}\.png"[^>]*>', lambda _, html=figure: html, body)  # type: ignore[misc]
    title = html.escape(re.sub(r"^# ", "", report.splitlines()[0]))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'


def say_rates(table: pd.DataFrame, suffix: str = "", prefix: str = "") -> list[str]:
    """Say every rate of a table as `hits/n = rate [interval]`; the columns may carry a prefix or a suffix."""
    columns = [table[f"{prefix}{name}{suffix}"] for name in ("hits", "n", "rate", "low", "high")]
    return [
        "not scored" if n == 0 else f"{hits}/{n} = {rate:.1%} [{low:.1%}, {high:.1%}]"
        for hits, n, rate, low, high in zip(*columns, strict=True)
    ]


def say_differences(table: pd.DataFrame, name: str) -> list[str]:
    """Say every difference of two rates in a table as `difference [interval]`; one that is not known is blank."""
    columns = [table[column] for column in (name, f"{name}_low", f"{name}_high")]
    return [
        "" if pd.isna(value) else f"{value:+.1%} [{low:+.1%}, {high:+.1%}]" for value, low, high in zip(*columns, strict=True)
    ]


def as_written(text: object) -> str:
    """Write a text into Markdown so that it reads as it is written, on one line."""
    escaped = _MARKUP.sub(r"\\\g<0>", str(text))
    return escaped.replace("\r", "&#13;").replace("\n", "&#10;")


def as_code(text: object) -> str:
    """Write a text into Markdown as code, on one line."""
    said = str(text).replace("\r", " ").replace("\n", " ")
    fence = "`" * (1 + max(map(len, re.findall("`+", said)), default=0))
    return f"{fence}{said}{fence}" if len(fence) == 1 else f"{fence} {said} {fence}"


def table(frame: pd.DataFrame) -> str:
    """Write a table as Markdown; every cell and title reads as it is written."""
    if frame.empty:
        return "*Nothing to show.*\n"
    lines = ["| " + " | ".join(map(as_written, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(map(as_written, row)) + " |")
    return "\n".join(lines) + "\n"


def write_numbers(frame: pd.DataFrame, **forms: str) -> pd.DataFrame:
    """Write the numbers of columns, each in the format of its name; one that is not known is blank."""
    return frame.assign(**{name: [number(value, form) for value in frame[name]] for name, form in forms.items()})


def number(value: float, form: str) -> str:
    """Format a number; one that is not known is blank."""
    return "" if pd.isna(value) else f"{value:{form}}"


def interval(value: float, low: float, high: float, why: str = "") -> str:
    """Say a correlation with its interval, or why it has none; one that is not known is undefined."""
    if pd.isna(value):
        return "undefined"
    if pd.isna(low):
        return f"{value:.2f} (no interval{f': {why}' if why else ''})"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
