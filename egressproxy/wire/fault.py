"""Why bytes from a client are refused: the ``code`` of every ``WireError``.

The values are also values of ``policy.verdict.Reason`` (a test holds them together); the enum
stands here because wire must not know policy.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """A wire-level reason; what each means is documented at the ``Reason`` of the same value."""

    NO_SNI = "no_sni"
    IP_LITERAL = "ip_literal"
    MALFORMED_HELLO = "malformed_hello"
    HELLO_TOO_LARGE = "hello_too_large"
    NOT_TLS_OR_HTTP = "not_tls_or_http"
    AMBIGUOUS_REQUEST = "ambiguous_request"
    HEAD_TOO_LARGE = "head_too_large"
    H2C_REFUSED = "h2c_refused"
    HOST_MISMATCH = "host_mismatch"
