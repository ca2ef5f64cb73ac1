"""Micro benchmarks on pure objects: parse a hello, decide, write a record (pytest-benchmark)."""

from __future__ import annotations

import time
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from bench.hello import client_hello
from egressproxy.names import DnsName
from egressproxy.observe.record import FlowRecord, NameSource, Plane, to_json_line
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.verdict import Action, Flow, Pass, Reason
from egressproxy.ports import Protocol
from egressproxy.wire.client_hello import HelloReader, parse_client_hello

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.ruleset import Ruleset

HELLO = client_hello("myregistry.japaneast.data.azurecr.io")
SIZES = (60, 10_000, 100_000, 1_000_000)
NAMES = 50_000
"""More than a memo holds, so that asking them in turn never hits it."""


def ruleset_of(size: int, folder: Path) -> Ruleset:
    half = size // 2
    lines = [f"host{n}.zone{n % 997}.example.com" for n in range(half)]
    lines += [f"*.wild{n}.example.net" for n in range(half)]
    (folder / "names.txt").write_text("\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text(
        "version: 1\ncloud: AzureCloud\n"
        "rules:\n  - {name: names, to: ['list:names.txt'], ports: [https]}\n"
    )
    return compile_policy(load_policy(folder / "policy.yaml"))


@pytest.fixture(scope="module", params=SIZES, ids="{:,} names".format)
def ruleset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ruleset:
    return ruleset_of(request.param, tmp_path_factory.mktemp("policy"))


def flow(name: str) -> Flow:
    return Flow(Protocol.TLS, "10.240.0.4", 443, DnsName(name), "20.150.1.1")


@pytest.mark.benchmark(group="parse a ClientHello of 517 octets")
def test_parse(benchmark: Any) -> None:
    assert benchmark(parse_client_hello, HELLO).name == "myregistry.japaneast.data.azurecr.io"


@pytest.mark.benchmark(group="parse a ClientHello of 517 octets")
def test_parse_in_two_segments(benchmark: Any) -> None:
    def parse() -> object:
        reader = HelloReader()
        reader.feed(HELLO[:200])
        return reader.feed(HELLO[200:])

    assert benchmark(parse) is not None


@pytest.mark.benchmark(group="decide, a name seen before")
def test_decide_known(benchmark: Any, ruleset: Ruleset) -> None:
    now, asked = time.time(), flow("a.wild7.example.net")
    assert benchmark(ruleset.decide, asked, now).is_allow


@pytest.mark.benchmark(group="decide, a new name each time")
def test_decide_new(benchmark: Any, ruleset: Ruleset) -> None:
    now = time.time()
    names = cycle([flow(f"a{n}.b.wild{n % 30}.example.net") for n in range(NAMES)])
    assert benchmark(lambda: ruleset.decide(next(names), now)).is_allow


@pytest.mark.benchmark(group="write a record")
def test_record(benchmark: Any) -> None:
    record = FlowRecord(
        time=1_790_000_000.123,
        flow_id="1-42",
        action=Action.DENY,
        reason=Reason.DEFAULT_DENY,
        plane=Plane.TRANSPARENT,
        protocol="tls",
        src_ip="10.240.0.4",
        src_port=40000,
        dst_port=443,
        decided_by=Pass.APPLICATION,
        dst_ip="52.85.1.1",
        name="exfiltration.example.net",
        name_source=NameSource.SNI,
        alpn=("h2", "http/1.1"),
        tls_versions=("1.3", "1.2"),
    )
    assert benchmark(to_json_line, record).endswith(b"}\n")
