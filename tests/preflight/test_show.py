"""What is found reaches the reader as it was written."""

import io

import pytest
from rich.console import Console

from persona_leakage.preflight.checks import Check, State
from persona_leakage.preflight.examination import Examination, show


@pytest.mark.parametrize("state", ["ok", "warning", "blocked", "not needed"])
def test_brackets_are_no_markup(state: State) -> None:
    printed = io.StringIO()
    check = Check("vllm[red]", state, "known: [a], [/b]", "pip install '.[vllm]'")

    show(Examination([check], [], 0, 0), Console(file=printed))

    (line,) = (line for line in printed.getvalue().splitlines() if "pip" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["vllm[red]", state, "known: [a], [/b]", "pip install '.[vllm]'"]
