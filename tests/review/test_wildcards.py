"""Names that differ only in what a machine made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.patterns import parse_pattern
from egressproxy.policy.lint_names import is_shared
from egressproxy.review.wildcards import wildcards

HASHES = ("a3f9c04e", "7f9d41b2", "deadbeef00", "0badcafe")

CASES = {
    "hashes": ([f"{h}.cdn.vendor.example" for h in HASHES], ["*.cdn.vendor.example"]),
    "regions": (
        [f"{r}.api.vendor.example" for r in ("japaneast", "westus", "eastus2")],
        ["*.api.vendor.example"],
    ),
    "numbered regions": (
        [f"{r}.api.vendor.example" for r in ("us-east-1", "eu-west-2", "ap-south-1")],
        ["*.api.vendor.example"],
    ),
    "behind a word": ([f"node-{h}.vendor.example" for h in HASHES], ["node-*.vendor.example"]),
    "behind two words": ([f"a-b-{h}.vendor.example" for h in HASHES], ["a-b-*.vendor.example"]),
    "behind different words": (
        [f"{w}-{h}.vendor.example" for w, h in zip("abcd", HASHES, strict=True)],
        [],
    ),
    "uuids": (
        [f"{n}b4e28ba-2fa1-11d2-883f-0016d3cca427.vendor.example" for n in range(3)],
        ["*.vendor.example"],
    ),
    "two are too few": ([f"{h}.cdn.vendor.example" for h in HASHES[:2]], []),
    "words": ([f"{w}.vendor.example" for w in ("api", "www", "cdn", "login")], []),
    "numbered words": ([f"cdn{n}.vendor.example" for n in range(9)], []),
    "words beside hashes are left": (
        ["api.vendor.example", *(f"{h}.vendor.example" for h in HASHES)],
        ["*.vendor.example"],
    ),
    "many numbered words": (
        [f"shard{n}.vendor.example" for n in range(12)],
        ["shard*.vendor.example"],
    ),
    "numbered words of two kinds": (
        [f"{w}{n}.vendor.example" for n in range(12) for w in ("shard", "api-")],
        ["api-*.vendor.example", "shard*.vendor.example"],
    ),
    "blob storage": ([f"{h}.blob.core.windows.net" for h in HASHES], []),
    "pages of anybody": ([f"{h}.github.io" for h in HASHES], []),
    "a cloud's functions": ([f"{h}.execute-api.us-east-1.amazonaws.com" for h in HASHES], []),
    "a public suffix": ([f"{h}.co.uk" for h in HASHES], []),
    "above shared suffixes": ([f"{h}.azure.com" for h in HASHES], []),
    "API servers": ([f"{h}.hcp.japaneast.azmk8s.io" for h in HASHES], []),
    "no domain": ([f"{h}.internal" for h in HASHES], []),
    "one label": (list(HASHES), []),
    "not the left-most label": ([f"api.{h}.vendor.example" for h in HASHES], []),
    "two suffixes": (
        [f"{h}.{s}.example" for h in HASHES for s in "ab"],
        ["*.a.example", "*.b.example"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wildcards(case: str) -> None:
    names, wanted = CASES[case]
    assert sorted(str(one.pattern) for one in wildcards(dict.fromkeys(names))) == wanted


def test_what_is_asked_for_otherwise_is_kept_apart() -> None:
    names = {
        f"{h}.vendor.example": port for h, port in zip(HASHES, (443, 443, 80, 80), strict=True)
    }
    assert not wildcards(names)


LABELS = st.one_of(
    st.sampled_from(["api", "www", "japaneast", "westus2", "node-a3f9c04e"]),
    st.uuids().map(lambda one: one.hex[:12]),
    st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
)
SUFFIXES = st.sampled_from(["vendor.example", "blob.core.windows.net", "github.io", "x.co.uk"])


@given(st.lists(st.tuples(LABELS, SUFFIXES), max_size=30))
def test_a_wildcard_means_its_names_and_is_nobody_elses(parts: list[tuple[str, str]]) -> None:
    names = {f"{label}.{suffix}": None for label, suffix in parts}
    found = wildcards(names)
    taken = [name for one in found for name in one.names]
    assert len(taken) == len(set(taken))
    for one in found:
        assert parse_pattern(str(one.pattern)) == one.pattern
        assert not is_shared(one.pattern.suffix)
        assert len(one.names) >= 3
        assert all(one.pattern.matches(name) for name in one.names)
