"""Several datasets as one, of which a node reads those that it needs."""

from collections.abc import Callable
from typing import Any, NoReturn

from kedro.io.core import AbstractDataset, DatasetError


class NamedDatasets(AbstractDataset[NoReturn, dict[str, Callable[[], Any]]]):
    """Gives every dataset's name and a function that loads it, as a `PartitionedDataset` does of the files of a folder.

    Example:
        ```yaml
        chat_sources:
          type: persona_leakage.datasets.NamedDatasets
          datasets:
            my_chats: {type: persona_leakage.datasets.JSONLinesDataset, filepath: my_chats.jsonl}
        ```
    """

    def __init__(self, *, datasets: dict[str, dict[str, Any]], metadata: dict[str, Any] | None = None) -> None:
        """Describe the datasets.

        Args:
            datasets: name → what stands of it in a catalog.
            metadata: kept for kedro-viz.
        """
        self._datasets = {name: AbstractDataset.from_config(name, entry) for name, entry in datasets.items()}
        self.metadata = metadata

    def load(self) -> dict[str, Callable[[], Any]]:
        """Return the loaders; nothing is read yet."""
        return {name: dataset.load for name, dataset in self._datasets.items()}

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: they are sources."""
        raise DatasetError("named datasets are read only")

    def _describe(self) -> dict[str, Any]:
        return {"datasets": ", ".join(self._datasets)}
