"""Signs of life: when they are sent, and when they are not."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.service.watchdog import watchdog_s
from tests.service.activated import activated
from tests.service.test_activation import listener

if TYPE_CHECKING:
    from pathlib import Path

SILENCE: Final = "a worker does not answer, no sign of life"
PATIENCE: Final = {"WATCHDOG_USEC": "1600000"}


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 30}, 0.0),
    ],
    ids=["none", "given", "ours", "of-another", "no-number", "negative", "huge"],
)
def test_what_the_manager_asks_for(environment: dict[str, str], seconds: float) -> None:
    assert watchdog_s(environment) == seconds


def test_signs_of_life_while_the_workers_answer(tmp_path: Path) -> None:
    """A worker that is stopped ends them, one that goes on brings them back."""
    with listener() as sock, activated(tmp_path, [sock], environment=PATIENCE) as service:
        ready = service.wait_for_sign("READY=1")
        assert any(line.startswith("STATUS=enforce, 0 rules") for line in ready)
        service.wait_for_sign("WATCHDOG=1")
        service.wait_for_sign("WATCHDOG=1")
        assert service.said("the watchdog is faster than the supervisor:"
                            " a worker that hangs ends the service")  # fmt: skip
        before = service.said(SILENCE)  # a machine that is busy may have been late by itself
        stopped = service.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            service.wait_for(SILENCE, times=before + 1)
            service.forget_signs()
            service.told.settimeout(1)
            with pytest.raises(TimeoutError):
                service.next_sign()
        finally:
            os.kill(stopped, signal.SIGCONT)
        service.told.settimeout(10)
        service.wait_for_sign("WATCHDOG=1")
        assert service.stop() == 0
        told = service.wait_for_sign("STOPPING=1")
        assert "EXTEND_TIMEOUT_USEC=44000000" in told


def test_no_manager_no_signs(tmp_path: Path) -> None:
    with listener() as sock, activated(tmp_path, [sock]) as service:
        service.wait_for_sign("READY=1")
        service.told.settimeout(1)
        with pytest.raises(TimeoutError):
            service.next_sign()
        assert service.stop() == 0
