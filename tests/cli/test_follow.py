"""``--follow``: what is there, then what comes, oldest first, until interrupted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.cli import follow as following
from egressproxy.cli.follow import follow
from egressproxy.cli.store_option import Place, Records
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Class, Filter, Finding
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from egressproxy.review.model import Subject

NOW: Final = 1_790_082_000.0  # 2026-09-22 13:00 UTC
DENY: Final = FlowRecord(
    NOW, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", "10.1.0.4", 443
)


class Judge:
    def finding(self, subject: Subject) -> Finding:
        is_odd = "odd" in (subject.name or "")
        return Finding(kind=Class.SUSPICIOUS if is_odd else Class.UNKNOWN, why="it is \x1b[31modd")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with open_store(str(tmp_path / "review.db")) as store:
        yield Records(store, "review.db")


def write(records: Records, *made: FlowRecord) -> None:
    Writer(records.store, gateway="gw", bounds=Bounds()).add(made)


def turns(*steps: Callable[[], None]) -> Callable[[float], None]:
    """What happens while it waits; then Ctrl-C."""
    left = list(steps)

    def wait(_: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    return wait


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_rows(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    write(records, DENY._replace(name="before.example", count=3))
    follow(
        records,
        Filter(),
        Judge(),
        is_json=False,
        wait=turns(
            lambda: write(records, DENY._replace(name="odd.example")),
            lambda: None,
            lambda: write(
                records,
                DENY._replace(name="\x1b[2J\r\n", would_deny=True, action=Action.ALLOW),
                DENY._replace(name="allowed.example", action=Action.ALLOW),
                DENY._replace(dst_ip="192.0.2.1", reason=Reason.NO_SNI),
            ),
        ),
    )
    rows = printed(capsys)
    assert rows == [
        "2026-09-22T13:00:00Z  deny   10.1.0.4         before.example tls:443 x3  default_deny"
        "  unknown: it is \ufffd[31modd",
        "2026-09-22T13:00:00Z  deny   10.1.0.4         odd.example tls:443  default_deny"
        "  suspicious: it is \ufffd[31modd",
        "2026-09-22T13:00:00Z  audit  10.1.0.4         \ufffd[2J\ufffd\ufffd tls:443  default_deny"
        "  unknown: it is \ufffd[31modd",
        "2026-09-22T13:00:00Z  deny   10.1.0.4         192.0.2.1 tls:443  no_sni"
        "  unknown: it is \ufffd[31modd",
    ]


def test_json_a_line(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    write(records, DENY._replace(name="a.example"))
    allow = DENY._replace(action=Action.ALLOW, rule="rules/x", name="b.example")
    step = turns(lambda: write(records, allow))
    follow(records, Filter(is_denied=None), Judge(), is_json=True, wait=step)
    first, second = map(json.loads, printed(capsys))
    assert (first["name"], first["class"]) == ("a.example", "unknown")
    assert (second["name"], second["class"], second["rule"]) == ("b.example", None, "rules/x")


def test_filters_and_classes(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("odd.example", "plain.example", "odd.other")
    where = Filter(names=("*.example",), classes=(Class.SUSPICIOUS,), until=NOW - 5)
    step = turns(lambda: write(records, *(DENY._replace(name=name) for name in names)))
    follow(records, where, Judge(), is_json=True, wait=step)
    assert [json.loads(row)["name"] for row in printed(capsys)] == ["odd.example"]


def test_the_last_few_first(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    write(records, *(DENY._replace(name=f"n{number:02}.example") for number in range(30)))
    follow(records, Filter(), None, is_json=True, wait=turns())
    names = [json.loads(row)["name"] for row in printed(capsys)]
    assert names == [f"n{number}.example" for number in range(20, 30)]


def test_more_than_a_batch_comes_at_once(
    records: Records, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_BATCH", 7)
    many = [DENY._replace(name=f"n{number}.example") for number in range(20)]
    follow(records, Filter(), None, is_json=True, wait=turns(lambda: write(records, *many)))
    assert len(printed(capsys)) == 20


def test_a_log_that_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    log = tmp_path / "flows.jsonl"
    log.write_bytes(to_json_line(DENY._replace(name="a.example")))

    def grow() -> None:
        with log.open("ab") as file:
            file.write(to_json_line(DENY._replace(name="b.example", time=NOW + 1)))

    with Place(None, (log,)).opened(now=NOW, since=None) as opened:
        follow(opened, Filter(), None, is_json=True, wait=turns(grow))
    assert [json.loads(row)["name"] for row in printed(capsys)] == ["a.example", "b.example"]
