"""The service's own log on stderr: start-up, reloads, workers, drain. JSON but for a terminal.

Flow records are not written here (``observe.log``): they are data and go to stdout or a file.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from typing import TextIO

    from structlog.typing import FilteringBoundLogger, Processor


def configure_journal(stream: TextIO | None = None) -> None:
    """Send every event to ``stream`` (stderr), as JSON lines or, on a terminal, readable."""
    target = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if target.isatty():
        colors = "NO_COLOR" not in os.environ
        shared.append(structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time"))
    else:
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )


def journal() -> FilteringBoundLogger:
    """The logger; events are short sentences, facts are keyword arguments."""
    return cast("FilteringBoundLogger", structlog.get_logger())
