"""Reports read as their names are written: in a table, in a sentence, and on the page."""

from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.pipelines.reporting.page import as_code, as_written, render_page, table

NAMES = (
    "x|y", "x\\|y", "<b>z</b>", "a*b*c", "**b**", "`q`", "``", "_lead_", "tail_", "snake_case_name", "[l](http://e)",
    "![i](x.png)", "two\nlines", "two\r\nlines", "a\n\nb", "| a |\n| - |", "&amp;", "&#42;", "a & b", "\\", "a\\",
    "~~s~~", "$x_1$ $y$", "<script>1</script>", "<!-- c -->", "<http://e>", "# h", "- i", "1. n", "日本", "_日_",
    "https://e", "None", "3/4 = 75.0% [30.1%, 95.4%]",
)  # fmt: skip


class _Cells(HTMLParser):
    """The text of every cell, paragraph and piece of code, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(page[page.index("<body>") :])

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag in ("td", "th", "p"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def read(report: str) -> _Cells:
    return _Cells(render_page(f"# title\n\n{report}\n"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_table_is_one_cell_and_reads_as_it_is_written(name: str) -> None:
    made = table(pd.DataFrame({"first": [name, "x"], name: [1, 2]}))

    assert len(made.splitlines()) == 4
    page = read(made)
    assert [text.strip() for text in page.texts] == ["first", name.strip(), name.strip(), "1", "x", "2"]
    assert set(page.tags) == {"body", "h1", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_sentence_reads_as_it_is_written(name: str) -> None:
    page = read(f"Left out: {as_written(name)} (seed 4).")

    assert page.texts[0].strip() == f"Left out: {name} (seed 4)."
    assert set(page.tags) == {"body", "h1", "p"}


@pytest.mark.parametrize("name", [name for name in NAMES if "\n" not in name])
def test_a_path_is_code_whatever_is_in_it(name: str) -> None:
    page = read(f"from {as_code(name)}.")

    assert page.texts[0].strip() == f"from {name}."
    assert page.tags.count("code") == 1


PIECES = st.lists(st.sampled_from([*"|\\`*_[]()<>&;!~#$-+ \nab1é", "&lt;", "](", "\\|", "<a>"]), min_size=1, max_size=9)


@settings(max_examples=300, deadline=None)
@given(name=PIECES.map("".join).filter(lambda name: name.strip() == name and "" not in name.split("\n")))
def test_any_name_is_one_cell(name: str) -> None:
    page = read(table(pd.DataFrame({"a": [name], "b": [0]})))

    assert page.texts[2].split() == name.split()
    assert page.tags.count("td") == 2


def test_what_needs_no_escape_stays_as_people_read_it() -> None:
    assert as_written("kindergarten_teacher 3/4 = 75.0% [30.1%, 95.4%] (R&D, 'x', $1)") == (
        "kindergarten_teacher 3/4 = 75.0% [30.1%, 95.4%] (R&D, 'x', $1)"
    )


def test_figures_stand_where_the_report_names_them() -> None:
    page = render_page("# a <b>\n\n![One](one.png)\n\n![Two](two.png)\n", one=b"png", two="<svg>two</svg>")

    assert "<title>a &lt;b&gt;</title>" in page
    assert 'src="data:image/png;base64,cG5n"' in page
    assert "<p><svg>two</svg></p>" in page
