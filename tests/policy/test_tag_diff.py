"""What a new week's service tag file changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.errors import AddressError
from egressproxy.policy.load import load_policy
from egressproxy.policy.problems import Problems
from egressproxy.policy.tag_diff import diff_ranges, diff_tags
from egressproxy.policy.tags import ServiceTags, parse_tags
from tests.policy.tag_file import CUT, tag_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from egressproxy.policy.spans import AddressSet

RULES = """\
version: 1
cloud: AzureCloud
service_tags: old.json
rules:
  - {name: sql, to: ["tag:Sql.JapanEast"], ports: ["tcp:1433"]}
  - {name: storage, to: ["tag:Storage.*", 20.9.0.0/24], ports: ["tcp:443"]}
  - {name: wider, to: ["tag:Sql.JapanWest", 20.8.0.0/15], ports: ["tcp:443"]}
  - {name: plain, to: [20.9.0.0/16], ports: ["tcp:443"]}
"""


def read(tags: Mapping[tuple[str, str], Sequence[str]]) -> ServiceTags:
    found = parse_tags(tag_file(tags).encode(), None, Problems().of("tags.json"))
    assert found is not None
    return found


def shown(addresses: AddressSet) -> list[str]:
    return [str(network) for network in addresses.networks()]


def test_tags() -> None:
    new = dict(CUT)
    new["Sql.JapanEast", "japaneast"] = ("20.191.166.0/25", "2603:1040:404::/46")
    new["Storage.JapanEast", "japaneast"] = ("20.38.116.0/23",)  # the same, joined
    del new["StorageMover", ""]
    new["Fabric", ""] = ("20.5.0.0/16",)
    changes = diff_tags(read(CUT), read(new))
    assert [
        (one.name, shown(one.added), shown(one.removed), one.is_new, one.is_gone) for one in changes
    ] == [
        ("Sql.JapanEast", ["20.191.166.64/26"], ["13.78.61.196/32"], False, False),
        ("Fabric", ["20.5.0.0/16"], [], True, False),
        ("StorageMover", [], ["4.145.74.52/30"], False, True),
    ]
    assert diff_tags(read(new), read(new)) == ()


def test_a_new_tag_without_ranges_is_told() -> None:
    (change,) = diff_tags(read({}), read({("Empty", ""): ()}))
    assert change.is_new
    assert not change.added


def test_a_tag_that_cannot_be_read() -> None:
    with pytest.raises(AddressError, match="not public"):
        diff_tags(read({}), read({("Sql", ""): ["10.0.0.0/8"]}))


def test_rules(tmp_path: Path) -> None:
    new = dict(CUT)
    new["Sql.JapanEast", "japaneast"] = ("20.191.166.0/25", "2603:1040:404::/46")
    new["Storage.JapanEast", "japaneast"] = ("20.38.116.0/23",)
    new["Storage.JapanWest", "japanwest"] = ("20.9.0.0/23", "2603::/48")
    new["Sql.JapanWest", "japanwest"] = (*CUT["Sql.JapanWest", "japanwest"], "20.9.7.0/24")
    root = tmp_path / "policy.yaml"
    root.write_text(RULES)
    for name, tags in (("old.json", CUT), ("new.json", new)):
        (tmp_path / name).write_text(tag_file(tags))
    old = load_policy(root)
    changes = diff_ranges(old, load_policy(root, service_tags=tmp_path / "new.json"))
    assert [(one.rule.id, shown(one.added), shown(one.removed)) for one in changes] == [
        ("rules/sql", ["20.191.166.64/26"], ["13.78.61.196/32"]),
        ("rules/storage", ["20.9.1.0/24", "2603::/48"], []),
    ]
    assert diff_ranges(old, old) == ()
