"""The adapters of one stage, by checkpoint."""

import json
import os
from pathlib import Path, PurePosixPath

from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import FileDataset, replacing
from persona_leakage.domain.models import Adapter
from persona_leakage.engines.adapter_folder import at_hand, read_adapter, read_provenance

_INDEX = "checkpoints.json"


class AdaptersDataset(FileDataset[dict[str, Adapter]]):
    """checkpoint → adapter folder (safetensors, PEFT's configuration, provenance); an empty dictionary is a value too.

    On a local disk files are hard-linked from where they were trained, so a version takes no further space. Elsewhere they are
    copied, and engines fetch them when they read them.
    """

    def load(self) -> dict[str, Adapter]:
        """Open every adapter.

        Raises:
            UserError: an adapter is truncated or a file of it is missing.
        """
        return {checkpoint: read_adapter(place) for checkpoint, place in self._places().items()}

    def save(self, data: dict[str, Adapter]) -> None:
        """Copy every adapter's folder, or nothing: what has no index yet does not count."""
        target = self._get_save_path()
        if self._protocol == "file":
            with replacing(self._fs, target) as partial:
                self._fill(partial, data)
        else:  # objects cannot be renamed together
            if self._fs.exists(str(target)):
                self._fs.rm(str(target), recursive=True)
            self._fill(target, data)

    def preview(self) -> JSONPreview:
        """Show what the adapters were trained from in kedro-viz, without the loss curve."""
        shown = {}
        for checkpoint, place in self._places().items():
            shown[checkpoint] = read_provenance(place)
            shown[checkpoint]["log"].pop("steps", None)
        return JSONPreview(json.dumps(shown))

    def _fill(self, target: PurePosixPath, data: dict[str, Adapter]) -> None:
        put = _link if self._protocol == "file" else self._fs.put_file
        self._fs.makedirs(str(target), exist_ok=True)
        for checkpoint, adapter in data.items():
            self._fs.makedirs(f"{target}/{checkpoint}", exist_ok=True)
            with at_hand(adapter.path) as folder:
                for file in sorted(folder.iterdir()):
                    put(str(file), f"{target}/{checkpoint}/{file.name}")
        self._fs.pipe_file(f"{target}/{_INDEX}", json.dumps(list(data)).encode())  # at last: without it the rest does not count

    def _places(self) -> dict[str, str]:
        folder = str(self._get_load_path())
        scheme = "" if self._protocol == "file" else f"{self._protocol}://"
        checkpoints: list[str] = json.loads(self._fs.cat_file(f"{folder}/{_INDEX}"))
        return {checkpoint: f"{scheme}{folder}/{checkpoint}" for checkpoint in checkpoints}

    def _complete(self, path: str) -> bool:
        return super()._complete(f"{path}/{_INDEX}")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        Path(target).write_bytes(Path(source).read_bytes())
