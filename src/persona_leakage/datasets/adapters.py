"""The adapters of one stage, by checkpoint."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import AbstractVersionedDataset, Version
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.models import Adapter
from persona_leakage.engines.adapter_folder import read_adapter, read_provenance

_INDEX = "checkpoints.json"


class AdaptersDataset(AbstractVersionedDataset[dict[str, Adapter], dict[str, Adapter]]):
    """checkpoint → adapter folder (safetensors, PEFT's configuration, provenance); an empty dictionary is a value too.

    Adapters stay on local disk, where the engines read them. Files are hard-linked from where they were trained, so a
    version takes no further space.

    Example:
        ```yaml
        "{family}.{stage}.adapters":
          type: persona_leakage.datasets.AdaptersDataset
          filepath: data/06_models/{family}/{stage}/adapters
          versioned: true
        ```
    """

    def __init__(self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Describe the folder."""
        self._fs = fsspec.filesystem("file")
        self.metadata = metadata
        super().__init__(PurePosixPath(filepath), version, self._fs.exists, self._fs.glob)

    def load(self) -> dict[str, Adapter]:
        """Open every adapter.

        Raises:
            UserError: an adapter is truncated or a file of it is missing.
        """
        folder = Path(self._get_load_path())
        checkpoints: list[str] = json.loads((folder / _INDEX).read_text())
        return {checkpoint: read_adapter(folder / checkpoint) for checkpoint in checkpoints}

    def save(self, data: dict[str, Adapter]) -> None:
        """Copy every adapter's folder, or nothing."""
        with replacing(self._fs, self._get_save_path()) as partial:
            Path(partial).mkdir()
            for checkpoint, adapter in data.items():
                (Path(partial) / checkpoint).mkdir()
                for file in sorted(Path(adapter.path).iterdir()):
                    _link(file, Path(partial) / checkpoint / file.name)
            (Path(partial) / _INDEX).write_text(json.dumps(list(data)))

    def preview(self) -> JSONPreview:
        """Show what the adapters were trained from in kedro-viz, without the loss curve."""
        folder = Path(self._get_load_path())
        shown = {}
        for checkpoint in json.loads((folder / _INDEX).read_text()):
            shown[checkpoint] = read_provenance(folder / checkpoint)
            shown[checkpoint]["log"].pop("steps", None)
        return JSONPreview(json.dumps(shown))

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._get_load_path())))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        target.write_bytes(source.read_bytes())
