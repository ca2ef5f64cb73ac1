"""The service's own log on stderr: start-up, reloads, workers, drain. JSON but for a terminal.

Flow records are not written here (``observe.log``): they are data and go to stdout or a file.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from typing import Any, TextIO

    from structlog.typing import EventDict, FilteringBoundLogger, Processor


def configure_journal(stream: TextIO | None = None) -> None:
    """Send every event to ``stream`` (stderr), as JSON lines or, on a terminal, readable."""
    target = cast("TextIO", _Deaf(sys.stderr if stream is None else stream))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if target.isatty():
        colors = "NO_COLOR" not in os.environ
        shared.append(
            structlog.dev.ConsoleRenderer(
                colors=colors,
                sort_keys=False,
                timestamp_key="time",
                exception_formatter=structlog.dev.plain_traceback,  # no files read, no locals
            )
        )
    else:
        shared += [
            structlog.processors.format_exc_info,
            _event_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    _send_logging_the_same_way(target, shared)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )


def _event_first(_logger: object, _method: str, event: EventDict) -> dict[str, Any]:
    """Time, level and event stand in front of the facts, for who reads the lines as they are."""
    front = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return {**front, **event}


def _send_logging_the_same_way(target: TextIO, processors: list[Processor]) -> None:
    """What the layers below and the libraries say through ``logging``."""
    *before, render = processors
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Deaf:
    """A stream whose reader may go away: a closed pipe must not end the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def journal() -> FilteringBoundLogger:
    """The logger; events are short sentences, facts are keyword arguments."""
    return cast("FilteringBoundLogger", structlog.get_logger())
