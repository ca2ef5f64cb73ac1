"""egressproxy, compiled and interpreted, with nothing switched off that a deployment has on."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.network import SERVER
from bench.peers.peer import LISTEN, Peer, asked_names, redirected, write_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.network import Network

NATIVE: Final = Path(__file__).resolve().parents[2] / ".native"

ADMIN_ABOVE: Final = 10_000
"""The admin listener's port is that much above the redirect's."""


@contextmanager
def egressproxy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """Egressproxy as ``pip install`` leaves it: compiled; records of every flow, metrics, limits.

    Raises:
        FileNotFoundError: ``make native`` has not been run.
    """
    with serve(
        "egressproxy",
        network,
        directory,
        environment=compiled(),
        workers=processes,
        port=port,
    ) as peer:
        yield peer


@contextmanager
def interpreted(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """The same without a C compiler at install time."""
    with serve("interpreted", network, directory, workers=processes, port=port) as peer:
        yield peer


def compiled() -> tuple[str, ...]:
    """What stands before the interpreter so that it finds the compiled copy.

    Raises:
        FileNotFoundError: ``make native`` has not been run.
    """
    if not (NATIVE / "ready").exists():
        raise FileNotFoundError(NATIVE, "make native")
    return ("env", "PYTHONSAFEPATH=1", f"PYTHONPATH={NATIVE}")


@contextmanager
def serve(
    name: str,
    network: Network,
    directory: Path,
    *,
    environment: Sequence[str] = (),
    workers: int = 1,
    port: int = LISTEN,
    more: Sequence[str] = (),
) -> Iterator[Peer]:
    """Run it on the hub's CPU; ``environment`` stands before the interpreter, ``more`` at the end.

    A ``taskset`` in ``environment`` chooses other CPUs.
    """
    policy = write_policy(directory)
    argv = [*environment, sys.executable, "-m", "egressproxy", "run"]
    argv += ["--policy", str(policy)]
    argv += [
        "--redirect",
        f"0.0.0.0:{port}",
        "--workers",
        str(workers),
    ]
    for asked in asked_names(directory):
        argv += ["--resolve", f"{asked}={SERVER}"]
    # Not beside the policy, whose folder is watched.
    (directory / "log").mkdir(exist_ok=True)
    argv += ["--log", str(directory / "log" / "flows.jsonl"), "--log-allows", "all"]
    # Two run side by side; a later --admin in `more` counts.
    argv += ["--admin", f"127.0.0.1:{port + ADMIN_ABOVE}"]
    argv += ["--max-flows", "100000", "--max-flows-per-source", "100000", *more]
    with redirected(name, network, directory, {port: argv}) as peer:
        yield peer
