"""Centroid tensors with the names of their rows."""

import json

import numpy as np
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import FileDataset
from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.errors import UserError


class CentroidsDataset(FileDataset[Centroids]):
    """Centroids as one safetensors file: a tensor `layer_<L>` a layer, group names and stack in its metadata."""

    def load(self) -> Centroids:
        """Read the centroids.

        Raises:
            UserError: the file is truncated or is not one of centroids.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self._read()
        try:
            tensors = load(content)
            described = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            layers: dict[int, np.ndarray] = {int(name.removeprefix("layer_")): tensor for name, tensor in tensors.items()}
            return Centroids(tuple(json.loads(described["groups"])), dict(sorted(layers.items())), described["stack"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{self._get_load_path()} holds no centroids or is truncated; delete it and run again") from error

    def save(self, data: Centroids) -> None:
        """Write the centroids, or nothing."""
        from safetensors.numpy import save

        tensors = {f"layer_{layer}": np.ascontiguousarray(vectors, np.float32) for layer, vectors in data.layers.items()}
        self._write(save(tensors, metadata={"groups": json.dumps(data.groups), "stack": data.stack}))

    def preview(self) -> JSONPreview:
        """Show names and shapes in kedro-viz."""
        centroids = self.load.__wrapped__(self)  # type: ignore[attr-defined]
        shapes = {f"layer {layer}": list(vectors.shape) for layer, vectors in centroids.layers.items()}
        return JSONPreview(json.dumps({"groups": centroids.groups, "shapes": shapes, "stack": centroids.stack}))
