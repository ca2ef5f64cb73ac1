"""How long a reload of 100,000 names takes, and what it does to connections meanwhile.

From the order (a signal, its files written before) until a connection to a name that only the new
policy allows has gone through. Beside it 200 connections a second to a name that both allow: how
many were lost, and how long the longest took. Each data plane reloads as its engineers would let
it: egressproxy by a renamed list and SIGHUP, HAProxy as master and worker (SIGUSR2, listeners
handed over), nginx and Squid and sniproxy by SIGHUP. Envoy does not read its static listeners again
and is left out. Everything in the hub is on one CPU.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.generator import build_load, raise_open_files
from bench.measure import Bench
from bench.network import LOAD_CPU, PORT, SERVER, Network, network
from bench.peers.haproxy import haproxy_command
from bench.peers.nginx import nginx, write_configuration
from bench.peers.ours import egressproxy
from bench.peers.peer import LISTEN, redirected
from bench.peers.sniproxy import sniproxy, sniproxy_command
from bench.peers.squid import squid, write_names
from bench.policies import exact_name, write_policy_of
from bench.ratio import paired_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from bench.peers.peer import Peer, Start

SIZE: Final = 100_000
RATE: Final = 200.0
_ALONE_S: Final = 0.5
_AFTER_S: Final = 1.0
_LIMIT_S: Final = 20.0
_PORTS_EACH: Final = 10
_ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Reload:
    """One reload: ``seconds`` to the first new connection, 0 if there was none in time."""

    seconds: float
    done: int
    failed: int
    median_s: float
    longest_s: float


Reloads = dict[str, list[Reload]]
"""Data plane to its reloads, one a repeat."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a data plane is started, and told that its names are others.

    ``prepare`` writes its files from the folder's policy; ``None`` where it reads the policy itself
    and watches it, so that the new list is part of the order. ``order`` is the signal.
    """

    start: Callable[[Network, Path, int], AbstractContextManager[Peer]]
    prepare: Callable[[Path, int], object] | None
    order: signal.Signals = signal.SIGHUP


def _haproxy(network: Network, directory: Path, port: int) -> AbstractContextManager[Peer]:
    argv = [*haproxy_command(directory, port), "-W"]
    return redirected("HAProxy", network, directory, {port: argv})


def _at(start: Start) -> Callable[[Network, Path, int], AbstractContextManager[Peer]]:
    return lambda network, directory, port: start(network, directory, port=port)


def _squid_names(directory: Path, _port: int) -> None:
    write_names(directory)


WAYS: Final = {
    "haproxy": Way(_haproxy, haproxy_command, signal.SIGUSR2),
    "egressproxy": Way(_at(egressproxy), None),
    "nginx": Way(_at(nginx), write_configuration),
    "squid": Way(_at(squid), _squid_names),
    "sniproxy": Way(_at(sniproxy), sniproxy_command),
}


def new_name(repeat: int) -> str:
    """What only the policy after a repeat's reload allows."""
    return f"new{repeat}.example.org"


@dataclass(frozen=True, slots=True)
class _Running:
    key: str
    peer: Peer
    folder: Path
    port: int

    def reload(self, network: Network, hellos: Path, repeat: int) -> Reload:
        """Order it under load, and see what comes of it."""
        listed = self.folder / "names.txt"
        coming = self.folder.parent / f"{self.key}-names.next"
        coming.write_text(listed.read_text() + f"{new_name(repeat)}\n")
        way = WAYS[self.key]
        if way.prepare is not None:
            coming.replace(listed)
            way.prepare(self.folder, self.port)
        with self.peer.in_path(), _steady(network, hellos, repeat) as load:
            time.sleep(_ALONE_S)  # load without a reload, which it is compared with
            ordered = time.monotonic()
            if way.prepare is None:
                coming.replace(listed)
            os.kill(self.peer.roots[0], way.order)
            return _outcome(load, ordered)


def _steady(network: Network, hellos: Path, repeat: int) -> subprocess.Popen[str]:
    pinned = ("nsenter", f"--net={network.client.path}", "taskset", "-c", str(LOAD_CPU))
    module = (sys.executable, "-m", "bench.steady", SERVER, str(PORT))
    files = (str(hellos / "allowed.hello"), str(hellos / f"new{repeat}.hello"))
    load = subprocess.Popen(
        (*pinned, *module, *files, str(RATE)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert load.stdout is not None
    if load.stdout.readline().strip() != "ready":
        raise RuntimeError(f"the load ended ({load.wait()})")
    return load


def _outcome(load: subprocess.Popen[str], ordered: float) -> Reload:
    """Wait for the first new connection, go on for a moment, and ask what became of all.

    Raises:
        RuntimeError: the new name passed before the order.
    """
    assert load.stdout is not None
    if select.select([load.stdout], [], [], _LIMIT_S)[0]:
        load.stdout.readline()
        time.sleep(_AFTER_S)  # what is lost when the old one leaves counts too
    out, _ = load.communicate(timeout=_LIMIT_S)
    found = json.loads(out)
    passed_at = found.pop("passed_at")
    if passed_at is not None and passed_at < ordered:
        raise RuntimeError("the old policy allows the new name")
    return Reload(seconds=passed_at - ordered if passed_at else 0.0, **found)


def run(repeats: int, wanted: Sequence[str], say: Callable[[str], None]) -> Reloads:
    """Reload each in turn, repeat after repeat; root is needed."""
    raise_open_files()
    reloads: Reloads = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o711)  # Squid drops its privileges and then reads
        hellos = {"allowed": exact_name(0)}
        hellos |= {f"new{repeat}": new_name(repeat) for repeat in range(repeats)}
        load = build_load(directory, hellos)
        built = stack.enter_context(network(directory))
        stack.enter_context(Bench(built, load, directory))  # the server
        running = []
        for place, key in enumerate(wanted):
            port = LISTEN + place * _PORTS_EACH
            folder = _folder(directory / key, tuple(hellos.values()))
            peer = stack.enter_context(WAYS[key].start(built, folder, port))
            running.append(_Running(key, peer, folder, port))
        for repeat in range(repeats):
            for each in running if repeat % 2 == 0 else reversed(running):
                found = each.reload(built, directory, repeat)
                reloads.setdefault(each.peer.name, []).append(found)
            say(f"reload, repeat {repeat + 1} of {repeats}")
    return reloads


def _folder(folder: Path, asked: Sequence[str]) -> Path:
    folder.mkdir()
    write_policy_of(SIZE, folder)
    (folder / "asked.txt").write_text("\n".join(asked))
    return folder


def table(reloads: Reloads, reference: str = "HAProxy") -> str:
    """A Markdown table with a line a data plane."""
    lines = [
        f"| reload at {SIZE:,} names | seconds until a new name passes (least-most)"
        f" | ratio to {reference} (95 %, pairs) | connections lost"
        " | one took (ms): median | longest |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in reloads.items():
        passed = [each.seconds for each in found if each.seconds]
        seconds = f"{median(passed):.2f} ({min(passed):.2f}-{max(passed):.2f})" if passed else "-"
        lost, done = sum(each.failed for each in found), sum(each.done for each in found)
        usual = median(each.median_s for each in found) * 1e3
        longest = max(each.longest_s for each in found) * 1e3
        cells = [seconds, _ratio(found, reloads.get(reference, []))]
        cells += [f"{lost:,} of {lost + done:,}", f"{usual:.1f}", f"{longest:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(found: Sequence[Reload], reference: Sequence[Reload]) -> str:
    ours, theirs = ([each.seconds for each in some] for some in (found, reference))
    if len(ours) != len(theirs) or not all((*ours, *theirs)):
        return "-"
    return str(paired_ratio(ours, theirs))


def write(reloads: Reloads, out: Path) -> str:
    """Write ``reload.json`` and ``reload.md``; returns the table."""
    rows = {name: [asdict(each) for each in found] for name, found in reloads.items()}
    (out / "reload.json").write_text(json.dumps(rows, indent=1))
    text = table(reloads)
    (out / "reload.md").write_text(text)
    return text
