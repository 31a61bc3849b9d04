"""See how languages' labels depend on a text's length: `python benchmarks/label_lengths.py COMPLETIONS… [--out FILE]`."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.scoring.nodes import label_languages
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.plans import make_plan  # noqa: E402

SHARES = (0.5, 0.25)  # of a completion's characters
LENGTHS = (160, 80, 40, 20, 10)  # characters of a text whose language is known
BINS = (0, 20, 50, 100, 500, 10**9)


def label(texts: Sequence[str], plan: Plan) -> pd.DataFrame:
    """Label texts; one row each: label, cross_check."""
    rows = [{"prompt": "", "sample_index": place, "completion": text} for place, text in enumerate(texts)]
    return pd.DataFrame(label_languages(rows, plan))[["label", "cross_check"]]  # type: ignore[arg-type]


def shorten(file: Path) -> dict[str, object]:
    """Label the completions of a condition, halves and quarters of them, and compare the detectors by length."""
    plan = make_plan("lang_inversion", file.stem)
    texts = [json.loads(line)["completion"].strip() for line in file.open()]
    own, seen = plan.scoring.completion, plan.scoring.detect_characters  # type: ignore[union-attr]
    lengths, whole = pd.Series([len(text) for text in texts]), label(texts, plan)
    found: dict[str, object] = {
        "condition": file.stem,
        "completions": len(texts),
        "longer_than_detectors_read": int((lengths > seen).sum()),
        "in_completion_language": count(whole["label"] == own),
        "by_share": [],
        "agreement_by_length": [],
    }
    for share in SHARES:
        part = label([text[: int(len(text) * share)] for text in texts], plan)
        found["by_share"].append(  # type: ignore[attr-defined]
            {
                "share": share,
                "changed": count(part["label"] != whole["label"]),
                "changed_to_other": count((part["label"] != whole["label"]) & (part["label"] == "other")),
                "changed_by_lingua": count(part["cross_check"] != whole["cross_check"]),
                "in_completion_language": count(part["label"] == own),
            }
        )
    for low, high in pairwise(BINS):
        chosen = whole[(lengths >= low) & (lengths < high)]
        agree = count(chosen["label"] == chosen["cross_check"])
        found["agreement_by_length"].append({"characters_from": low, "below": high, "agree": agree})  # type: ignore[attr-defined]
    return found


def count(hits: pd.Series) -> dict[str, float]:
    """Count with n and Wilson 95% interval."""
    found = proportion(int(hits.sum()), len(hits))
    return {name: round(value, 4) for name, value in found._asdict().items() if not math.isnan(value)}


def recognise() -> list[dict[str, object]]:
    """Say how often both detectors recognise the first characters of the bundled texts, whose languages are known."""
    plan = make_plan("lang_inversion", "zh_ja")  # the one whose labels are all languages of the texts
    texts = [json.loads(line) for line in (PROJECT / "data/01_raw/parallel_texts.jsonl").open()]
    found: list[dict[str, object]] = []
    for language, spoken in plan.scoring.languages.items():  # type: ignore[union-attr]
        for length in LENGTHS:
            labels = label([row[spoken.code][:length] for row in texts], plan)
            told = {name: count(labels[name] == language) for name in labels}
            found.append({"language": language, "characters": length, **told})
    return found


def main() -> None:
    """Label, print and write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("completions", type=Path, nargs="+", help="JSONL files called after their condition")
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/label_lengths.json")
    given = arguments.parse_args()
    results = {"shortened": [shorten(file) for file in given.completions], "recognised": recognise()}
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores")}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"code": code, "machine": machine, **results}, indent=1) + "\n")


if __name__ == "__main__":  # the detectors' processes import this file
    main()
