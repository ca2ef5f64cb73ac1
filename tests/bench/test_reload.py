"""Reloads under load: what the steady load counts, and the table from canned results."""

from __future__ import annotations

import asyncio

import pytest

from bench.reload import SIZE, Reload, new_name, table
from bench.rules import asked_of
from bench.steady import ANSWER, FLIGHT, REQUEST, Seen, summary, transaction

HELLO = b"\x16\x03\x01\x00\x02hi"


def reload(seconds: float, failed: int = 0, longest_s: float = 0.01) -> Reload:
    return Reload(seconds, done=500, failed=failed, median_s=0.002, longest_s=longest_s)


def test_ratios_are_of_pairs() -> None:
    lines = table(
        {
            "HAProxy": [reload(0.2), reload(0.4)],
            "Squid": [reload(0.4, failed=3, longest_s=0.5), reload(0.8)],
        }
    ).splitlines()
    assert lines[2] == (
        "| HAProxy | 0.30 (0.20-0.40) | 1.00 (1.00-1.00, n=2) | 0 of 1,000 | 2.0 | 10 |"
    )
    assert lines[3] == (
        "| Squid | 0.60 (0.40-0.80) | 2.00 (2.00-2.00, n=2) | 3 of 1,003 | 2.0 | 500 |"
    )
    assert len({line.count("|") for line in lines}) == 1


def test_a_new_name_that_never_passed_makes_no_ratio() -> None:
    lines = table({"HAProxy": [reload(0.2)], "Squid": [reload(0)]}).splitlines()
    assert lines[3].startswith("| Squid | - | - | 0 of 500 |")


def test_new_names_are_in_no_policy_before() -> None:
    assert len({new_name(repeat) for repeat in range(9)} - set(asked_of(SIZE))) == 9


def test_a_load_without_a_connection_has_a_summary() -> None:
    assert summary(Seen()) == {
        "passed_at": None,
        "done": 0,
        "failed": 0,
        "median_s": 0.0,
        "longest_s": 0.0,
    }


@pytest.mark.parametrize(
    ("flight", "answer", "passes"),
    [
        (FLIGHT, ANSWER, True),
        (FLIGHT, ANSWER - 1, False),
        (FLIGHT - 1, 0, False),
        (0, 0, False),
    ],
)
def test_only_a_whole_transaction_counts(flight: int, answer: int, passes: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO))
        writer.write(bytes(flight))
        if answer:
            await reader.readexactly(len(REQUEST))
            writer.write(bytes(answer))
        writer.close()
        await writer.wait_closed()

    async def ask() -> bool:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port: int = server.sockets[0].getsockname()[1]
            return await transaction("127.0.0.1", port, HELLO)

    assert asyncio.run(ask()) is passes


def test_a_port_without_a_listener_is_no_transaction() -> None:
    assert asyncio.run(transaction("127.0.0.1", 1, HELLO)) is False
