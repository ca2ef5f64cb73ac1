"""The deny log as a person reads it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS: Final = ("times", "name or address", "port", "reason", "rule or note")
_QUIET: Final = "closed_before_hello"


def rows(records: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Denies and errors of a flow log, the same ones counted together, most frequent first."""
    counted: Counter[tuple[str, ...]] = Counter()
    for record in records:
        if record["action"] == "allow" or record["reason"] == _QUIET:
            continue
        key = (
            str(record["name"] or record["dst_ip"] or "?"),
            f"{record['protocol']}:{record['dst_port']}",
            str(record["reason"]),
            str(record["note"] or record["rule"] or ""),
        )
        counted[key] += int(record["count"])
    return [(str(count), *key) for key, count in counted.most_common()]
