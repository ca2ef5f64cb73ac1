"""Refusals and errors as bytes: short text for people, JSON by Accept, never anything to cache.

JSON carries the facts, and ``errors`` as the OCI distribution specification has them, so that
docker, containerd and skopeo print the message. ``Proxy-Status`` (RFC 9209) says why too, because
a client shows the headers of a refused CONNECT (``curl -v``) and drops its body. Text that a peer
chose is capped and printed as ASCII; of it only ``detail`` reaches a header, as a quoted string.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, NamedTuple

CONNECT_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MAX_PEER_TEXT: Final = 300
_MAX_OWN_TEXT: Final = 400
_MAX_HEADER_TEXT: Final = 200

_VERBS: Final = {403: "denies", 502: "cannot reach", 504: "cannot reach"}


class _Words(NamedTuple):
    why: str
    advice: str
    proxy_status: str
    """RFC 9209 section 2.3."""


_ASK: Final = "ask the owner of the egress policy to allow it"
_WORDS: Final[dict[str, _Words]] = {
    "rule": _Words("a rule of the egress policy denies it", _ASK, "http_request_denied"),
    "default_deny": _Words("no rule of the egress policy allows it", _ASK, "http_request_denied"),
    "expired_rule": _Words(
        "the rule that allowed it has expired",
        "ask the owner of the egress policy to renew the rule",
        "http_request_denied",
    ),
    "ip_literal": _Words(
        "the host is an address, and this gateway allows names",
        "use the host name",
        "http_request_denied",
    ),
    "not_tls_or_http": _Words(
        "the bytes are neither TLS nor HTTP/1",
        "ask for a tcp rule, if this port is meant to carry something else",
        "http_request_error",
    ),
    "host_mismatch": _Words(
        "the request names two different hosts",
        "send the same name in both places",
        "http_request_error",
    ),
    "ambiguous_request": _Words(
        "two servers could read this request differently",
        "send a request as RFC 9112 has it",
        "http_request_error",
    ),
    "head_too_large": _Words("the request head is too large", "send less", "http_request_error"),
    "h2c_refused": _Words(
        "the protocol would hide whom each request is for",
        "use HTTP/1.1, or TLS",
        "http_request_denied",
    ),
    "hello_timeout": _Words(
        "the request head did not arrive in time",
        "send it at once",
        "http_request_error",
    ),
    "destination_mismatch": _Words(
        "the address that the client dialled is none of the name's",
        "look the name up with the DNS server that the gateway uses",
        "destination_ip_prohibited",
    ),
    "forbidden_address": _Words(
        "the address must not be dialled",
        "a private address can be listed in `addresses` of the rule; loopback, link-local, "
        "168.63.129.16 and the gateway's own never can",
        "destination_ip_prohibited",
    ),
    "loop": _Words(
        "it leads back to this gateway", "name another destination", "proxy_loop_detected"
    ),
    "limit_source": _Words(
        "this source has too many connections open",
        "close some, or ask for a higher max_flows_per_source",
        "connection_limit_reached",
    ),
    "limit_global": _Words(
        "the gateway has too many connections open",
        "try again later",
        "connection_limit_reached",
    ),
    "resolve_failed": _Words(
        "the name has no address now", "check the name; try again", "dns_error"
    ),
    "dial_failed": _Words(
        "no address of the host accepted the connection",
        "try again; the policy allows it",
        "destination_unavailable",
    ),
    "dial_timeout": _Words(
        "no address of the host answered in time",
        "try again; the policy allows it",
        "connection_timeout",
    ),
    "upstream_closed": _Words(
        "the host closed the connection without a whole answer",
        "try again; the policy allows it",
        "http_response_incomplete",
    ),
    "malformed_response": _Words(
        "the host's answer is no HTTP that can be passed on",
        "tell the owner of the host; the policy allows it",
        "http_protocol_error",
    ),
    "client_closed": _Words(
        "the request ended before it was complete", "send all of it", "http_request_error"
    ),
}
_UNKNOWN: Final = _Words("it cannot be served", _ASK, "proxy_internal_response")


def refusal(
    status: int,
    reason: str,
    *,
    host: str = "",
    rule: str = "",
    detail: str = "",
    accept: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """A whole response that says why; the connection closes after it.

    Args:
        status: 400, 403, 408, 431, 501, 502, 504, 505.
        reason: a ``policy.verdict.Reason`` value, ``upstream_closed``, ``malformed_response`` or
            ``client_closed``.
        host: ``name:port``, whom the request was for; escaped and capped here.
        rule: the id of the rule that decided, or nothing.
        detail: what exactly is wrong with the bytes (``str(WireError)``).
        accept: the request's Accept field; JSON where it asks for it.
        head_only: the request was HEAD.
    """
    words = _WORDS.get(reason, _UNKNOWN)
    facts = {
        "host": _printable(host, _MAX_PEER_TEXT),
        "reason": reason,
        "why": words.why,
        "rule": _printable(rule, _MAX_OWN_TEXT),
        "detail": _printable(detail, _MAX_OWN_TEXT),
        "advice": words.advice,
    }
    if host and words.advice is _ASK:
        facts["check"] = f"egressproxy check {facts['host']} --policy FILE"
    title = f"egressproxy {_VERBS.get(status, 'refuses')} {facts['host'] or 'this request'}"
    is_json = b"json" in accept.lower()
    body = _json(title, facts) if is_json else _text(title, facts)
    kind = "application/json" if is_json else "text/plain; charset=utf-8"
    details = f"{reason}: {words.why}" + (f"; {detail}" if detail else "")
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"Proxy-Status: egressproxy; error={words.proxy_status}; details={_quoted(details)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")
    return head if head_only else head + body


def _text(title: str, facts: dict[str, str]) -> bytes:
    lines = [title]
    lines += [f"  {key + ':':8}{value}" for key, value in facts.items() if value and key != "host"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _json(title: str, facts: dict[str, str]) -> bytes:
    message = f"{title}: {facts['why']} ({facts['reason']}); {facts['advice']}"
    document = {
        "proxy": "egressproxy",
        **facts,
        "errors": [{"code": "DENIED", "message": message}],
    }
    return (json.dumps(document) + "\n").encode("ascii")


def _quoted(text: str) -> str:
    """A String of RFC 9651 section 3.3.3: printable ASCII, backslash and quote escaped."""
    shown = _printable(_printable(text, _MAX_HEADER_TEXT), _MAX_HEADER_TEXT)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(text: str, limit: int) -> str:
    """ASCII without control characters, cut with ``...``; a terminal can show it safely."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    escaped = cut.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in escaped)
