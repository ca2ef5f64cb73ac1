"""JSON Schema of the policy document, for editors: derived from the readers, so it cannot drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.document import INCLUDED, ROOT

if TYPE_CHECKING:
    from egressproxy.policy.fields import Schema

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def policy_schema(*, included: bool = False) -> Schema:
    """The schema of a root policy, or of a file that is included."""
    record = INCLUDED if included else ROOT
    return {
        "$schema": DIALECT,
        "title": f"egressproxy: {record.what}",
        **record.schema(),
    }
