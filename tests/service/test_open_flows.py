"""What is open now: asked of real workers, and of the kernel's connections."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.kernel.conntrack import Entry
from egressproxy.kernel.packet import ICMP, TCP
from egressproxy.names import DnsName
from egressproxy.observe.counters import Counters
from egressproxy.planes.context import ListenerKind
from egressproxy.planes.limits import FlowLimits
from egressproxy.policy.compile import compile_policy
from egressproxy.resolve.address_book import AddressBook
from egressproxy.service import open_flows
from egressproxy.service.crew import Crew
from egressproxy.service.generation import load_generation
from egressproxy.service.open_flows import MOST, OpenFlow, OpenFlows, chosen, forwarded_flow
from egressproxy.service.options import LogOptions, WorkerSpec
from egressproxy.settings import Settings
from tests.policy.building import NOON, policy, rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

POLICY = "version: 1\ncloud: AzureCloud\nrules:\n  - {name: a, to: [a.example], ports: [https]}\n"


@asynccontextmanager
async def crew_of(workers: int, folder: Path) -> AsyncIterator[tuple[Crew, list[int]]]:
    """Workers with an explicit listener each, and its port."""
    path = folder / "policy.yaml"
    path.write_text(POLICY)
    first = await asyncio.to_thread(load_generation, path, 1, allow_outside=False)
    with ExitStack() as stack:
        counters, limits = Counters.create(workers), FlowLimits.create(workers)
        stack.callback(counters.close)
        stack.callback(limits.close)
        crew = Crew(first, patience_s=30, on_worker_lost=counters.restarted)
        stack.callback(first.close)
        ports = []
        for index in range(workers):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.setblocking(False)
            ports.append(listener.getsockname()[1])
            spec = WorkerSpec(
                index=index,
                workers=workers,
                settings=Settings(),
                kinds=(ListenerKind.EXPLICIT,),
                log=LogOptions(path=folder / "flows"),
                servers=(),
                overrides={},
                mark=0,
            )
            crew.add(spec, (counters.fd, limits.fd, listener.fileno()))
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(crew.keep_alive(), name="crew")
            try:
                async with asyncio.timeout(30):
                    await crew.ready.wait()
                yield crew, ports
            finally:
                crew.cut()
                await ended  # before the group sees what went wrong, and cancels it


async def test_flows_of_all_workers(tmp_path: Path) -> None:
    async with crew_of(2, tmp_path) as (crew, ports):
        now = [0.0]
        opened = OpenFlows(crew, clock=lambda: now[0])
        assert await opened.now() == []
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports
            ]
            assert await opened.now() == []  # the answer of a moment ago
            now[0] += open_flows.SHARED_S
            async with asyncio.timeout(30):
                while len(found := await opened.now()) < 2:  # until the workers have accepted
                    now[0] += open_flows.SHARED_S
            assert {flow.src_port for flow in found} == {
                client.getsockname()[1] for client in clients
            }
        assert {flow.worker for flow in found} == {0, 1}
        for flow in found:
            assert (flow.stage, flow.plane, flow.src_ip, flow.name, flow.rule) == (
                "sniff",
                "explicit",
                "127.0.0.1",
                None,
                None,
            )
            assert flow.flow_id.startswith(f"{flow.worker}-")
            assert flow.since is not None


async def test_a_worker_that_hangs_is_left_out_and_not_killed_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_flows, "PATIENCE_S", 0.2)
    async with crew_of(1, tmp_path) as (crew, _):
        process = crew.slots[0].process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert await OpenFlows(crew).now() == []
        os.kill(process.pid, signal.SIGCONT)
        assert crew.slots[0].process is process
        assert not process.exited.done()


async def test_without_a_descriptor_to_spare_there_is_no_answer_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with crew_of(1, tmp_path) as (crew, _):
        with monkeypatch.context() as patched:
            patched.setattr("os.memfd_create", no_more)
            assert await OpenFlows(crew).now() == []
        assert crew.is_ready


def flow(number: int, **more: Any) -> OpenFlow:
    given: dict[str, Any] = {
        "worker": 0,
        "flow_id": f"0-{number}",
        "plane": "transparent",
        "stage": "relay",
        "protocol": "tls",
        "since": float(number),
        "age_s": 1.0,
        "idle_s": 0.0,
        "src_ip": "10.0.0.1",
        "src_port": 1000,
        "dst_ip": None,
        "dst_port": 443,
        "name": "a.example",
        "alpn": (),
        "tls_versions": (),
        "rule": "a",
        "reason": "rule",
        "would_deny": False,
        "dialled_ip": None,
        "bytes_up": 0,
        "bytes_down": 0,
    }
    return OpenFlow(**{**given, **more})


async def test_of_all_workers_together_the_oldest_and_the_busiest() -> None:
    many = [flow(i, bytes_down=i) for i in range(4 * MOST, 0, -1)]
    found = chosen(many)
    assert len(found) == 2 * MOST
    assert [each.since for each in found[:3]] == [1, 2, 3]
    assert found[-1].bytes_down == 4 * MOST


def entry(protocol: int, dst: str, dport: int) -> Entry:
    return Entry(
        id=1,
        family=socket.AF_INET,
        protocol=protocol,
        src="10.1.0.1",
        sport=40000,
        dst=dst,
        dport=dport,
        reply_src=dst,
        reply_sport=dport,
        reply_dst="20.0.0.1",
        reply_dport=40000,
        mark=0,
        status=0,
    )


RULES = compile_policy(
    policy(
        rule("rules/sql", "30.0.0.0/24", ports="tcp:1433"),
        rule("rules/ntp", "ntp.example", ports="tcp:123"),
    )
)
FORWARDED = {
    "by address": (entry(TCP, "30.0.0.9", 1433), "tcp", None, "rules/sql"),
    "by a name that was resolved here": (
        entry(TCP, "30.9.0.1", 123),
        "tcp",
        "ntp.example",
        "rules/ntp",
    ),
    "no rule any more": (entry(TCP, "30.9.9.9", 22), "tcp", None, None),
    "no protocol of rules": (entry(ICMP, "30.0.0.9", 0), "1", None, None),
}


@pytest.mark.parametrize("case", FORWARDED)
async def test_what_the_kernel_forwards(case: str) -> None:
    tracked, protocol, name, rule_id = FORWARDED[case]
    book = AddressBook(grace_s=900, entries=100, clock=lambda: 0.0)
    book.learn(DnsName("ntp.example"), ["30.9.0.1"], 60)
    found = forwarded_flow(tracked, RULES, book, NOON)
    assert (found.protocol, found.name, found.rule) == (protocol, name, rule_id)
    assert (found.worker, found.plane, found.stage) == (None, "network", "forward")
    assert found.since is found.age_s is found.bytes_up is None
