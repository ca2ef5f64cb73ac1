"""Every limit and timeout, with unit and range; settable by flag, environment and file.

A field ``idle_timeout_s`` is the flag ``--idle-timeout-s``, the variable
``EGRESSPROXY_IDLE_TIMEOUT_S`` and the key ``idle_timeout_s`` of ``--config FILE``; the flag wins
over the variable, the variable over the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from egressproxy.errors import ServiceError

ENVIRONMENT_PREFIX: Final = "EGRESSPROXY_"


def _setting(default: Any, about: str, low: float, high: float) -> Any:
    return field(default=default, metadata={"help": about, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and timeouts of one service; a value outside its range raises ``ServiceError``."""

    hello_timeout_s: float = _setting(
        5.0, "from accept to a whole ClientHello or request head", 0.05, 120
    )
    max_hello_bytes: int = _setting(65536, "ClientHello, record headers included", 512, 1 << 20)
    max_request_head_bytes: int = _setting(65536, "HTTP request head", 512, 1 << 20)
    resolve_timeout_s: float = _setting(5.0, "all servers and retries of one name", 0.1, 60)
    dial_timeout_s: float = _setting(5.0, "one address", 0.1, 120)
    dial_total_timeout_s: float = _setting(15.0, "all addresses of one flow", 0.1, 300)
    happy_eyeballs_delay_s: float = _setting(0.25, "before the next address, RFC 8305", 0.01, 5)
    idle_timeout_s: float = _setting(
        7200.0, "no byte either way; konnectivity's keepalive is 1 h", 1, 7 * 86400
    )
    half_closed_timeout_s: float = _setting(300.0, "one direction closed and no byte", 0.1, 86400)
    keepalive_s: int = _setting(60, "TCP keepalive on both legs", 1, 7200)
    refusal_drain_timeout_s: float = _setting(1.0, "read after a refusal is sent", 0.0, 30)
    refusal_drain_bytes: int = _setting(1 << 20, "read after a refusal is sent", 0, 1 << 26)
    drain_timeout_s: float = _setting(30.0, "from SIGTERM until flows are cut", 0, 86400)
    max_flows: int = _setting(20_000, "flows of all workers", 1, 10_000_000)
    max_flows_per_source: int = _setting(
        2_000, "flows of one source address; a node stands for all its pods", 1, 10_000_000
    )
    dns_min_ttl_s: float = _setting(5.0, "answers live at least this long", 0, 3600)
    dns_max_ttl_s: float = _setting(300.0, "answers live at most this long", 1, 86400)
    dns_negative_ttl_s: float = _setting(5.0, "a name without addresses is remembered", 0, 600)
    dns_cache_entries: int = _setting(10_000, "names in a worker's resolver cache", 1, 10_000_000)
    dns_in_flight: int = _setting(1_000, "names a worker asks for at once", 1, 100_000)
    address_grace_s: float = _setting(
        900.0,
        "an address opens network rules by name for so long after its TTL, and its last flow",
        30,
        86400,
    )
    address_book_entries: int = _setting(
        65536, "pairs of name and address remembered", 256, 10_000_000
    )
    log_queue_records: int = _setting(10_000, "records waiting to be written", 1, 10_000_000)
    worker_timeout_s: float = _setting(
        20.0, "a worker that does not answer for so long is replaced", 0.5, 600
    )
    log_rotate_bytes: int = _setting(
        100 << 20, "a log file is renamed at this size; 0 never", 0, 1 << 40
    )
    log_rotate_files: int = _setting(5, "renamed log files kept: FILE.1, FILE.2, …", 1, 1000)
    fold_window_s: float = _setting(10.0, "identical denies within are one record", 0, 3600)
    review_max_age_days: int = _setting(30, "the review store forgets what is older", 1, 3660)
    review_max_bytes: int = _setting(
        1 << 30, "the review store forgets the oldest above this size", 16 << 20, 1 << 44
    )

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            low, high = limit.metadata["low"], limit.metadata["high"]
            if not low <= value <= high:
                raise ServiceError(
                    f"{limit.name} is {value}, outside {low:g} to {high:g}",
                    hint=limit.metadata["help"],
                )
