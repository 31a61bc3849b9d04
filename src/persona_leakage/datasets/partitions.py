"""The same file of every point."""

from typing import Any

from kedro_datasets.partitions import PartitionedDataset


class PointsDataset(PartitionedDataset):
    """Partitions as of `PartitionedDataset`; none where there are none, which is an error there."""

    def load(self) -> dict[str, Any]:
        """List the partitions: point → loader of its file."""
        return super().load() if self._list_partitions() else {}
