"""Time the two language detectors on the bundled texts: `python benchmarks/scoring.py [--out FILE]`."""

import argparse
import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from persona_leakage.pipelines.scoring.nodes import label_languages
from persona_leakage.run_record import describe_code, describe_machine

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.plans import make_plan  # noqa: E402


def main() -> None:
    """Label 280 rows in a fresh process, 280 again, and 4,480; print and write rows a second."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/scoring.json")
    out = arguments.parse_args().out
    plan = make_plan("lang_inversion", "fr_it", env="embedded")
    texts = [json.loads(line) for line in (PROJECT / "data/01_raw/parallel_texts.jsonl").open()]
    bundled = [row[language.code] for row in texts for language in plan.scoring.languages.values()]
    results = []
    for name, number, characters in (("first", 280, 150), ("again", 280, 150), ("many", 4480, 500)):
        rows = [{"prompt": "", "sample_index": 0, "completion": text[:characters]} for text in islice(cycle(bundled), number)]
        started = time.perf_counter()
        label_languages(rows, plan)  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        results.append(
            {"run": name, "rows": number, "seconds": round(seconds, 2), "rows_per_second": round(number / seconds, 1)}
        )
        print(results[-1])
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    machine = {key: value for key, value in describe_machine().items() if key in ("processor", "cores")}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"code": code, "machine": machine, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":  # the detectors' processes import this file
    main()
