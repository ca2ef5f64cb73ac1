"""The JSON Schema agrees with the loader: what loads is valid, what editors must mark is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator

from egressproxy.policy.problems import Problems
from egressproxy.policy.schema import policy_schema
from egressproxy.policy.yaml_nodes import Mapping, Node, Scalar, Sequence, parse_yaml
from egressproxy.policy.yaml_scalars import is_null

if TYPE_CHECKING:
    from tests.policy.conftest import Finder, Loader

POLICIES = Path(__file__).parents[2] / "policies"
HEAD = "version: 1\ncloud: AzureCloud\n"


def plain(node: Node) -> object:
    """What an editor's YAML 1.2 reader sees."""
    match node:
        case Scalar():
            if is_null(node):
                return None
            if node.is_plain and node.text in ("true", "false"):
                return node.text == "true"
            return int(node.text) if node.is_plain and node.text.isdecimal() else node.text
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key.text: plain(value) for key, value in node.entries}


def errors(text: str, *, included: bool = False) -> list[str]:
    node = parse_yaml(text.encode(), Problems().of("f"))
    assert node is not None
    schema = policy_schema(included=included)
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(plain(node))]


VALID = {
    "nothing": "",
    "empty keys": "rules:\nrequirements: []\nsources:\nparameters: ~\ninclude:\n",
    "a rule": "rules:\n  - {name: a b, action: deny, to: ['*.example.com', 10.0.0.0/8],"
    " ports: ['udp:1-2'], until: 2026-12-31, mode: audit, sni: same, ech: refuse}\n",
    "requirements": "parameters: {location: japaneast, private_cluster: true}\nrequirements:\n"
    "  - mcr\n  - aks/ntp:\n  - acr: {registry: myregistry, regions: [eastus],"
    " data_endpoint: blob, addresses: [10.5.0.0/24]}\n",
    "settings": "mode: audit\naudit_until: 2026-12-31\ndestination: strict\nrefusal: drop\n"
    "on_reload: keep\nsources: {a: [10.0.0.0/8]}\ninclude: [a.yaml, {file: b.yaml, from: [a]}]\n",
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_valid(text: str) -> None:
    assert errors(HEAD + text) == []


INVALID = {
    "no cloud": ("version: 1\n", "'cloud' is a required property"),
    "version": ("version: 2\ncloud: AzureCloud\n", "1 was expected"),
    "unknown key": (HEAD + "ruels: []\n", "'ruels' was unexpected"),
    "unknown key of a rule": (
        HEAD + "rules: [{to: [a.example.com], port: [https], ports: [https]}]\n",
        "'port' was unexpected",
    ),
    "port": (HEAD + "rules: [{to: [a.example.com], ports: [443]}]\n", "443 is not of type"),
    "empty list": (HEAD + "rules: [{to: [], ports: [https]}]\n", "[] should be non-empty"),
    "mode": (HEAD + "mode: on\n", "'on' is not one of ['enforce', 'audit', 'warn-on-new']"),
    "parameter": (HEAD + "parameters: {locaton: x}\n", "'locaton' was unexpected"),
    "group": (HEAD + "sources: {a b: [10.0.0.0/8]}\n", "'a b' does not match"),
}


@pytest.mark.parametrize(("text", "expected"), INVALID.values(), ids=INVALID)
def test_invalid(problems: Finder, text: str, expected: str) -> None:
    assert any(expected in one for one in errors(text))
    assert problems(text, head="")


def test_included_files_have_a_schema_of_their_own(load: Loader) -> None:
    assert errors("rules: []\n", included=True) == []
    assert errors("mode: audit\n", included=True) == [
        "Additional properties are not allowed ('mode' was unexpected)"
    ]


def test_shipped_policies_are_valid() -> None:
    if not POLICIES.is_dir():
        pytest.skip("installed without the policies folder")
    for path in POLICIES.glob("*.yaml"):
        assert errors(path.read_text(encoding="utf-8")) == [], path.name
