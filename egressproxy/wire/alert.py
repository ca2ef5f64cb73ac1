"""TLS alerts that refuse a ClientHello (RFC 8446 section 6)."""

from __future__ import annotations

from typing import Final


def fatal_alert(description: int) -> bytes:
    """An unencrypted fatal alert record.

    The record version is TLS 1.2's, which every client since 2008 reads before a version is agreed.
    """
    return bytes((21, 3, 3, 0, 2, 2, description))


ACCESS_DENIED: Final = fatal_alert(49)
"""``access_denied``: the sender decided not to go on (RFC 8446 section 6.2)."""
