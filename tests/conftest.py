"""What all tests share: hypothesis profiles, golden files, root, and no skipping in CI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pluggy import Result

NOT_HERE = "not in this checkout"
"""How a skip for want of optional reference data begins; every other skip fails in CI."""

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile(
    "ci", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden files with what is now"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("name.txt", text)`` holds a text to ``golden/name.txt`` beside the test."""

    def check(name: str, text: str) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: make golden"
        assert text == path.read_text(), f"{path} differs: make golden, then read the diff"

    return check


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") and os.geteuid() != 0:
        pytest.skip("needs root: builds network namespaces")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Result[pytest.TestReport], None]:
    """In CI a skip for want of root or a tool is a failure: nothing is silently left out."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if NOT_HERE not in str(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
