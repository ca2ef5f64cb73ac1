"""Real TLS clients: each passes where it may and learns of a refusal where it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.clients import Kind
from lab.programs import missing

if TYPE_CHECKING:
    from lab.clients import Clients
    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

POST_QUANTUM_BYTES = 1400  # X25519MLKEM768's key share alone is 1216 (draft-ietf-tls-ecdhe-mlkem)
REFUSAL_WORDS = {
    Kind.CURL: "access denied",
    Kind.OPENSSL: "access denied",
    Kind.GNUTLS: "Access was denied",
    Kind.GO: "access denied",
    Kind.JAVA: "access_denied",
    Kind.NODE: "access denied",
}
"""How each client words the alert; Chromium shows a page of its own."""


@pytest.fixture(params=list(Kind))
def kind(request: pytest.FixtureRequest) -> Kind:
    program = "javac" if request.param is Kind.JAVA else str(request.param)
    if missing(program):
        pytest.skip(f"{program} is not installed")
    return Kind(request.param)


@pytest.mark.parametrize("family", [4, 6])
def test_allowed_name_is_served_end_to_end(
    either: Gateway, clients: Clients, kind: Kind, family: int
) -> None:
    mark = either.records.mark()
    done = clients.fetch(kind, "https://mcr.microsoft.com/", family=family)
    assert "Hello from mcr.microsoft.com/" in done.stdout, done.text
    record = either.record(skip=mark, action="allow", name="mcr.microsoft.com")
    assert (record["reason"], record["rule"]) == ("rule", "aks/core#mcr")
    assert record["name_source"] == "sni"
    assert (":" in record["src_ip"]) is (family == 6)
    assert record["dst_ip"] == sites.MICROSOFT.addresses[0 if family == 4 else 1]


def test_denied_name_ends_with_an_alert(gw: Gateway, clients: Clients, kind: Kind) -> None:
    mark, seen = gw.records.mark(), gw.lab.events.mark()
    done = clients.fetch(kind, "https://example.com/")
    assert "Hello from" not in done.stdout
    assert REFUSAL_WORDS.get(kind, "") in done.text
    record = gw.record(skip=mark, name="example.com")
    assert (record["action"], record["reason"]) == ("deny", "default_deny")
    assert not [event for event in gw.lab.events.read()[seen:] if event["event"] == "tls"]


@pytest.mark.parametrize("kind", [Kind.GO, Kind.CHROMIUM], indirect=True)
def test_post_quantum_hello_passes_whole(either: Gateway, clients: Clients, kind: Kind) -> None:
    """Debian 12's own Go is older than 1.24 and sends a classical hello; Chromium's is not."""
    seen = either.lab.events.mark()
    done = clients.fetch(kind, "https://packages.microsoft.com/")
    assert "Hello from packages.microsoft.com/" in done.stdout, done.text
    event = either.lab.events.wait(
        lambda each: each.get("sni") == "packages.microsoft.com", skip=seen
    )
    size = len(event["hello"]) // 2
    if kind is Kind.CHROMIUM or clients.go_version() >= (1, 24):
        assert size > POST_QUANTUM_BYTES


def test_http_refusal_is_readable(either: Gateway, clients: Clients) -> None:
    done = clients.fetch(Kind.CURL, "http://example.com/")
    for word in ("example.com", "default_deny"):
        assert word in done.stdout


def test_ech_is_seen_and_can_be_refused(gw: Gateway, clients: Clients) -> None:
    """Chromium sends a GREASE extension, which looks the same as a real one."""
    if missing("chromium"):
        pytest.skip("chromium is not installed")
    mark = gw.records.mark()
    done = clients.fetch(Kind.CHROMIUM, "https://mcr.microsoft.com/")
    assert "Hello from mcr.microsoft.com/" in done.stdout, done.text
    assert gw.record(skip=mark, name="mcr.microsoft.com", action="allow")["ech"] is True
    gw.apply_policy(gw.policy_file.read_text() + "ech: refuse\n")
    mark = gw.records.mark()
    assert "Hello from" not in clients.fetch(Kind.CHROMIUM, "https://mcr.microsoft.com/").stdout
    record = gw.record(skip=mark, name="mcr.microsoft.com", action="deny")
    assert record["reason"] == "ech_refused"
