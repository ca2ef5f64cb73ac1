"""The explicit plane with clients that know their proxy: CONNECT, absolute-form, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.clients import Clients, Kind
from lab.gateway import EXPLICIT_PORT
from lab.programs import Finished, client, missing

if TYPE_CHECKING:
    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]


def _curl(gateway: Gateway, *argv: str, family: int = 0) -> Finished:
    host = sites.HUB_INSIDE[family]
    proxy = f"http://{f'[{host}]' if ':' in host else host}:{EXPLICIT_PORT}"
    spoke, trust = gateway.lab.net.spoke, gateway.lab.trust
    return client(spoke, "curl", "-sS", "-x", proxy, *argv, environment=trust)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("scheme", "source"), [("https", "sni"), ("http", "host")])
def test_allowed(gw: Gateway, family: int, scheme: str, source: str) -> None:
    mark = gw.records.mark()
    done = _curl(gw, f"{scheme}://www.contoso.example/", family=family)
    assert "Hello from www.contoso.example/" in done.stdout, done.text
    record = gw.record(skip=mark, name="www.contoso.example", action="allow")
    assert (record["plane"], record["name_source"]) == ("explicit", source)
    assert record["src_ip"] == sites.SPOKE_NODE[family]


def test_denied_connect_says_why(gw: Gateway) -> None:
    mark = gw.records.mark()
    done = _curl(gw, "-v", "https://example.com/")
    assert "HTTP/1.1 403" in done.text
    record = gw.record(skip=mark, name="example.com")
    assert (record["action"], record["reason"]) == ("deny", "default_deny")
    assert record["name_source"] == "connect"


def test_denied_request_says_why(gw: Gateway) -> None:
    done = _curl(gw, "http://example.com/")
    assert "default_deny" in done.stdout
    done = _curl(gw, "-H", "Accept: application/json", "http://example.com/")
    assert '"reason"' in done.stdout


def test_connect_to_an_address_is_no_name(gw: Gateway) -> None:
    mark = gw.records.mark()
    done = _curl(gw, "-k", f"https://{sites.CONTOSO.addresses[0]}/")
    assert done.code != 0
    record = gw.record(skip=mark, reason="ip_literal")
    assert (record["action"], record["plane"]) == ("deny", "explicit")


def test_openssl_through_connect(gw: Gateway) -> None:
    mark = gw.records.mark()
    proxy = f"{sites.HUB_INSIDE[0]}:{EXPLICIT_PORT}"
    target = ("-connect", f"{sites.CLUSTER}:443", "-servername", sites.CLUSTER)
    argv = ("openssl", "s_client", "-proxy", proxy, *target, "-alpn", "konnectivity,h2", "-brief")
    done = client(gw.lab.net.spoke, *argv, stdin="Q\n", environment=gw.lab.trust)
    assert "CONNECTION ESTABLISHED" in done.text
    record = gw.record(skip=mark, name=sites.CLUSTER, action="allow")
    assert record["alpn"] == ["konnectivity", "h2"]


def test_go_with_proxy_variables(gw: Gateway, clients: Clients) -> None:
    if missing("go"):
        pytest.skip("go is not installed")
    proxied = {"HTTPS_PROXY": gw.explicit, "HTTP_PROXY": gw.explicit, "NO_PROXY": ""}
    for url in ("https://www.contoso.example/", "http://www.contoso.example/"):
        done = clients.fetch(Kind.GO, url, environment=proxied)
        assert "Hello from www.contoso.example/" in done.stdout, done.text
    refused = clients.fetch(Kind.GO, "https://example.com/", environment=proxied)
    assert "Forbidden" in refused.text
