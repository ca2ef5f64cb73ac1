"""mitmproxy's parser as a second opinion, in its own environment (DESIGN: it shares none with us).

``make test`` builds that environment; ``EGRESSPROXY_ORACLE_PYTHON`` names its interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressproxy.wire.client_hello import ClientHello
from egressproxy.wire.fault import Fault
from tests.wire.test_client_hello import (  # the tables of the module's own tests
    ACCEPTED,
    SNI,
    VERSIONS,
    alpn,
    message,
    outcome,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "oracles" / "mitmproxy_client_hello.py"


@contextmanager
def running(interpreter: str) -> Iterator[Callable[[bytes], dict[str, object]]]:
    with subprocess.Popen(
        [interpreter, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(data: bytes) -> dict[str, object]:
            stdin.write(data.hex() + "\n")
            stdin.flush()
            found: dict[str, object] = json.loads(stdout.readline())
            return found

        yield ask
        stdin.close()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Callable[[bytes], dict[str, object]]]:
    default = ROOT / ".venv-oracle" / "bin" / "python"
    interpreter = os.environ.get("EGRESSPROXY_ORACLE_PYTHON", str(default))
    if not Path(interpreter).exists():
        pytest.skip(f"no mitmproxy environment at {interpreter}: run make test")
    with running(interpreter) as ask:
        yield ask


@pytest.mark.parametrize("case", ACCEPTED)
def test_table(case: str, oracle: Callable[[bytes], dict[str, object]]) -> None:
    data, name, fault, _ = ACCEPTED[case]
    seen = oracle(data)
    if fault is Fault.IP_LITERAL:
        return  # mitmproxy gives IPv4 texts as names and IPv6 as none: no opinion to compare
    assert "error" not in seen
    sni = seen["sni"]
    assert (sni.lower().rstrip(".") if isinstance(sni, str) else sni) == name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([VERSIONS, alpn(b"h2", b"konnectivity"), SNI]), max_size=3),
    st.lists(st.integers(1, 60), max_size=8),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
)
def test_what_we_accept_it_reads_alike(
    oracle: Callable[[bytes], dict[str, object]],
    extensions: list[bytes],
    sizes: list[int],
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(records(message(*extensions), sizes))
    for at, value in changes:
        data[at % len(data)] = value
    ours, seen = outcome(bytes(data)), oracle(bytes(data))
    if not isinstance(ours, ClientHello) or "error" in seen:
        return
    assert "more" not in seen
    if ours.fault is None:
        sni = seen["sni"]
        assert isinstance(sni, str)
        assert sni.lower().rstrip(".") == ours.name
    if all(protocol.isascii() and "\\" not in protocol for protocol in ours.alpn):
        assert tuple(map(str, seen["alpn"])) == ours.alpn  # type: ignore[call-overload]
