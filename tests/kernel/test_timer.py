from __future__ import annotations

import os
import select

import pytest

from egressproxy.kernel.timer import Beat


def heard(beat: Beat, timeout_s: float) -> bool:
    return bool(select.select([beat.fd], [], [], timeout_s)[0])


def test_a_beat_comes_again_and_again_while_it_runs() -> None:
    beat = Beat(0.001)
    assert not heard(beat, 0)
    beat.start()
    for _ in range(3):
        assert heard(beat, 5)
        beat.hear()
    beat.stop()
    beat.hear()
    assert not heard(beat, 0.02)
    beat.start()
    assert heard(beat, 5)
    beat.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(beat.fd)


def test_a_beat_that_was_never_started_has_nothing_to_hear() -> None:
    beat = Beat(3600)
    beat.hear()
    assert not os.get_blocking(beat.fd)
    assert not os.get_inheritable(beat.fd)
    beat.close()
