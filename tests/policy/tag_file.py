"""Service tag files for tests: a small cut in the shape of Microsoft's; where the real one is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Prefixes = tuple[str, ...]

CUT: Final[dict[tuple[str, str], Prefixes]] = {
    ("Sql", ""): ("13.78.61.196/32", "20.18.179.128/26", "20.191.166.0/26", "2603:1040:404::/46"),
    ("Sql.JapanEast", "japaneast"): ("20.191.166.0/26", "13.78.61.196/32", "2603:1040:404::/46"),
    ("Sql.JapanWest", "japanwest"): ("20.18.179.128/26",),
    ("Storage", ""): ("20.38.0.0/16", "20.60.0.0/16"),
    ("Storage.JapanEast", "japaneast"): ("20.38.116.0/24", "20.38.117.0/24", "20.38.116.128/25"),
    ("Storage.NorwayEast", "norwaye"): ("20.60.1.0/24",),
    ("StorageMover", ""): ("4.145.74.52/30",),
    ("AzureCloud", ""): ("20.0.0.0/14", "20.33.0.0/16"),
    ("AzureCloud.japaneast", "japaneast"): ("20.0.0.0/16",),
    ("AzureCloud.norwaye", "norwaye"): ("20.1.0.0/16",),
    ("MicrosoftContainerRegistry", ""): ("20.51.12.32/27",),
    ("AzureFrontDoor.FirstParty", ""): ("13.107.213.0/24",),
    ("AzureFrontDoor.Backend", ""): ("13.107.214.0/24",),
}
"""Name and region to ranges; the ranges of ``Storage.JapanEast`` overlap and touch."""


def tag_file(
    tags: Mapping[tuple[str, str], Sequence[str]] = CUT,
    *,
    cloud: str = "Public",
    change_number: int = 374,
) -> str:
    """The text of a service tag file."""
    values = [
        {
            "name": name,
            "id": name,
            "properties": {
                "changeNumber": 1,
                "region": region,
                "regionId": 0,
                "platform": "Azure",
                "systemService": name.partition(".")[0],
                "addressPrefixes": list(prefixes),
                "networkFeatures": ["NSG"],
            },
        }
        for (name, region), prefixes in tags.items()
    ]
    content: dict[str, Any] = {"changeNumber": change_number, "cloud": cloud, "values": values}
    return json.dumps(content, indent=2)


_SHARED: Final = Path(__file__).parents[3] / "shared" / "servicetags"


def real_file() -> Path:
    """Microsoft's public file where there is one beside the repository, else the test is skipped.

    ``SERVICE_TAGS_FOLDER`` names another folder.
    """
    folder = Path(os.environ.get("SERVICE_TAGS_FOLDER", _SHARED))
    files = sorted(folder.glob("ServiceTags_Public*.json")) if folder.is_dir() else []
    if not files:
        pytest.skip("not in this checkout: a ServiceTags_Public*.json in ../shared/servicetags")
    return files[-1]
