"""``python -m bench.steady ADDRESS PORT KNOWN.hello NEW.hello RATE``: light load across a reload.

So many connections a second with the known hello, each a whole transaction as ``load.c`` does it;
beside them one with the new hello after the other, until the first passes. Says ``ready``, then
``passed``; stops at the end of stdin, and prints JSON: ``passed_at`` (seconds of CLOCK_MONOTONIC,
null if none passed), ``done``, ``failed`` (of the known ones), ``median_s`` and ``longest_s`` that
one took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

FLIGHT: Final = 2500
REQUEST: Final = b"S".ljust(300, b"\0")
ANSWER: Final = 500
_TIMEOUT_S: Final = 10.0
_BETWEEN_PROBES_S: Final = 0.005


@dataclass(slots=True)
class Seen:
    """What became of the connections; ``took_s`` is of those that did not fail."""

    passed_at: float | None = None
    failed: int = 0
    took_s: list[float] = field(default_factory=list)


async def transaction(address: str, port: int, hello: bytes) -> bool:
    """Connect, hello, 2500 octets back, a request, 500 octets back; whether all that happened."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(hello)
                await reader.readexactly(FLIGHT)
                writer.write(REQUEST)
                await reader.readexactly(ANSWER)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return True


async def _one(address: str, port: int, hello: bytes, seen: Seen) -> None:
    started = time.monotonic()
    if await transaction(address, port, hello):
        seen.took_s.append(time.monotonic() - started)
    else:
        seen.failed += 1


async def _probe(address: str, port: int, hello: bytes, seen: Seen) -> None:
    while True:
        if await transaction(address, port, hello):
            break
        await asyncio.sleep(_BETWEEN_PROBES_S)
    seen.passed_at = time.monotonic()
    print("passed", flush=True)


async def _load(address: str, port: int, hellos: tuple[bytes, bytes], rate: float) -> Seen:
    seen, known, new = Seen(), *hellos
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), stopped.set)
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        probe = group.create_task(_probe(address, port, new, seen), name="probe")
        due = loop.time()
        while not stopped.is_set():
            group.create_task(_one(address, port, known, seen), name="known")
            due += 1 / rate
            await asyncio.sleep(due - loop.time())
        loop.remove_reader(sys.stdin.fileno())
        probe.cancel()
    return seen


def summary(seen: Seen) -> dict[str, float | None]:
    """What is printed."""
    return {
        "passed_at": seen.passed_at,
        "done": len(seen.took_s),
        "failed": seen.failed,
        "median_s": median(seen.took_s) if seen.took_s else 0.0,
        "longest_s": max(seen.took_s, default=0.0),
    }


def main(address: str, port: str, known: str, new: str, rate: str) -> None:
    """Run it, with the arguments of the command line."""
    hellos = (Path(known).read_bytes(), Path(new).read_bytes())
    print(json.dumps(summary(asyncio.run(_load(address, int(port), hellos, float(rate))))))


if __name__ == "__main__":
    main(*sys.argv[1:])
