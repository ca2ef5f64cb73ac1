"""The whole service with a review store: what it records, and what a kill at any moment costs."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.running import ECHO, POLICY, poll, records_in, running, started
from tests.service.up import hub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.running import Service, World

pytestmark = pytest.mark.netns

FLOWS = """\
SELECT subject.name, subject.action, record.flow_id, record.count, record.close_reason
FROM record JOIN subject ON record.subject_id = subject.id
"""


def ask(place: Path, question: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as connection:
        return connection.execute(question).fetchall()


def recorder_of(service: Service) -> int:
    """The pid of its recorder: a child of the supervisor with that module on its command line."""
    children: list[int] = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text, line = status.read_text(), (status.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"PPid:\t{service.process.pid}\n" in text and "egressproxy.service.recorder" in line:
            children.append(int(status.parent.name))
    assert len(children) == 1
    return children[0]


def deny(service: Service, name: str) -> None:
    connection = service.connect()
    status, _ = service.try_tunnel(connection, ECHO, name)
    connection.close()
    assert status == 403


def logged(service: Service) -> list[dict[str, Any]]:
    return records_in(service.folder / "flows")


def metrics(service: Service) -> str:
    return str(service.ask("/metrics")[1])


def flow_ids(service: Service) -> list[str]:
    return [each["flow_id"] for each in logged(service)]


def stored(place: Path) -> set[str]:
    return {flow_id for _, _, flow_id, *_ in ask(place, FLOWS)}


@contextmanager
def load(service: Service) -> Iterator[None]:
    """Denies of ever new names, until the block ends; then the service may be gone."""
    stop = threading.Event()
    port = service.port

    def refuse() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                with service.place.connect("127.0.0.1", port, timeout_s=1.0) as connection:
                    service.try_tunnel(connection, ECHO, f"n{number}.example")
            except (OSError, ValueError, AssertionError, IndexError):
                continue

    threads = [threading.Thread(target=refuse) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_flows_and_reloads_are_recorded_and_remembered(gate: World) -> None:
    place = gate.folder / "recorded.db"
    with running(gate, "--review-store", str(place), "--gateway", "gw-1") as service:
        deny(service, "no.example")
        service.tunnel().close()
        service.policy.write_text(POLICY.replace("up.test", "up.test, other.test"))
        service.wait_for("policy reloaded")
        poll("both are stored", lambda: len(ask(place, FLOWS)) == 2)
        shown = metrics(service)
        assert "egressproxy_review_stored_records_total 2.0" in shown
        assert "egressproxy_first_seen_names_total 2.0" in shown
        assert "egressproxy_review_dropped_records_total 0.0" in shown
    found = {(name, action) for name, action, *_ in ask(place, FLOWS)}
    assert found == {("no.example", "deny"), ("up.test", "allow")}
    assert stored(place) == set(flow_ids(service))
    assert ask(place, "SELECT gateway, allows FROM recording") == [("gw-1", "all")]
    outcomes = ask(place, "SELECT outcome, report FROM reload ORDER BY id")
    assert [outcome for outcome, _ in outcomes] == ["applied", "applied"]
    assert "other.test" in json.dumps(json.loads(outcomes[1][1])["changes"])
    assert not service.said("the recorder ended, flows go on")


def test_a_store_that_cannot_be_had_is_an_error_with_a_hint(gate: World) -> None:
    with started(gate, "--review-store", "/nonexistent/review.db") as service:
        assert service.process.wait(30) == 2
        poll("its message", lambda: "make the folder first" in "".join(service.raw))
    assert "Traceback" not in "".join(service.raw)


def test_flows_go_on_while_recorders_are_killed(gate: World) -> None:
    """Only what was not yet written can be lost; what is in the pipe is read by the next one."""
    place, at_risk = gate.folder / "killed.db", set[str]()
    with running(gate, "--review-store", str(place), "--fold-window-s", "0") as service:
        with load(service):
            for restarts in range(1, 4):
                known = set(flow_ids(service))
                poll("new ones are stored", lambda: stored(place) - known)  # noqa: B023
                written = stored(place)
                os.kill(recorder_of(service), signal.SIGKILL)
                at_risk |= set(flow_ids(service)) - written
                service.wait_for("the recorder ended, flows go on", times=restarts)
        assert service.is_ready()
        again = "egressproxy_recorder_restarts_total 3.0"
        poll("the last one is replaced", lambda: again in metrics(service))
        found = re.search(
            r"^egressproxy_review_dropped_records_total (\d+)", metrics(service), re.M
        )
    assert found
    lost = set(flow_ids(service)) - at_risk - stored(place)
    assert len(lost) <= int(found[1]), "beyond a kill nothing is lost but what is counted"
    assert ask(place, "PRAGMA integrity_check") == [("ok",)]


def test_a_killed_supervisor_costs_a_second_at_most(gate: World) -> None:
    place = gate.folder / "orphaned.db"
    with running(gate, "--review-store", str(place), "--fold-window-s", "0") as service:
        recorder = recorder_of(service)
        with load(service):
            poll("some flows", lambda: len(logged(service)) > 60)
            service.process.kill()
            service.process.wait()
        poll("the recorder has ended by itself", lambda: not Path(f"/proc/{recorder}").exists())
        assert set(flow_ids(service)) == stored(place), "its recorder lost nothing"
    assert ask(place, "PRAGMA integrity_check") == [("ok",)]


def reload_command(service: Service, *words: str) -> tuple[int, str]:
    """``egressproxy reload`` as its user runs it: exit code and what it prints."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "egressproxy", "reload"),
            *("--admin", f"unix:{service.admin_socket}", *words),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_reload_that_closes_yesterday_s_flows_wants_force(gate: World) -> None:
    place = gate.folder / "gated.db"
    options = ("--review-store", str(place), "--review-max-newly-denied", "1")
    with running(gate, *options) as service:
        for _ in range(3):
            service.tunnel().close()
        poll("three flows are stored", lambda: len(ask(place, FLOWS)) == 3)
        service.policy.write_text(POLICY.replace("up.test", "down.test"))
        refused = service.wait_for("policy refused, the old one stays")
        assert "3 of 3 flows: up.test:7000 (3); 1 are accepted" in refused["error"]
        service.tunnel().close()  # the old policy is in force
        code, said = reload_command(service)
        assert code == 1
        assert "it would newly deny" in said
        assert "egressproxy reload --force" in said
        code, said = reload_command(service, "--force")
        assert (code, said.partition(":")[0]) == (0, "applied")
        connection = service.connect()
        assert service.try_tunnel(connection, ECHO, "up.test")[0] == 403
        connection.close()
    outcomes = [outcome for (outcome,) in ask(place, "SELECT outcome FROM reload ORDER BY id")]
    assert outcomes == ["applied", "refused", "refused", "applied"]


def test_a_reload_that_would_end_an_open_tunnel_wants_force(gate: World) -> None:
    """It is in no record yet: its own will be written when it ends."""
    place = gate.folder / "tunnel.db"
    options = ("--review-store", str(place), "--review-max-newly-denied", "0")
    with running(gate, *options) as service, service.tunnel() as tunnel:
        service.policy.write_text(POLICY.replace("up.test", "down.test"))
        refused = service.wait_for("policy refused, the old one stays")
        assert "1 of 1 flows: up.test:7000 (1); 0 are accepted" in refused["error"]
        tunnel.sendall(b"on")
        assert tunnel.recv(2) == b"on"


@pytest.mark.timeout(90)
def test_what_the_kernel_does_is_recorded_too(tmp_path: Path) -> None:
    """Its denies as records; what it forwards by a rule as packets of that rule."""
    place = tmp_path / "up.db"
    with hub(tmp_path) as at, at.up("--review-store", str(place)) as service:
        service.wait_for("ready")
        assert not at.reaches(7001)
        question = "SELECT plane, action FROM subject WHERE dst_port = 7001"
        poll("the kernel's deny is stored", lambda: ask(place, question))
        assert ask(place, question) == [("network", "deny")]
        assert at.reaches(7000)
        metric = 'egressproxy_kernel_judged_packets_total{outcome="rule_allow"}'
        poll("its counter was looked at", lambda: f"{metric} 1.0" in metrics(service))
    assert ask(place, "SELECT rule, packets FROM rule_hits") == [("rules/net", 1)]
