"""Copy a family's report, tables, figures and each point's records: `collect.py DATA SCALE FAMILY TARGET`."""

import json
import shutil
import sys
from pathlib import Path

data, scale, family, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
reports = data / "08_reporting" / scale / family
points = target / "points"
points.mkdir(parents=True, exist_ok=True)
for file in sorted(reports.iterdir()):
    if file.suffix in (".csv", ".png", ".md"):
        shutil.copy(file, target)
for record in sorted(reports.glob("*/seed_*/run_record.json")):
    condition, seed = record.parts[-3:-1]
    *_, last = json.loads(record.read_text())
    agreement = data / "07_model_output" / scale / family / condition / seed / "agreement.json"
    content = {"run": last, "agreement_of_detectors": json.loads(agreement.read_text())}
    (points / f"{condition}_{seed}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
