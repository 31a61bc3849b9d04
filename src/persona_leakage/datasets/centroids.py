"""Centroid tensors with the names of their rows."""

import json
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
from kedro.io.core import AbstractVersionedDataset, Version, get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.errors import UserError


class CentroidsDataset(AbstractVersionedDataset[Centroids, Centroids]):
    """Centroids as one safetensors file: a tensor `layer_<L>` a layer, group names and stack in its metadata.

    Example:
        ```yaml
        "{family}.centroids":
          type: persona_leakage.datasets.CentroidsDataset
          filepath: data/04_feature/{family}/centroids.safetensors
          versioned: true
        ```
    """

    def __init__(self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Describe the file."""
        protocol, path = get_protocol_and_path(filepath, version)
        self._fs = fsspec.filesystem(protocol)
        self.metadata = metadata
        super().__init__(PurePosixPath(path), version, self._fs.exists, self._fs.glob)

    def load(self) -> Centroids:
        """Read the centroids.

        Raises:
            UserError: the file is truncated or is not one of centroids.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = str(self._get_load_path())
        with self._fs.open(path, "rb") as file:
            content: bytes = file.read()
        try:
            tensors = load(content)
            described = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            layers: dict[int, np.ndarray] = {int(name.removeprefix("layer_")): tensor for name, tensor in tensors.items()}
            return Centroids(tuple(json.loads(described["groups"])), dict(sorted(layers.items())), described["stack"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path} holds no centroids or is truncated; delete it and run again") from error

    def save(self, data: Centroids) -> None:
        """Write the centroids, or nothing."""
        from safetensors.numpy import save

        content = save(
            {f"layer_{layer}": np.ascontiguousarray(vectors, dtype=np.float32) for layer, vectors in data.layers.items()},
            metadata={"groups": json.dumps(data.groups), "stack": data.stack},
        )
        with replacing(self._fs, self._get_save_path()) as partial, self._fs.open(str(partial), "wb") as file:
            file.write(content)

    def preview(self) -> JSONPreview:
        """Show names and shapes in kedro-viz."""
        centroids = self.load.__wrapped__(self)  # type: ignore[attr-defined]
        shapes = {f"layer {layer}": list(vectors.shape) for layer, vectors in centroids.layers.items()}
        return JSONPreview(json.dumps({"groups": centroids.groups, "shapes": shapes, "stack": centroids.stack}))

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._get_load_path())))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
