"""The check that numbers on the pages of results stand in the rows that they cite."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs/results/check_numbers.py"
TABLE = """arm,seed,rate,low,hits,n,p,evidence
benign,42,0.0966,0.0804,1480,3080,0.0035,"5 of 7 inside; 31/80 = 38.8% [28.8%, 49.7%]"
em,42,0.1042,0.0912,321,3080,,none
em,137,-0.0721,0.0,0,12,,none
"""


@pytest.fixture
def faults(tmp_path):
    spec = importlib.util.spec_from_file_location("check_numbers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "cells.csv").write_text(TABLE)
    (tmp_path / "record.json").write_text(json.dumps({"run": {"parameters": {"seeds": [42, 137], "samples": 10}}}))

    def check(text):
        page = tmp_path / "index.md"
        page.write_text(text)
        return [fault.removeprefix(f"{page}:") for fault in module.check(page)]

    return check


BENIGN, EM = '[rows](cells.csv "arm=benign")', '[rows](cells.csv "arm=em; seed=42")'


@pytest.mark.parametrize(
    "said",
    [
        f"Leakage is 9.7% [8.0%, …], 10% or 0.10 {BENIGN}.",
        f"1,480 of 3,080 completions, p 0.0035 {BENIGN}",
        f"it fell by 7.2 points, to -7.2% or -0.07 {'[rows](cells.csv)'}",
        f"Five of seven hold, 38.8% [28.8%, 49.7%] {BENIGN}",
        'Seeds 42 and 137, ten samples [run](record.json "run.parameters")',
        "SmolLM2-135M on an H200 at `0.25.0`, and no more",
        f"Rates {BENIGN}, {EM}:\n\n| arm | rate |\n|---|---|\n| benign | 9.7% |\n| em | 10.4% |",
        'In two rows [rows](cells.csv "arm=em")',
        "# 12 headings are none",
    ],
)
def test_what_a_cited_row_says_passes(faults, said):
    assert faults(said) == []


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (f"Leakage is 9.8% {BENIGN}.", "9.8%: in no cited row"),
        (f"Leakage is 10.4% {BENIGN}.", "10.4%: in no cited row"),
        (f"9.7 of them {BENIGN}", "9.7: in no cited row"),
        (f"0 of them {BENIGN}", "0: in no cited row"),  # no rate of 0.0966 is a count of 0
        (f"8.0-9.8% {BENIGN}", "8.0: in no cited row"),
        (f"it changed by +7.2 points {'[rows](cells.csv)'}", "+7.2 points: in no cited row"),
        (f"Eleven of them {BENIGN}", "Eleven: in no cited row"),
        ("Leakage is 9.7%.", "9.7%: no row of a table is cited"),
        (f"Right: 9.7% {BENIGN}\n\nand 9.7% without", "9.7%: no row of a table is cited"),
        (f"- 9.7% {BENIGN}\n- 10.4%", "10.4%: no row of a table is cited"),
        ('9.7% [rows](cells.csv "arm=bare")', "no such row has arm 'bare'"),
        ('9.7% [rows](cells.csv "arms=bare")', "'arms=bare' is no COLUMN=VALUE of its columns"),
        ("9.7% [rows](other.csv)", "No such file"),
        ('10 [run](record.json "run.seeds")', "there is no seeds"),
        (f"Rates {BENIGN}:\n\n| arm | rate |\n|---|---|\n| em | 10.4% |", "10.4%: in no cited row"),
    ],
)
def test_what_no_cited_row_says_is_a_fault(faults, said, fault):
    assert any(fault in one for one in faults(said))


def test_a_fault_names_its_line(faults):
    assert faults(f"# Page\n\nRight, 9.7% {BENIGN}.\n\nWrong, 3%\n{BENIGN}") == ["5: 3%: in no cited row"]
