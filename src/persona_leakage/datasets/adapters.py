"""The adapters of one stage, by checkpoint."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import AbstractVersionedDataset, Version, get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.models import Adapter
from persona_leakage.engines.adapter_folder import at_hand, read_adapter, read_provenance

_INDEX = "checkpoints.json"


class AdaptersDataset(AbstractVersionedDataset[dict[str, Adapter], dict[str, Adapter]]):
    """checkpoint → adapter folder (safetensors, PEFT's configuration, provenance); an empty dictionary is a value too.

    On a local disk files are hard-linked from where they were trained, so a version takes no further space. Elsewhere they are
    copied, and engines fetch them when they read them.

    Example:
        ```yaml
        "{family}.{stage}.adapters":
          type: persona_leakage.datasets.AdaptersDataset
          filepath: data/06_models/{family}/{stage}/adapters
          versioned: true
        ```
    """

    def __init__(self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Describe the folder; `filepath` is a path or an fsspec URL."""
        protocol, path = get_protocol_and_path(filepath, version)
        self._fs = fsspec.filesystem(protocol)
        self._scheme = "" if protocol == "file" else f"{protocol}://"
        self.metadata = metadata
        super().__init__(PurePosixPath(path), version, self._complete, self._fs.glob)

    def load(self) -> dict[str, Adapter]:
        """Open every adapter.

        Raises:
            UserError: an adapter is truncated or a file of it is missing.
        """
        return {checkpoint: read_adapter(place) for checkpoint, place in self._places().items()}

    def save(self, data: dict[str, Adapter]) -> None:
        """Copy every adapter's folder, or nothing: what has no index yet does not count."""
        if not self._scheme:
            with replacing(self._fs, self._get_save_path()) as partial:
                Path(partial).mkdir()
                for checkpoint, adapter in data.items():
                    (Path(partial) / checkpoint).mkdir()
                    with at_hand(adapter.path) as folder:
                        for file in sorted(folder.iterdir()):
                            _link(file, Path(partial) / checkpoint / file.name)
                (Path(partial) / _INDEX).write_text(json.dumps(list(data)))
            return
        target = str(self._get_save_path())  # objects cannot be renamed together, so the index comes last
        if self._fs.exists(target):
            self._fs.rm(target, recursive=True)
        for checkpoint, adapter in data.items():
            with at_hand(adapter.path) as folder:
                for file in sorted(folder.iterdir()):
                    self._fs.put_file(str(file), f"{target}/{checkpoint}/{file.name}")
        self._fs.pipe_file(f"{target}/{_INDEX}", json.dumps(list(data)).encode())

    def preview(self) -> JSONPreview:
        """Show what the adapters were trained from in kedro-viz, without the loss curve."""
        shown = {}
        for checkpoint, place in self._places().items():
            shown[checkpoint] = read_provenance(place)
            shown[checkpoint]["log"].pop("steps", None)
        return JSONPreview(json.dumps(shown))

    def _places(self) -> dict[str, str]:
        folder = str(self._get_load_path())
        with self._fs.open(f"{folder}/{_INDEX}") as file:
            checkpoints: list[str] = json.load(file)
        return {checkpoint: f"{self._scheme}{folder}/{checkpoint}" for checkpoint in checkpoints}

    def _complete(self, path: str) -> bool:
        return bool(self._fs.exists(f"{path}/{_INDEX}"))

    def _exists(self) -> bool:
        return self._complete(str(self._get_load_path()))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        target.write_bytes(source.read_bytes())
