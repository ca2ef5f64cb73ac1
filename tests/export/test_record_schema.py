"""The JSON Schema says what is written, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from egressproxy.export.record_schema import SCHEMA_ID, record_schema
from egressproxy.observe.record import FlowRecord, to_json_line
from tests.export.records import record, records

VALIDATOR = Draft202012Validator(record_schema())
PUBLISHED = Path(__file__).parents[2] / "docs" / "flow-record.schema.json"


@given(records())
def test_every_line_is_valid(given_record: FlowRecord) -> None:
    VALIDATOR.validate(json.loads(to_json_line(given_record)))


def test_every_key_is_described() -> None:
    line = json.loads(to_json_line(record()))
    properties = record_schema()["properties"]
    assert list(line) == list(properties)
    assert all(shape["description"] for shape in properties.values())


def test_the_schema_itself_is_one() -> None:
    Draft202012Validator.check_schema(record_schema())
    assert record_schema()["$id"] == SCHEMA_ID == "urn:egressproxy:flow-record:1"


def test_what_comes_later_does_no_harm() -> None:
    line = json.loads(to_json_line(record()))
    VALIDATOR.validate({**line, "a_key_of_tomorrow": 1})
    del line["hello_split"]
    VALIDATOR.validate(line)


BROKEN: dict[str, dict[str, Any]] = {
    "another version": {"schema": 2},
    "an unknown reason": {"reason": "because"},
    "a port out of range": {"dst_port": 65536},
    "a count of none": {"count": 0},
    "text for a number": {"bytes_up": "1"},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_what_no_gateway_writes_is_invalid(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**json.loads(to_json_line(record())), **change})


def test_golden_published_schema(request: pytest.FixtureRequest) -> None:
    """``docs/flow-record.schema.json`` is what the code says (make golden)."""
    text = json.dumps(record_schema(), indent=2) + "\n"
    if request.config.getoption("--update-golden"):
        PUBLISHED.write_text(text)
    assert PUBLISHED.read_text() == text
