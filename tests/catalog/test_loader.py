from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.catalog.loader import load_catalog, read_catalog
from egressproxy.errors import CatalogError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = """\
documents: {doc: A document}
files: [one.yaml]
"""
REQUIREMENT = """\
requirements:
  - id: aks/one
    title: One
    document: doc
    section: A section
    {extra}
    rows:
      - {row}
"""
ROW = "{id: a, names: [a.example.com], ports: [https], purpose: For a test.}"


def write(folder: Path, *, row: str = ROW, extra: str = "", index: str = INDEX) -> Path:
    (folder / "index.yaml").write_text(index)
    text = REQUIREMENT.replace("{extra}", extra).replace("{row}", row)
    (folder / "one.yaml").write_text(text)
    return folder


def with_(more: str) -> str:
    return ROW[:-1] + f", {more}}}"


def test_packaged_data_load_and_are_read_once() -> None:
    assert load_catalog() is load_catalog()


def test_a_row_is_spread_over_every_cloud(tmp_path: Path) -> None:
    catalog = read_catalog(write(tmp_path))
    assert [(row.id, row.cloud) for row in catalog.requirement("aks/one").rows] == [
        ("aks/one#a", "AzureCloud"),
        ("aks/one#a", "AzureChinaCloud"),
        ("aks/one#a", "AzureUSGovernment"),
    ]


@pytest.mark.parametrize(
    ("row", "extra", "says"),
    [
        (with_("nmaes: [x.example]"), "", "rows.0.nmaes: Extra inputs are not permitted"),
        (with_("clouds: [Azure]"), "", "clouds.0"),
        (with_("suggested: 1"), "", "rows.0.suggested"),
        (with_("kind: needed"), "", "rows.0.kind"),
        (with_("id: b"), "", "'id' is written twice"),
        (ROW.replace("id: a", "id: A b"), "", "rows.0.id"),
        (ROW.replace("a.example.com", "'*example.com'"), "", "is not one of the three forms"),
        (ROW.replace("a.example.com", "'*.com'"), "", "public suffix"),
        (ROW.replace("a.example.com", "'{zone}.example.com'"), "", "no parameter 'zone'"),
        (ROW.replace("https", "443"), "", "rows.0.ports"),
        (ROW.replace("https", "tls"), "", "aks/one#a: 'tls' is not a port item"),
        (with_("tags: [Sql]"), "", "exactly one of names, tags"),
        ("{id: a, ports: [https], purpose: For a test., tags: [Sql]}", "", "need names"),
        ("{id: a, ports: [https], purpose: For a test.}", "", "exactly one of names"),
        (with_("via: fqdn"), "", "group and via go together"),
        (with_("group: g, via: fqdn"), "", "via fqdn is no choice of aks/one"),
        (
            with_("group: g, via: fqdn"),
            "via: {choices: {fqdn: by name, any: every address}}",
            "group g has no row for via any",
        ),
        (with_("note: harmless"), "", "a row that is required cannot be a note"),
        (with_("document: other"), "", "index.yaml has no document 'other'"),
        (with_("when: {zone: true}"), "", "there is no parameter 'zone'"),
        (ROW, "via: {default: fqdn, choices: {}}", "default via fqdn is no choice"),
        (ROW, "absent: {AzureCloud: not there}", "said to be absent in AzureCloud"),
        (ROW, "refers_to: aks/two", "refers to aks/two, not written above"),
        (ROW, "clouds: []", "aks/one has no row in any cloud"),
        (
            "{id: a, networks_from: region_cidrs, narrowed_by: location, "
            "ports: ['tcp:1'], purpose: For a test.}",
            "",
            "narrowed_by needs names",
        ),
        (
            "{id: a, names: {AzureCloud: [a.example.com]}, clouds: [AzureChinaCloud], "
            "ports: [https], purpose: For a test.}",
            "",
            "exactly one of names",
        ),
    ],
)
def test_broken_data_fail_loudly(tmp_path: Path, row: str, extra: str, says: str) -> None:
    with pytest.raises(CatalogError) as raised:
        read_catalog(write(tmp_path, row=row, extra=extra))
    assert says in str(raised.value)


def test_a_section_that_a_cloud_lacks_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "one.yaml"
    path.write_text(path.read_text().replace("section: A section", "section: {AzureCloud: One}"))
    with pytest.raises(CatalogError, match=r"aks/one#a \(AzureChinaCloud\): no section"):
        read_catalog(tmp_path)


def test_duplicate_ids_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"aks/one#a \(AzureCloud\) is written 2 times"):
        read_catalog(write(tmp_path, row=f"{ROW}\n      - {ROW}"))
    text = (tmp_path / "one.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text + text.partition("\n")[2])
    with pytest.raises(CatalogError, match="aks/one is written twice"):
        read_catalog(tmp_path)


def test_every_mistake_of_every_file_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path, row=with_("zzz: 1"), index=INDEX.replace("[one.yaml]", "[one.yaml, two.yaml]"))
    with pytest.raises(CatalogError) as raised:
        read_catalog(tmp_path)
    assert len(raised.value.problems) == 2
    assert "zzz" in str(raised.value)
    assert "two.yaml" in str(raised.value)


def test_broken_yaml_says_where(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"one\.yaml"):
        read_catalog(write(tmp_path, row="{id: ["))
