"""Copy a family's report, tables, figures and each point's last computation: `collect.py DATA SCALE FAMILY TARGET`."""

import json
import shutil
import sys
from pathlib import Path

LARGEST = 1_000_000  # bytes of a table that is worth copying

data, scale, family, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
reports = data / "08_reporting" / scale / family
points = target / "points"
points.mkdir(parents=True, exist_ok=True)
for file in sorted(reports.iterdir()):
    if file.suffix in (".csv", ".png", ".md"):
        if file.stat().st_size <= LARGEST:
            shutil.copy(file, target)
        else:
            print(f"left out: {file} has {file.stat().st_size:,} bytes, more than {LARGEST:,}")
for record in sorted(reports.glob("*/*/seed_*/**/run_record.json")):
    point = record.parent.relative_to(reports)
    # a run of the report alone computed nothing of the point
    computed = [
        run
        for run in json.loads(record.read_text())
        if run["status"] == "never reached" or any(name.endswith("sample_completions") for name in run["nodes"])
    ]
    if not computed or computed[-1]["status"] == "failed":
        continue
    content = {"run": computed[-1]}
    agreement = data / "07_model_output" / scale / family / point / "agreement.json"
    if agreement.is_file():
        content["agreement_of_detectors"] = json.loads(agreement.read_text())
    name = "_".join(point.parts)
    (points / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
