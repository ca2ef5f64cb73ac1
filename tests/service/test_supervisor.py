"""The whole service as a process: start, workers that die, drain, end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.running import POLICY, poll, records_in, running, started

if TYPE_CHECKING:
    from tests.service.running import Service, World

pytestmark = pytest.mark.netns


def exchange(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text):
        data = connection.recv(65536)
        assert data, "closed"
        answer += data
    return answer


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_tunnel_and_a_refusal(service: Service) -> None:
    assert service.is_ready()
    with service.tunnel() as connection:
        assert exchange(connection, b"hello") == b"hello"
    with service.connect() as connection:
        status, _ = service.try_tunnel(connection, 7000, "elsewhere.test")
        assert status == 403


def test_every_worker_serves(service: Service) -> None:
    """New connections are spread over the workers; each has its share of records."""
    for _ in range(40):
        with service.tunnel() as connection:
            assert exchange(connection, b"x") == b"x"
    log = service.folder / "flows"
    poll("40 records", lambda: log.read_bytes().count(b"\n") >= 40)
    ids = {record["flow_id"][0] for record in records_in(log)}
    assert ids == {"0", "1"}


def test_a_killed_worker_is_replaced_and_no_new_connection_is_lost(service: Service) -> None:
    before = service.workers()
    stop = threading.Event()
    lost: list[str] = []
    served = 0

    def load() -> None:
        """New connections all the time; one that had reached the dead worker may break."""
        nonlocal served
        while not stop.is_set():
            try:
                with service.tunnel() as connection:
                    assert exchange(connection, b"x") == b"x"
                    served += 1
            except ConnectionRefusedError as error:
                lost.append(repr(error))
            except (OSError, AssertionError):
                continue

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for round_number, victim in enumerate(before, start=1):
            os.kill(victim, signal.SIGKILL)
            service.wait_for("worker died", times=round_number)
            poll("replacement", service.is_ready)
        at_least = served + 50
        poll("load goes on", lambda: served >= at_least)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not lost, "the port was closed for a moment"
    assert not set(before) & set(service.workers())
    assert "egressproxy_worker_restarts_total 2.0" in service.ask("/metrics")[1]
    assert service.said("worker died")[0]["how"] == "SIGKILL"


def test_connections_wait_for_a_dead_workers_successor(gate: World) -> None:
    """With its one worker stopped and killed, connections queue and are served by the next."""
    with running(gate, "--workers", "1") as service:
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        waiting = [service.connect() for _ in range(20)]
        os.kill(worker, signal.SIGKILL)
        service.wait_for("worker died")
        for connection in waiting:
            with connection:
                assert service.try_tunnel(connection, 7000, "up.test") == (200, b"")
                assert exchange(connection, b"queued") == b"queued"


def test_a_hung_worker_is_replaced(gate: World) -> None:
    with running(gate, "--worker-timeout-s", "0.5") as service:
        victim = service.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        service.wait_for("worker died", pid=victim)
        poll("replacement", service.is_ready)
        assert victim not in service.workers()


def test_workers_end_with_a_killed_supervisor(service: Service) -> None:
    workers = service.workers()
    os.kill(workers[0], signal.SIGSTOP)  # one that could not notice by itself
    service.process.kill()
    service.wait()
    poll("workers ended", lambda: not any(map(is_running, workers)))


def test_drain_waits_for_the_last_flow_and_counts_down(service: Service) -> None:
    port = service.port
    with service.tunnel() as connection:
        service.signal(signal.SIGTERM)
        line = service.wait_for("draining")
        assert line["flows_left"] == 1
        assert 0 < line["seconds_left"] <= 30
        assert line["hint"] == "a second signal cuts them at once"
        poll("the door is shut", lambda: _is_refused(service, port))
        assert exchange(connection, b"still here") == b"still here"
        assert "hint" not in service.wait_for("draining", times=2)
        status, page = service.ask("/readyz")
        assert (status, page["phase"]) == (503, "draining")
        assert [worker["serving"] for worker in page["workers"]] == [False, False]
        assert service.ask("/healthz")[0] == 200
        assert service.reload()[0] == 503
    assert service.wait() == 0
    assert not service.said("drain timeout, flows are cut")
    assert len(service.said("worker ended", how="exit status 0")) == 2


def _is_refused(service: Service, port: int) -> bool:
    try:
        service.place.connect("127.0.0.1", port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_drain_ends_at_its_timeout(gate: World) -> None:
    with running(gate, "--drain-timeout-s", "0.5") as service, service.tunnel() as connection:
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.said("drain timeout, flows are cut")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(service: Service, number: signal.Signals) -> None:
    with service.tunnel() as connection:
        service.signal(number)
        service.wait_for("draining")
        service.signal(number)
        assert service.wait() == 0
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert service.said("second signal, flows are cut")[0]["flows"] == 1


def test_a_signal_to_the_whole_group_drains_too(service: Service) -> None:
    """As a terminal's ^C and a service manager do it."""
    with service.tunnel() as connection:
        for pid in (*service.workers(), service.process.pid):
            os.kill(pid, signal.SIGINT)
        service.wait_for("draining")
        assert exchange(connection, b"still here") == b"still here"
    assert service.wait() == 0


def test_a_bad_first_policy_is_told_whole(gate: World) -> None:
    policy = "version: 1\ncloud: Mars\nrules: [{name: a, to: ['*'], ports: [ftp]}]\n"
    with started(gate, policy=policy) as service:
        assert service.wait() == 2
        text = "".join(service.raw)
        for what in ("Mars", "'*'", "ftp"):
            assert what in text, text
        assert "Traceback" not in text


def test_a_taken_port_is_told(service: Service, gate: World) -> None:
    with started(gate, "--explicit", f"127.0.0.1:{service.port}") as second:
        assert second.wait() == 2
        assert "another process does" in "".join(second.raw)


def test_a_log_that_cannot_be_opened_is_told(gate: World) -> None:
    with started(gate, "--log", "/nowhere/flows") as service:
        assert service.wait() == 2
        text = "".join(service.raw)
        assert "egressproxy: worker" in text
        assert text.splitlines()[-1].count("/nowhere/flows")
        assert "Traceback" not in text


def test_records_go_to_stdout_and_the_journal_to_stderr(gate: World) -> None:
    with running(gate, "--log", "-") as service:
        for _ in range(10):
            with service.tunnel() as connection:
                assert exchange(connection, b"x") == b"x"
    lines = [json.loads(line) for line in (service.folder / "stdout").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["up.test"] * 10
    assert {line["action"] for line in lines} == {"allow"}


def test_a_reader_of_the_journal_that_goes_away_ends_nothing(service: Service) -> None:
    """As ``egressproxy run 2>&1 | head`` does."""
    ready = service.port
    descriptor = service.process.stderr.fileno() if service.process.stderr else -1
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), descriptor)
    service.signal(signal.SIGHUP)
    service.signal(signal.SIGHUP)
    poll("two reloads", lambda: service.ask("/policy")[1]["last_reload"]["triggers"] == ["signal"])
    with service.place.connect("127.0.0.1", ready) as connection:
        assert service.try_tunnel(connection, 7000, "up.test")[0] == 200


def test_an_address_that_this_machine_gets_later_is_not_dialled(gate: World) -> None:
    own = "10.99.77.9"
    policy = POLICY.replace("[up.test]", "[up.test, own.test]")
    with running(gate, "--resolve", f"own.test={own}", policy=policy) as service:
        gate.gate.run("ip", "address", "add", f"{own}/32", "dev", "out")
        try:

            def reason() -> object:
                with service.connect() as connection:
                    service.try_tunnel(connection, 7000, "own.test")
                log = service.folder / "flows"
                return log.exists() and "forbidden_address" in log.read_text()

            poll("the guard knows it", reason)
        finally:
            gate.gate.run("ip", "address", "del", f"{own}/32", "dev", "out")


def test_log_reopens_on_sigusr1(service: Service) -> None:
    log = service.folder / "flows"
    with service.tunnel():
        pass
    poll("a record", lambda: log.exists() and log.stat().st_size)
    log.rename(log.with_suffix(".old"))
    service.signal(signal.SIGUSR1)
    service.wait_for("record log reopened")
    for _ in range(20):
        with service.tunnel():
            pass
    poll("a new file", lambda: log.exists() and log.stat().st_size)


def test_no_descriptor_or_process_is_left_by_restarts_and_reloads(service: Service) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))

    poll("one settled", lambda: service.reload()[0] == 200)
    before = descriptors()
    for number in range(5):
        service.policy.write_text(service.policy.read_text() + f"# {number}\n")
        assert service.reload()[0] == 200
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for("worker died", times=number + 1)
        poll("replacement", service.is_ready)
    poll("as before", lambda: descriptors() <= before)
