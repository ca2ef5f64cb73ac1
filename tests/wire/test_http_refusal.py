"""Refusals: whole responses, a reason a person can act on, nothing a peer could forge."""

from __future__ import annotations

import json
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.verdict import Reason
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_refusal import CONNECT_ESTABLISHED, refusal

SF_STRING = re.compile(rb'"(?:[ !#-\[\]-~]|\\["\\])*"')
"""RFC 9651 section 3.3.3."""


def parse(data: bytes, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head = connection.next_event()
    assert type(head) is h11.Response
    body = b""
    while type(event := connection.next_event()) is h11.Data:
        body += event.data
    assert type(event) is h11.EndOfMessage
    assert connection.their_state is h11.MUST_CLOSE
    assert connection.trailing_data == (b"", False)
    return head.status_code, dict(head.headers), body


def test_text_for_people() -> None:
    status, fields, body = parse(refusal(403, "default_deny", host="a.example:80", rule="rules/x"))
    assert status == 403
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"x-content-type-options"] == b"nosniff"
    assert fields[b"proxy-status"] == (
        b"egressproxy; error=http_request_denied; "
        b'details="default_deny: no rule of the egress policy allows it"'
    )
    assert body.decode() == (
        "egressproxy denies a.example:80\n"
        "  reason: default_deny\n"
        "  why:    no rule of the egress policy allows it\n"
        "  rule:   rules/x\n"
        "  advice: ask the owner of the egress policy to allow it\n"
        "  check:  egressproxy check a.example:80 --policy FILE\n"
    )


@pytest.mark.parametrize(
    "accept", [b"application/json", b"text/html, application/vnd.oci.image.index.v1+JSON;q=0.1"]
)
def test_json_where_it_is_asked_for(accept: bytes) -> None:
    _, fields, body = parse(refusal(403, "rule", host="a.example:80", rule="r", accept=accept))
    assert fields[b"content-type"] == b"application/json"
    document = json.loads(body)
    assert (document["proxy"], document["host"]) == ("egressproxy", "a.example:80")
    assert (document["reason"], document["rule"]) == ("rule", "r")
    assert document["check"] == "egressproxy check a.example:80 --policy FILE"
    assert document["errors"][0]["code"] == "DENIED"
    assert "egressproxy denies a.example:80" in document["errors"][0]["message"]


def test_the_answer_to_head_has_no_body() -> None:
    status, fields, body = parse(refusal(403, "rule", head_only=True), "HEAD")
    assert (status, body) == (403, b"")
    assert int(fields[b"content-length"]) > 0


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("two Host fields", b"two Host fields"),
        ('a "b" \\c', b'a \\"b\\" \\\\c'),
        ("\r\nSet-Cookie: a=b", b"\\\\x0d\\\\x0aSet-Cookie: a=b"),
        ("\u00e9", b"\\\\xe9"),
        ("\u0000\u007f", b"\\\\x00\\\\x7f"),
    ],
    ids=["plain", "quote and backslash", "line ends", "not ASCII", "controls"],
)
def test_details_of_proxy_status(detail: str, shown: bytes) -> None:
    _, fields, _ = parse(refusal(400, "ambiguous_request", detail=detail))
    assert fields[b"proxy-status"] == (
        b"egressproxy; error=http_request_error; "
        b'details="ambiguous_request: two servers could read this request differently; '
        + shown
        + b'"'
    )


def test_details_of_proxy_status_are_capped() -> None:
    _, fields, _ = parse(refusal(400, "ambiguous_request", detail="\U0001f600" * 400))
    assert len(fields[b"proxy-status"]) < 500
    assert fields[b"proxy-status"].endswith(b'..."')


@pytest.mark.parametrize("status", [400, 403, 408, 431, 501, 502, 504, 505])
def test_every_status_we_answer(status: int) -> None:
    assert parse(refusal(status, "ambiguous_request", detail="x"))[0] == status


@pytest.mark.parametrize(
    "reason",
    sorted(
        set(Fault) - {Fault.NO_SNI, Fault.MALFORMED_HELLO, Fault.HELLO_TOO_LARGE}
        | {
            Reason.RULE, Reason.DEFAULT_DENY, Reason.EXPIRED_RULE, Reason.HELLO_TIMEOUT,
            Reason.DESTINATION_MISMATCH, Reason.FORBIDDEN_ADDRESS, Reason.LIMIT_SOURCE,
            Reason.LIMIT_GLOBAL, Reason.LOOP, Reason.RESOLVE_FAILED, Reason.DIAL_FAILED,
            Reason.DIAL_TIMEOUT,
        }
        | {"upstream_closed", "malformed_response", "client_closed"}
    ),
)  # fmt: skip
def test_every_reason_an_http_client_can_see_has_its_own_words(reason: str) -> None:
    assert b"it cannot be served" not in refusal(403, reason)


@pytest.mark.parametrize("host", ["name.example:443", "127.0.0.1:443"])
def test_forbidden_address_is_worded_for_names_and_addresses(host: str) -> None:
    _, _, body = parse(refusal(403, "forbidden_address", host=host))
    assert body.decode() == (
        f"egressproxy denies {host}\n"
        "  reason: forbidden_address\n"
        "  why:    the address must not be dialled\n"
        "  advice: a private address can be listed in `addresses` of the rule; "
        "loopback, link-local, 168.63.129.16 and the gateway's own never can\n"
    )


def test_a_reason_of_tomorrow_is_answered_too() -> None:
    assert b"it cannot be served" in refusal(403, "new_reason")


def test_connect_established() -> None:
    assert CONNECT_ESTABLISHED.startswith(b"HTTP/1.1 200 ")
    assert CONNECT_ESTABLISHED.endswith(b"\r\n\r\n")


@given(st.text(max_size=600), st.text(max_size=600), st.sampled_from([b"", b"application/json"]))
def test_nothing_of_a_peer_can_forge_a_line_or_a_header(
    host: str, detail: str, accept: bytes
) -> None:
    data = refusal(403, "default_deny", host=host, detail=detail, accept=accept)
    _, fields, body = parse(data)
    assert len(data) < 8000
    assert SF_STRING.fullmatch(fields[b"proxy-status"].partition(b"; details=")[2])
    assert len(fields[b"proxy-status"]) < 500
    assert all(byte == 10 or 32 <= byte < 127 for byte in body)
    if accept:
        json.loads(body)
    else:
        assert body.count(b"\n") <= 7
