"""Run records of many points: where they lie, and what a grid reads in them."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pandas as pd
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address
from persona_leakage.experiments import family_of
from persona_leakage.experiments.composition import compose
from persona_leakage.run_record import UNREACHED

RECORD = "run_record.json"
_AT_ONCE = 500  # records in memory
# stand-ins that occur in no path; making a catalog takes a third of a second, and a grid may have thousands of points
MODEL, CONDITION, SEED, CHECKPOINT = "__model__", "__condition__", 987654321, 98765

Entry = dict[str, Any]  # one run, as the run record tells it


class RecordStore:
    """The run records of a family's points, on any filesystem.

    Attributes:
        filesystem: where they lie.
        root: the family's folder, which its reports are in too.
    """

    def __init__(self, filesystem: fsspec.AbstractFileSystem, template: str) -> None:
        """Name the place of a record whose point is made of the stand-ins."""
        self.filesystem = filesystem
        place = PurePosixPath(filesystem._strip_protocol(template))
        self._folder = str(place.parent)
        self.root = self._folder.partition(f"/{MODEL}")[0]

    def folder(self, address: Address) -> str:
        """Return a point's folder: a path, or a URL where it is on another filesystem than the local one."""
        names = {
            MODEL: address.model,
            CONDITION: address.condition,
            str(SEED): str(address.seed),
            str(CHECKPOINT): f"{address.checkpoint or 0:02d}",
        }
        folder = re.sub("|".join(names), lambda found: names[found[0]], self._folder)
        return self.named(folder + ("" if address.dose == "final" else f"/{address.dose}"))

    def named(self, path: str) -> str:
        """Name a path of the filesystem so that others can open it."""
        return path if isinstance(self.filesystem, LocalFileSystem) else self.filesystem.unstrip_protocol(path)

    def read(self, folders: Collection[str] | None = None) -> Iterator[tuple[str, list[Entry]]]:
        """Read the records of some points, or of all; a point that has not run has none.

        Yields:
            A point's folder and its runs, oldest first.

        Raises:
            UserError: a record is damaged.
        """
        self.filesystem.invalidate_cache()
        try:
            listed = self.filesystem.find(self.root)
        except FileNotFoundError:
            return
        places = {path: self.named(path.removesuffix(f"/{RECORD}")) for path in listed if path.endswith(f"/{RECORD}")}
        wanted = [path for path, folder in places.items() if folders is None or folder in folders]
        for start in range(0, len(wanted), _AT_ONCE):
            for path, content in self.filesystem.cat(wanted[start : start + _AT_ONCE]).items():
                try:
                    runs = json.loads(content)
                except ValueError as error:
                    raise UserError(f"{path} is no run record; delete it and run again") from error
                yield places[path], runs


def read_record(folder: str) -> list[Entry]:
    """Read the runs of one point, oldest first; none when it has not run."""
    filesystem, path = url_to_fs(f"{folder}/{RECORD}")
    filesystem.invalidate_cache()  # another machine may have written it
    runs: list[Entry] = json.loads(filesystem.cat_file(path)) if filesystem.exists(path) else []
    return runs


@cache
def point_stages(family: str) -> tuple[str, ...]:
    """Name the stage tags that compute a point; reporting is over all points and not one of them."""
    tags = {tag for node in compose(family_of(family)).nodes for tag in node.tags}
    return tuple(sorted(tags - {"reporting"}))


@cache
def _point_nodes(family: str) -> frozenset[str]:
    # what a report needs too is no sign that a point was computed
    return frozenset(node.name for node in compose(family_of(family)).nodes if "reporting" not in node.tags)


def last_whole_run(family: str, runs: list[Entry]) -> Entry | None:
    """Return the last run that computed all of a point and ended well, or found that its training never reaches its dose."""
    nodes = _point_nodes(family)
    whole = [run for run in runs if run["status"] == UNREACHED or (run["status"] == "completed" and nodes <= set(run["nodes"]))]
    return whole[-1] if whole else None


def seconds_of(run: Entry) -> float:
    """Return a run's seconds from its first node to the end."""
    return (datetime.fromisoformat(run["finished"]) - datetime.fromisoformat(run["started"])).total_seconds()


def tokens_of(run: Entry) -> int:
    """Count the tokens that a run sampled or trained on."""
    return sum(node.get("tokens", 0) for node in run["nodes"].values())


def run_table(family: str, runs: Iterable[Entry]) -> pd.DataFrame:
    """Put runs into a table; those that only wrote the report are left out.

    Returns:
        A row a run: the point, what became of it, the plan's fingerprint, when it started, seconds, tokens (sampled or trained
        on; those found in the cache count too), peak memory of its process in GiB, GPU, host, commit and the first line of its
        error.
    """
    rows = [
        {
            "dose": "final",
            **run["parameters"]["address"],
            "status": run["status"],
            "plan": run["plan"],
            "started": run["started"],
            "seconds": seconds_of(run),
            "tokens": tokens_of(run),
            "peak_rss_gib": run["machine"]["peak_rss_gib"],
            "gpu": run["machine"]["gpu"],
            "host": run["machine"].get("host"),
            "commit": run["code"]["commit"],
            "error": run["error"],
        }
        for run in runs
        if not run["nodes"] or _point_nodes(family) & set(run["nodes"])
    ]
    table = pd.DataFrame(rows)
    return (
        table.sort_values(["model", "condition", "seed", "checkpoint", "dose", "started"], ignore_index=True) if rows else table
    )
