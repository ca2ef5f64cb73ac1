"""The documented AKS and ACR egress requirements as data, their loader and their expansion."""

from egressproxy.catalog.expand import expand
from egressproxy.catalog.loader import load_catalog
from egressproxy.catalog.model import CLOUDS, Catalog, ExpandedRow, Kind, Requirement, Row
from egressproxy.catalog.notes import Notes, note
from egressproxy.catalog.parameters import PARAMETERS, Parameter
from egressproxy.catalog.samples import Sample, samples
from egressproxy.catalog.templates import parameters_of

__all__ = [
    "CLOUDS",
    "PARAMETERS",
    "Catalog",
    "ExpandedRow",
    "Kind",
    "Notes",
    "Parameter",
    "Requirement",
    "Row",
    "Sample",
    "expand",
    "load_catalog",
    "note",
    "parameters_of",
    "samples",
]
