"""What labels look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.review.shapes import Shape, common_prefix, shape_of, varying_shape

LABELS = {
    Shape.WORD: (
        "api cdn2 s3 www mcr login storage-a production my-service k8s prod01 xn--mnchen-3ya a"
        " graph packages registry-1 us-api download dc ntp time1 strength sync rhythms web2cdn"
        " 42 7 github0 azure-archive _dmarc deadbeefs management"
    ),
    Shape.NUMBER: "000 123 20251122 4815162342",
    Shape.HASH: (
        "a3f9c04e 7f9d41b2c3 deadbeef00 0123456789abcdef 1b4e28ba-2fa1-11d2-883f-0016d3cca427"
        " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    ),
    Shape.RANDOM: "x7k2m9qzp4 zxkqwvbnpt k3j5h7g9d1 md-ssd-x7k2m9qzp4 vtgrq8fw2zd0",
    Shape.REGION: (
        "japaneast westus westus3 southcentralus germanywestcentral usgovvirginia us-east-1"
        " europe-west4 eu-central-1 us-gov-east-1 chinanorth3 europe ap-southeast-2"
        " australiacentral2 northeurope uk"
    ),
}


@pytest.mark.parametrize(
    ("label", "wanted"),
    [(label, shape) for shape, labels in LABELS.items() for label in labels.split()],
)
def test_shape(label: str, wanted: Shape) -> None:
    assert shape_of(label) is wanted


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("japaneast westus eastus2", Shape.REGION),
        ("a3f9c04e 7f9d41b2 deadbeef00", Shape.HASH),
        ("a3f9c04e 7f9d41b2 x7k2m9qzp4", Shape.RANDOM),
        ("a3f9c04e 12345678 7f9d41b2", Shape.HASH),
        ("1001 1002 1003", Shape.NUMBER),
        ("a3f9c04e 7f9d41b2", None),
        ("a3f9c04e a3f9c04e a3f9c04e", None),
        ("a3f9c04e 7f9d41b2 deadbeef00 api", None),
        ("api www cdn", None),
        ("japaneast westus a3f9c04e", None),
        ("", None),
    ],
)
def test_what_labels_vary_by(labels: str, wanted: Shape | None) -> None:
    assert varying_shape(labels.split()) is wanted


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("md-a1 md-b2", "md-"),
        ("md-ssd-a1 md-ssd-b2", "md-ssd-"),
        ("md-ssd-a1 md-hdd-b2", "md-"),
        ("runner1 runner2", ""),
        ("a-b", "a-"),
        ("abc xyz", ""),
        ("", ""),
        ("-a -b", "-"),
    ],
)
def test_what_labels_begin_with(labels: str, wanted: str) -> None:
    assert common_prefix(labels.split()) == wanted


@given(st.text(max_size=80))
def test_any_text_has_a_shape(text: str) -> None:
    assert shape_of(text) in Shape


@given(st.lists(st.text("ab-1", max_size=6), min_size=1))
def test_the_common_prefix_is_one(labels: list[str]) -> None:
    found = common_prefix(labels)
    assert all(label.startswith(found) for label in labels)
    assert not found or found.endswith("-")


@given(st.lists(st.uuids(), min_size=3, max_size=3, unique=True))
def test_identifiers_are_hashes(identifiers: list[object]) -> None:
    assert varying_shape([str(one) for one in identifiers]) is Shape.HASH
