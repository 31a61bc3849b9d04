"""Check that each number on a page of results stands in a row that it cites: `check_numbers.py PAGE…`.

A block of a page (paragraph, list item, table) cites rows by links such as `[rows](cells.csv "arm=benign; seed=42|137")`: the
file beside the page, and which of its rows by their columns (all without a title; of JSON, a path such as
`run.parameters.seed`). A table takes the citations of the paragraph above it too. Every number of the block, written or spelt
out, must be a value of one of these rows as it is rounded on the page (a share as per cent or points too), stand in the
text of one, or be how many there are. Code spans and names such as `SmolLM2-135M` are no numbers.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

_CITATION = re.compile(r"""\[[^\]]*\]\((?P<file>[\w./-]+\.(?:csv|json))(?:\s+"(?P<rows>[^"]*)")?\)""")
_LINK = re.compile(r"""!?\[(?P<label>[^\]]*)\]\([^)]*\)""")
_CODE = re.compile(r"`[^`]*`|<!--.*?-->")
_NUMBER = re.compile(r"(?P<sign>(?<![\w)\]])[-+])?(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?P<unit>%| points?\b)?")
_SPELT = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
_WORDS = {word: place for place, word in enumerate(_SPELT, 2)}


def check(page: Path) -> list[str]:
    """Find what is wrong with a page's numbers.

    Returns:
        One line a fault: a number that no cited row has, a block with numbers and without a citation, a citation of nothing.
    """
    faults: list[str] = []
    above: list[tuple[str, str]] = []
    for line, block in _blocks(page.read_text(encoding="utf-8")):
        own = [(found["file"], found["rows"] or "") for found in _CITATION.finditer(block)]
        cited = own + (above if block.startswith("|") else [])
        above = own
        numbers = list(_numbers(block))
        if numbers and not cited:
            faults.append(f"{page}:{line}: {', '.join(numbers)}: no row of a table is cited")
            continue
        values: list[Any] = []
        for file, rows in cited:
            try:
                values += _read(page.parent / file, rows)
            except (OSError, LookupError, ValueError) as error:
                faults.append(f'{page}:{line}: ({file} "{rows}"): {error}')
        faults += [
            f"{page}:{line}: {number}: in no cited row" for number in numbers if not any(_says(number, of) for of in values)
        ]
    return faults


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Part a page into paragraphs, list items and tables, each with its first line; headings are none."""
    block: list[str] = []
    start = 1
    for place, line in enumerate([*text.splitlines(), ""], 1):
        if block and (not line.strip() or line.startswith(("- ", "#")) or line.startswith("|") != block[0].startswith("|")):
            yield start, "\n".join(block)
            block = []
        if line.strip() and not line.startswith("#"):
            start = start if block else place
            block.append(line)


def _numbers(block: str) -> Iterator[str]:
    shown = _LINK.sub(lambda link: link["label"], _CODE.sub(" ", _CITATION.sub(" ", block)))
    for found in _NUMBER.finditer(shown):
        before, after = shown[: found.start("digits")][-2:], shown[found.end("digits") :][:1]
        if not (re.search(r"[A-Za-z_.\d]$|[A-Za-z]-$", before) or re.match(r"[A-Za-z_]", after)):
            yield found[0]
    for word in re.findall(r"[A-Za-z]+", shown):
        if word.lower() in _WORDS:
            yield word


def _read(file: Path, rows: str) -> list[Any]:
    """Take the values of the cited rows of a table and how many these are, or what stands at a path of a JSON file."""
    if file.suffix == ".json":
        found = json.loads(file.read_text(encoding="utf-8"))
        for key in filter(None, rows.split(".")):
            if not isinstance(found, dict) or key not in found:
                raise LookupError(f"there is no {key}")
            found = found[key]
        return list(_leaves(found))
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for condition in filter(None, (part.strip() for part in rows.split(";"))):
        column, sign, wanted = condition.partition("=")
        if not sign or column not in table:
            raise LookupError(f"'{condition}' is no COLUMN=VALUE of its columns")
        missing = [value for value in wanted.split("|") if value not in set(table[column])]
        if missing:
            raise LookupError(f"no such row has {column} '{missing[0]}'")
        table = table[table[column].isin(wanted.split("|"))]
    return [str(len(table)), *(value for row in table.itertuples(index=False) for value in row if value)]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield str(value)


def _says(number: str, value: str) -> bool:
    """Tell whether a value, rounded as the number is, is this number; of a text, whether it has the number."""
    if number.lower() in _WORDS:
        number = str(_WORDS[number.lower()])
    try:
        known = float(value)
    except ValueError:
        return any(_plain(number) == _plain(found) for found in _numbers(value))
    found = _NUMBER.fullmatch(number)
    assert found
    digits = found["digits"].replace(",", "")
    shown = float(digits) * (-1 if found["sign"] == "-" else 1)
    known = abs(known) if found["sign"] is None else known  # a minus may stand in words: "falls by 3 points"
    places = digits.partition(".")[2]
    half = 0.5 * 10.0 ** -len(places) * (1 + 1e-9) if places or found["unit"] else 0  # a bare integer is a count
    scales = {"%": (100,), None: (1,)}.get(found["unit"], (1, 100))
    return any(abs(known * scale - shown) <= half for scale in scales)


def _plain(number: str) -> str:
    return number.replace(",", "").removesuffix(" points").removesuffix(" point").removeprefix("+")


if __name__ == "__main__":
    found = [fault for page in sys.argv[1:] for fault in check(Path(page))]
    print("\n".join(found) or f"every number of {len(sys.argv) - 1} pages stands in a row that it cites")
    sys.exit(bool(found))
