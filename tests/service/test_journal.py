"""The service's own log: JSON lines unless a terminal reads, the libraries' words among them."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from egressproxy.service.journal import configure_journal, journal

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines() -> None:
    stream = io.StringIO()
    configure_journal(stream)
    journal().info("policy loaded", digest="abc", note="…")
    line = stream.getvalue()
    assert line.count("\n") == 1
    found = json.loads(line)
    assert list(found) == ["time", "level", "event", "digest", "note"]
    assert found["event"] == "policy loaded"
    assert found["time"].endswith("Z")
    assert "…" in line


def test_a_hostile_value_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    configure_journal(stream)
    journal().error("refused", error='x\n{"event": "ready"}\x1b[31m')
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_errors_carry_their_traceback() -> None:
    stream = io.StringIO()
    configure_journal(stream)
    try:
        int("odd")
    except ValueError:
        journal().exception("fault")
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["exception"]


def test_logging_speaks_the_same_way() -> None:
    stream = io.StringIO()
    configure_journal(stream)
    logging.getLogger("egressproxy.planes.accept").error("accepting pauses: %s", "no files")
    logging.getLogger("aiohttp.access").info("not this")
    found = json.loads(stream.getvalue())
    assert (found["event"], found["level"]) == ("accepting pauses: no files", "error")


def test_a_terminal_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_journal(stream)
    journal().info("ready", workers=2)
    text = stream.getvalue()
    assert "ready" in text
    assert "workers=2" in text
    assert not text.startswith("{")
    assert "\x1b" not in text
