"""The JSON Schema of a record's line (schema 1, draft 2020-12), for those who check or ingest it.

Additions keep the number: readers ignore keys they do not know. A key that goes, or means something
else, is a new number.
"""

from __future__ import annotations

from typing import Any, Final

from egressproxy.observe.record import MAX_LINE_BYTES, SCHEMA, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason

SCHEMA_ID: Final = f"urn:egressproxy:flow-record:{SCHEMA}"
_MAX_PORT: Final = 65535

_TEXT: Final = {"type": "string"}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_FLAG: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_PORT: Final = {"type": "integer", "minimum": 0, "maximum": _MAX_PORT}

_FIELDS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "schema": ({"const": SCHEMA}, "version of this form"),
    "time": ({"type": "string", "format": "date-time"}, "when the flow was accepted, UTC"),
    "flow_id": (_TEXT, "the same in all records of one connection"),
    "action": ({"enum": list(map(str, Action))}, "what became of the flow"),
    "reason": ({"enum": list(map(str, Reason))}, "why"),
    "rule": (_TEXT_OR_NULL, "id of the rule or requirement's row that decided"),
    "pass": ({"enum": list(map(str, Pass))}, "which pass decided"),
    "would_deny": (_FLAG, "allowed by audit alone"),
    "plane": ({"enum": list(map(str, Plane))}, "the way the flow came in"),
    "protocol": (_TEXT, "tls, http, tcp, udp, icmp, icmpv6, or an IP protocol's number"),
    "src_ip": (_TEXT, "the client"),
    "src_port": (_PORT, "the client's port"),
    "source_group": (_TEXT_OR_NULL, "the policy's name for the client"),
    "dst_ip": (_TEXT_OR_NULL, "where the client wanted to go"),
    "dst_port": (_PORT, "the port it wanted"),
    "name": (_TEXT_OR_NULL, "the name that was judged"),
    "name_source": ({"enum": list(map(str, NameSource))}, "what the name was read from"),
    "alpn": (_TEXTS, "application protocols offered by the client"),
    "tls_versions": (_TEXTS, "TLS versions offered by the client"),
    "ech": (_FLAG, "an Encrypted ClientHello, or GREASE that looks like one"),
    "hello_split": (_FLAG, "a small ClientHello in more pieces than it needs"),
    "dialled_ip": (_TEXT_OR_NULL, "the address that was dialled"),
    "destination_match": (
        {"enum": ["yes", "no", "unknown"]},
        "whether dst_ip is one of the name's addresses",
    ),
    "bytes_up": (_COUNT, "octets from the client"),
    "bytes_down": (_COUNT, "octets to the client"),
    "requests": (_COUNT, "HTTP requests of this name"),
    "duration_s": ({"type": "number", "minimum": 0}, "how long it lasted"),
    "close_reason": (_TEXT, "how it ended; open where it has not"),
    "policy": (_TEXT, "digest of the policy that judged"),
    "count": ({"type": "integer", "minimum": 1}, "how many alike flows this record stands for"),
    "note": (_TEXT, "the catalog's word on a denied name"),
}


def record_schema() -> dict[str, Any]:
    """The schema as a JSON object."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "egressproxy flow record",
        "description": f"One line of the record log; ASCII, at most {MAX_LINE_BYTES} octets.",
        "type": "object",
        "properties": {
            name: {**shape, "description": about} for name, (shape, about) in _FIELDS.items()
        },
        "required": [name for name in _FIELDS if name not in _ADDED],
    }


_ADDED: Final = frozenset({"hello_split"})
"""Keys that came later: an older gateway's lines do not have them."""
