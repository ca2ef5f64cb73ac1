"""A flow record that was expected and did not come, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOLD: Final = frozenset({"action", "reason", "name"})
"""Fields that have a place of their own in the sentence."""


def absence(wanted: Mapping[str, Any], seen: Sequence[Mapping[str, Any]]) -> str:
    """That none of the records ``seen`` has the fields ``wanted``, and what they are instead."""
    name = f" of {wanted['name']}" if "name" in wanted else ""
    facts = [f"reason {wanted['reason']}"] if "reason" in wanted else []
    facts += _others(wanted, wanted)
    but = f" ({', '.join(facts)})" if facts else ""
    there = ", ".join(_brief(record, wanted) for record in seen) or "none"
    return f"no {wanted.get('action', 'record')}{name}{but} in the flow log; there were: {there}"


def _brief(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    what = record.get("name") or record.get("dst_ip") or "(no name)"
    others = _others(record, wanted)
    told = f" ({', '.join(others)})" if others else ""
    return f"{record.get('action')} {what} {record.get('reason')}{told}"


def _others(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [f"{key} {record.get(key)}" for key in wanted if key not in _TOLD]
