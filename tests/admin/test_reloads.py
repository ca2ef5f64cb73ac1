"""The history of reloads, and the button."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from egressproxy.admin.reloads import headline
from egressproxy.errors import Problem, ServiceError
from egressproxy.service.report import Installation, Outcome, ReloadReport, Trigger
from tests.admin.chromium import HOSTILE, a_deny, fits, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.admin.chromium import Site

APPLIED = ReloadReport(
    outcome=Outcome.APPLIED,
    triggers=(Trigger.ADMIN,),
    at=1_800_000_000.0,
    duration_s=0.0132,
    digest="d" * 64,
    changes=("+ rule pypi: allow pypi.example on tls:443", "- rule no-gists: deny gist.github.com"),
    installation=Installation(workers=2, revoked=3),
)
REFUSED = ReloadReport(
    outcome=Outcome.REFUSED,
    triggers=(Trigger.ADMIN, Trigger.FILE),
    at=1_800_000_100.0,
    digest="d" * 64,
    error="the policy is bad",
    problems=tuple(
        Problem("policy.yaml", 3 + n, 1, name, "fix it") for n, name in enumerate(HOSTILE)
    ),
)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, records=[]) as opened:
        yield opened


def test_the_button(gateway: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    gateway.supervisor.answers = [APPLIED]
    tab.goto(gateway.url("/review/reloads"))
    assert "started with it" in tab.locator("main").inner_text()
    tab.get_by_role("button", name="Reload now").click()
    tab.get_by_text("3 open flows that it denies were closed").wait_for()
    assert gateway.supervisor.asked == [Trigger.ADMIN]
    assert tab.locator(".changes .add").inner_text().startswith("+ rule pypi")
    shoot(tab, "reloads")
    tab.reload()  # the answer of the button was a redirect: this asks for nothing
    assert gateway.supervisor.asked == [Trigger.ADMIN]


def test_every_problem_of_a_refused_one(
    gateway: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    gateway.supervisor.answers = [REFUSED]
    tab.goto(gateway.url("/review/reloads"))
    tab.get_by_role("button", name="Reload now").click()
    tab.get_by_text("the old policy stays").wait_for()
    assert tab.locator(".changes .fault").count() == len(HOSTILE)
    assert tab.locator("main img, main script").count() == 0
    assert tab.locator("header").get_by_text("last reload refused").is_visible()
    assert fits(tab)
    shoot(tab, "reloads-refused")


def test_the_overview_says_why(tmp_path: Path, tab: Page) -> None:
    with open_site(tmp_path, records=[a_deny("x.example")]) as gateway:
        gateway.supervisor.answers = [REFUSED]
        tab.goto(gateway.url("/review/reloads"))
        tab.get_by_role("button", name="Reload now").click()
        tab.get_by_text("the old policy stays").wait_for()
        tab.goto(gateway.url("/review"))
        assert tab.locator(".history .alarm").all_inner_texts() == [REFUSED.error]


def test_what_the_gate_held_back_can_be_forced(
    gateway: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    held = replace(REFUSED, problems=(), error="it would newly deny 31 flows: 31 x.example")
    gateway.supervisor.answers = [held, APPLIED]
    tab.goto(gateway.url("/review/reloads"))
    assert tab.get_by_role("button", name="all the same").count() == 0
    tab.get_by_role("button", name="Reload now").click()
    tab.get_by_text("it would newly deny 31 flows").wait_for()
    shoot(tab, "reloads-held")
    tab.get_by_role("button", name="all the same").click()
    tab.get_by_text("3 open flows").wait_for()
    assert gateway.supervisor.asked == [Trigger.ADMIN, Trigger.ADMIN, Trigger.FORCED]
    assert tab.get_by_role("button", name="all the same").count() == 0


def test_while_the_service_ends(gateway: Site, tab: Page, complaints: list[str]) -> None:
    gateway.supervisor.answers = [ServiceError("no reload while draining")]
    tab.goto(gateway.url("/review/reloads"))
    tab.get_by_role("button", name="Reload now").click()
    tab.get_by_role("alert").get_by_text("no reload while draining").wait_for()
    complaints.clear()  # of the status, 503


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (APPLIED, "3 open flows"),
        (REFUSED, "refused"),
        (ReloadReport(outcome=Outcome.UNCHANGED, triggers=(), at=0, digest="d"), "already"),
        (ReloadReport(outcome=Outcome.FAILED, triggers=(), at=0, digest="d"), "old policy stays"),
        (
            ReloadReport(
                outcome=Outcome.APPLIED,
                triggers=(),
                at=0,
                digest="d",
                installation=Installation(workers=2, kept=4),
            ),
            "no flow was closed, 4 were left open",
        ),
    ],
    ids=["applied", "refused", "unchanged", "failed", "kept"],
)
def test_headline(report: ReloadReport, said: str) -> None:
    assert said in headline(report)
