from __future__ import annotations

import pytest

from egressproxy.policy.lint_everywhere import is_everywhere
from tests.policy.building import networks

EVERYWHERE = {
    "all": ("0.0.0.0/0", True),
    "all, both versions": ("0.0.0.0/0 ::/0", True),
    "in halves": ("0.0.0.0/1 128.0.0.0/1", True),
    "all that is public": (
        "0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/3 96.0.0.0/4"
        " 112.0.0.0/5 120.0.0.0/6 124.0.0.0/7 126.0.0.0/8 128.0.0.0/2 192.0.0.0/3",
        True,
    ),
    "all but one": ("0.0.0.0/1 128.0.0.0/2 192.0.0.0/4 208.0.0.0/5 216.0.0.0/6 220.0.0.0/8", False),
    "half": ("0.0.0.0/1", False),
    "IPv6 alone": ("::/0", False),
    "private alone": ("10.0.0.0/8", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("text", "expected"), EVERYWHERE.values(), ids=EVERYWHERE)
def test_is_everywhere(text: str, expected: bool) -> None:
    assert is_everywhere(networks(*text.split())) is expected
