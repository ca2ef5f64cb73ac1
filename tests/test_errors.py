"""Messages are built from fields, with the hint in place."""

from __future__ import annotations

import pytest

from egressproxy import errors

MESSAGES = {
    "with a hint": (errors.PatternError("bad", hint="write *.x"), "bad (hint: write *.x)"),
    "without": (errors.PatternError("bad"), "bad"),
    "a problem with a place": (
        errors.Problem("p.yaml", 3, 7, "unknown key", "did you mean 'to'?"),
        "p.yaml:3:7: unknown key, hint: did you mean 'to'?",
    ),
    "a problem of a file": (errors.Problem("p.yaml", 0, 0, "not found"), "p.yaml: not found"),
    "all problems of a policy": (
        errors.PolicyError(
            (errors.Problem("a", 1, 1, "x", "y"), errors.Problem("b", 2, 1, "z")),
        ),
        "a:1:1: x, hint: y\nb:2:1: z",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str) -> None:
    value, text = MESSAGES[case]
    assert str(value) == text


def test_codes_are_stable() -> None:
    found = errors.EgressproxyError.__subclasses__()
    tree = [each for each in found if each.__module__ == errors.__name__]
    assert {each.__name__: each.code for each in tree} == {
        "InvalidNameError": "invalid_name",
        "PatternError": "invalid_pattern",
        "PortError": "invalid_port",
        "WireError": "malformed",
        "CatalogError": "catalog",
        "ServiceError": "service",
        "KernelError": "kernel",
        "StoreError": "store",
        "PolicyError": "policy",
        "AddressError": "invalid_address",
    }
    assert errors.WireError("x", code="no_sni").code == "no_sni"


NEAR = {
    "near": ("quey", ["query", "other"], ["query"]),
    "nothing": ("x", ["query"], []),
    "a long word costs nothing": ("q" * 81, ["q" * 82], []),
    "of many, those that begin alike": ("grxup49", [f"group{i}" for i in range(5000)], ["group49"]),
    "of many": ("group50x", [f"g{i}roup50" for i in range(500)] + ["group50"], ["group50"]),
}


@pytest.mark.parametrize(("word", "known", "expected"), NEAR.values(), ids=NEAR)
def test_near_words(word: str, known: list[str], expected: list[str]) -> None:
    assert errors.near_words(word, known)[:1] == expected
