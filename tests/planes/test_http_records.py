"""One record a judged name, bounded, finished exactly once."""

from __future__ import annotations

from dataclasses import replace

from egressproxy.names import DnsName
from egressproxy.planes.http_commands import CloseReason, Finished
from egressproxy.planes.http_outbox import Outbox
from egressproxy.planes.http_records import MAX_NAMES, Records, same_verdict
from egressproxy.policy.rules import Origin, Rule
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.wire.http_authority import Authority

ALLOW = Verdict(Action.ALLOW, Reason.RULE, "r")
FAILED = Verdict(Action.ERROR, Reason.DIAL_FAILED, "r")


def host(number: int) -> Authority:
    return Authority(DnsName(f"h{number}.example"), None, 80)


def test_a_name_used_again_is_the_same_record() -> None:
    out = Outbox()
    records = Records(out)
    first = records.use(host(1), ALLOW)
    assert records.use(host(1), replace(ALLOW)) is first
    records.finish(CloseReason.DONE)
    assert out.take() == [Finished(first)]
    records.finish(CloseReason.DONE)
    assert out.take() == []


def test_the_longest_unused_gives_way() -> None:
    out = Outbox()
    records = Records(out)
    opened = [records.use(host(number), ALLOW) for number in range(MAX_NAMES)]
    records.use(host(0), ALLOW)
    out.take()
    records.use(host(MAX_NAMES), ALLOW)
    finished = [each.record for each in out.take() if isinstance(each, Finished)]
    assert finished == [opened[1]]
    assert finished[0].close_reason is CloseReason.EVICTED


def test_an_error_takes_the_place_of_a_record_without_requests() -> None:
    out = Outbox()
    records = Records(out)
    record = records.use(host(1), ALLOW)
    records.deny(host(1), FAILED, CloseReason.ERROR)
    assert out.take() == [Finished(record)]
    assert (record.verdict, record.requests) == (FAILED, 1)


def test_an_error_after_requests_is_a_record_of_its_own() -> None:
    out = Outbox()
    records = Records(out)
    record = records.use(host(1), ALLOW)
    record.requests = 3
    records.deny(host(1), FAILED, CloseReason.ERROR)
    records.finish(CloseReason.ERROR)
    finished = [each.record for each in out.take() if isinstance(each, Finished)]
    assert [(each.verdict, each.requests) for each in finished] == [(FAILED, 1), (ALLOW, 3)]


def test_a_released_record_is_somebody_else_s() -> None:
    out = Outbox()
    records = Records(out)
    records.release(records.use(host(1), ALLOW))
    out.take()
    records.finish(CloseReason.DONE)
    assert out.take() == []


def test_verdicts_that_dial_differently_are_not_the_same() -> None:
    rule = Rule(id="r", action=Action.ALLOW, ports=(), origin=Origin("f", 1))
    with_rule = replace(ALLOW, rule=rule)
    assert same_verdict(ALLOW, replace(ALLOW))
    assert same_verdict(with_rule, replace(with_rule, rule=replace(rule)))
    assert not same_verdict(ALLOW, with_rule)
    assert not same_verdict(ALLOW, replace(ALLOW, rule_id="other"))
