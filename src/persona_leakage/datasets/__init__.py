"""Kedro datasets of this project: what they save exists whole or not at all."""

from persona_leakage.datasets.adapters import AdaptersDataset
from persona_leakage.datasets.atomic import FigureDataset, JSONDataset, TextDataset
from persona_leakage.datasets.centroids import CentroidsDataset
from persona_leakage.datasets.csv import CSVDataset, OutsideTableDataset
from persona_leakage.datasets.engine import EngineDataset
from persona_leakage.datasets.frozen import FrozenDataset
from persona_leakage.datasets.hub import HubRowsDataset
from persona_leakage.datasets.jsonl import JSONLinesDataset
from persona_leakage.datasets.named import NamedDatasets
from persona_leakage.datasets.partitions import PointsDataset

__all__ = [
    "AdaptersDataset",
    "CSVDataset",
    "CentroidsDataset",
    "EngineDataset",
    "FigureDataset",
    "FrozenDataset",
    "HubRowsDataset",
    "JSONDataset",
    "JSONLinesDataset",
    "NamedDatasets",
    "OutsideTableDataset",
    "PointsDataset",
    "TextDataset",
]
