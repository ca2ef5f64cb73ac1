"""What a collector receives: decoded by OTLP's own protobuf messages from real HTTP requests."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.errors import ServiceError
from egressproxy.export import otlp
from egressproxy.export.otlp import OtlpSender, attributes, sentence
from egressproxy.export.outlet import OtlpTarget
from egressproxy.observe.record import NameSource
from egressproxy.policy.verdict import Action, Pass, Reason
from tests.export.collector import collector, plain
from tests.export.records import MOMENT, record

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest


def test_a_collector_receives_records() -> None:
    requests: list[ExportLogsServiceRequest] = []
    allowed = record(action=Action.ALLOW, reason=Reason.RULE, rule="aks/core#mcr", alpn=("h2",))
    with collector(requests) as url:
        sender = OtlpSender(OtlpTarget(url), "hub-1", "0.1.0")
        sender.take([record(), allowed])
        sender.close()
    resources = [one for request in requests for one in request.resource_logs]
    about = {item.key: plain(item.value) for item in resources[0].resource.attributes}
    assert about["service.name"] == "egressproxy"
    assert (about["service.instance.id"], about["service.version"]) == ("hub-1", "0.1.0")
    logs = [log for one in resources for scope in one.scope_logs for log in scope.log_records]
    assert [log.severity_text for log in logs] == ["WARN", "INFO"]
    assert [log.severity_number for log in logs] == [13, 9]
    assert {log.time_unix_nano for log in logs} == {int(MOMENT * 1000) * 1_000_000}
    assert {log.event_name for log in logs} == {"egressproxy.flow"}
    assert plain(logs[0].body) == "deny tls:443 evil.example from 10.240.0.4: default_deny"
    denied, served = ({item.key: plain(item.value) for item in log.attributes} for log in logs)
    assert denied["egressproxy.reason"] == "default_deny"
    assert (denied["client.address"], denied["client.port"]) == ("10.240.0.4", 50123)
    assert (denied["server.address"], denied["server.port"]) == ("evil.example", 443)
    assert denied["tls.client.server_name"] == "evil.example"
    assert served["egressproxy.rule"] == "aks/core#mcr"
    assert served["egressproxy.alpn"] == ["h2"]
    assert "egressproxy.rule" not in denied


SENTENCES = {
    "deny": (record(), "deny tls:443 evil.example from 10.240.0.4: default_deny"),
    "by a rule": (
        record(reason=Reason.RULE, rule="rules/x", decided_by=Pass.APPLICATION),
        "deny tls:443 evil.example from 10.240.0.4: rule (rules/x)",
    ),
    "audit": (
        record(action=Action.ALLOW, would_deny=True),
        "would deny (default_deny) tls:443 evil.example from 10.240.0.4: default_deny",
    ),
    "no name": (
        record(name=None, protocol="udp", dst_port=53),
        "deny udp:53 20.1.2.3 from 10.240.0.4: default_deny",
    ),
    "a name that would act on a screen": (
        record(name="\x1b[31ma\u202eb\n"),
        "deny tls:443 \ufffd[31ma\ufffdb\ufffd from 10.240.0.4: default_deny",
    ),
    "nowhere": (
        record(name=None, dst_ip=None),
        "deny tls:443 somewhere from 10.240.0.4: default_deny",
    ),
}


@pytest.mark.parametrize(("given_record", "expected"), SENTENCES.values(), ids=SENTENCES)
def test_sentence(given_record: Any, expected: str) -> None:
    assert sentence(given_record) == expected


def test_attributes_say_what_there_is() -> None:
    found = attributes(record(name_source=NameSource.HOST, protocol="http", dst_ip=None))
    assert "tls.client.server_name" not in found
    assert "destination.address" not in found
    assert found["egressproxy.would_deny"] is False
    assert all(type(value) in (str, int, float, bool, list) for value in found.values())


def test_without_the_extra_a_person_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk._logs", None)
    with pytest.raises(ServiceError, match="not installed") as caught:
        OtlpSender(OtlpTarget("http://127.0.0.1:1/v1/logs"), "hub", "0.1.0")
    assert caught.value.hint == "pip install 'egressproxy[otlp]'"


def test_beyond_what_may_wait_records_are_lost_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "MAX_WAITING", 3)
    monkeypatch.setattr(otlp, "BATCH", 3)
    monkeypatch.setattr(otlp, "CLOSE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as nobody_reads:
        port = nobody_reads.getsockname()[1]
        sender = OtlpSender(OtlpTarget(f"http://127.0.0.1:{port}/v1/logs"), "hub", "0.1.0")
        sender.take([record()] * 5)
        assert (sender.lost, sender.waiting) == (2, 3)
        sender.take([record()])
        assert (sender.lost, sender.waiting) == (3, 3)
        sender.close()
        assert (sender.lost, sender.waiting) == (6, 0), "all that was not delivered"
        sender.take([record()])
        assert sender.lost == 7


def test_a_collector_that_was_away_gets_what_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "DELAY_MS", 10)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    sender = OtlpSender(OtlpTarget(f"http://127.0.0.1:{port}/v1/logs"), "hub", "0.1.0")
    sender.take([record()])
    deadline = time.monotonic() + 20.0
    while not sender.trouble:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    requests: list[ExportLogsServiceRequest] = []
    with collector(requests, port):
        while sender.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sender.close()
    assert len(requests) == 1
    assert (sender.lost, sender.trouble) == (0, "")
