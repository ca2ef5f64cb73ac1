"""What a failed expectation says."""

from __future__ import annotations

from typing import Any

import pytest

from lab.absence import absence

_DENY = {"action": "deny", "name": "a.example", "reason": "default_deny", "protocol": "tls"}
_NAMELESS = {"action": "deny", "name": None, "reason": "no_sni", "dst_ip": "192.0.2.1"}


@pytest.mark.parametrize(
    ("wanted", "seen", "said"),
    [
        pytest.param(
            {"action": "allow", "reason": "rule", "name": "a.example"},
            [_DENY, _NAMELESS],
            "no allow of a.example (reason rule) in the flow log; there were: deny a.example"
            " default_deny, deny 192.0.2.1 no_sni",
            id="others",
        ),
        pytest.param(
            {"action": "deny", "name": "a.example", "protocol": "http"},
            [_DENY],
            "no deny of a.example (protocol http) in the flow log; there were: deny a.example"
            " default_deny (protocol tls)",
            id="another-field-differs",
        ),
        pytest.param(
            {"name": "a.example"},
            [],
            "no record of a.example in the flow log; there were: none",
            id="nothing",
        ),
    ],
)
def test_absence(wanted: dict[str, Any], seen: list[dict[str, Any]], said: str) -> None:
    assert absence(wanted, seen) == said
