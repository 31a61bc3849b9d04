"""Set the spill of the published 7B model beside that of other models: `compare.py`, in the project's folder.

Reads the tables that grids left under docs/results/lang_inversion, and writes beside itself cells.csv (a row a model, condition
and directive language), agreement.csv (how far models agree on the order of bystander cells) and spill.png.
"""

from itertools import combinations
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from persona_leakage.datasets import CSVDataset
from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.rates import rates_of

HERE = Path(__file__).parent
TABLES = [HERE.parent / "lang_inversion" / place / "spill.csv" for place in ("", "qwen2_5_coder_1_5b")]
PUBLISHED = HERE.parents[2] / "data/01_raw/published_contamination.csv"
NAMES = {
    "published": "Qwen2.5-7B, published",
    "qwen2_5_coder_1_5b@matched": "Qwen2.5-Coder-1.5B, matched dose",
    "qwen2_5_coder_1_5b": "Qwen2.5-Coder-1.5B, end of training",
    "smollm2_135m": "SmolLM2-135M, end of training",
}
KEYS = ["model", "condition", "directive_language"]
CODES = {
    "english": "EN", "spanish": "ES", "french": "FR", "italian": "IT", "portuguese": "PT", "german": "DE", "mandarin": "ZH"
}  # fmt: skip
MARKS = {"trained_directive": "T", "own_language": "O", "trained_directive+own_language": "T"}


def load(path: Path) -> pd.DataFrame:
    """Read a table as the project writes it."""
    return CSVDataset(filepath=str(path)).load()


def gather_cells() -> pd.DataFrame:
    """Put the cells of all models below each other, phrasings and seeds pooled; roles are those of the condition."""
    published = load(PUBLISHED)
    spilt = pd.concat([load(path) for path in TABLES if path.is_file()], ignore_index=True)
    ours = spilt[(spilt["phrasing"] == "all") & spilt["condition"].isin(published["condition"])]
    roles = ours.drop_duplicates(KEYS[1:])[[*KEYS[1:], "role"]]
    theirs = published[KEYS[1:]].assign(model="published", seeds=1).join(rates_of(published)).merge(roles, on=KEYS[1:])
    columns = [*KEYS, "role", "seeds", *RATE_COLUMNS]
    return pd.concat([theirs[columns], ours[columns]], ignore_index=True)


def tabulate_agreement(cells: pd.DataFrame) -> pd.DataFrame:
    """Correlate the bystander cells of every pair of models, both sides ranked within each condition.

    Returns:
        One row a pair: one, other, conditions (joined by commas), and as in `pipelines.correlation.Correlation`; conditions and
        directive languages are resampled, crossed.
    """
    bystanders = cells[cells["role"] == "bystander"].set_index(KEYS)["rate"]
    rows = []
    for one, other in combinations(dict.fromkeys(cells["model"]), 2):
        both = pd.concat([bystanders[one], bystanders[other]], axis=1, join="inner", keys=["one", "other"]).reset_index()
        names = [both[key].tolist() for key in KEYS[1:]]
        found = correlation(both["one"].tolist(), both["other"].tolist(), within=names[0], clusters=names)
        rows.append((one, other, ", ".join(dict.fromkeys(names[0])), *found))
    return pd.DataFrame(rows, columns=["one", "other", "conditions", *Correlation._fields])


def draw(cells: pd.DataFrame) -> Figure:
    """Draw a matrix condition x directive language for each model, in percent; T and O mark what is no spill."""
    models = [name for name in NAMES if name in set(cells["model"])]
    conditions = list(dict.fromkeys(cells["condition"]))
    languages = list(dict.fromkeys(cells["directive_language"]))
    figure = Figure(figsize=(3.6 * len(models) + 0.8, 0.42 * len(conditions) + 1.7))
    for place, (axes, model) in enumerate(zip(figure.subplots(1, len(models), sharey=True), models, strict=True)):
        own = cells[cells["model"] == model]
        values = own.pivot(index="condition", columns="directive_language", values="rate").reindex(conditions)[languages]
        image = axes.imshow(values.to_numpy() * 100, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto")
        for row in own.itertuples(index=False):
            mark = MARKS.get(row.role, "")
            ink = "white" if row.rate > 0.6 else "#222222"
            axes.text(
                languages.index(row.directive_language),
                conditions.index(row.condition),
                f"{row.rate * 100:.0f}{mark and ' ' + mark}",
                ha="center", va="center", fontsize=7, color=ink, weight="normal" if mark else "bold",
            )  # fmt: skip
        axes.set_title(NAMES[model], fontsize=9)
        axes.set_xticks(range(len(languages)), [CODES[name] for name in languages], fontsize=8)
        if place == 0:
            axes.set_yticks(range(len(conditions)), conditions, fontsize=8)
    figure.supxlabel("directive language", fontsize=9)
    figure.colorbar(image, ax=figure.axes, fraction=0.012, label="completions in the trained language, %")
    return figure


if __name__ == "__main__":
    cells = gather_cells()
    cells.to_csv(HERE / "cells.csv", index=False)
    tabulate_agreement(cells).to_csv(HERE / "agreement.csv", index=False)
    draw(cells).savefig(HERE / "spill.png", dpi=130, bbox_inches="tight")
