"""The login in a real browser: a token once, a cookie then, and nothing without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.service.report import Outcome, ReloadReport, Trigger
from tests.admin.chromium import a_deny, fits, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.admin.chromium import Site

TOKEN = "correct-horse-battery-staple"
READ_TOKEN = "only-looking-thank-you"
APPLIED = ReloadReport(
    outcome=Outcome.APPLIED, triggers=(Trigger.ADMIN,), at=1_800_000_000.0, digest="d" * 64
)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    with open_site(
        tmp_path, records=[a_deny("one.example")], token=TOKEN, read_token=READ_TOKEN
    ) as opened:
        yield opened


def log_in(page: Page, site: Site, token: str, path: str = "/review") -> None:
    page.goto(site.url(path))
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_a_visitor_is_asked_and_then_gets_where_he_wanted(
    locked: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(locked.url("/review/reloads?x=1"))
    assert tab.url.startswith(locked.url("/login?next="))
    assert tab.locator("nav").count() == 0, "somebody unknown is shown what there is"
    assert "policy" not in tab.locator("header").inner_text()
    assert fits(tab)
    shoot(tab, "login")
    assert tab.evaluate("document.activeElement.id") == "token"
    tab.keyboard.type(TOKEN)
    tab.keyboard.press("Enter")
    tab.wait_for_url(locked.url("/review/reloads?x=1"))
    assert tab.locator("header").get_by_text("may change").is_visible()


def test_the_cookie(locked: Site, tab: Page) -> None:
    log_in(tab, locked, TOKEN)
    tab.wait_for_url(locked.url("/review"))
    (cookie,) = tab.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert cookie["path"] == "/"
    assert cookie["expires"] == -1
    assert tab.evaluate("document.cookie") == ""


def test_a_wrong_token(
    locked: Site, tab: Page, complaints: list[str], shoot: Callable[[Page, str], None]
) -> None:
    log_in(tab, locked, "wrong-wrong-wrong-wrong")
    tab.get_by_role("alert").wait_for()
    assert tab.get_by_role("alert").inner_text() == "This is not the token."
    shoot(tab, "login-wrong")
    complaints.clear()  # the browser notes the status, 403


def test_too_many_wrong_tokens(locked: Site, tab: Page, complaints: list[str]) -> None:
    log_in(tab, locked, "wrong-wrong-wrong-wrong")
    for _ in range(4):
        tab.get_by_label("Token").fill("wrong-wrong-wrong-wrong")
        tab.get_by_role("button", name="Log in").click()
        tab.get_by_role("alert").wait_for()
    tab.get_by_label("Token").fill(TOKEN)
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_role("heading", name="Too many wrong tokens").wait_for()
    complaints.clear()


def test_logout(locked: Site, tab: Page) -> None:
    log_in(tab, locked, TOKEN)
    tab.get_by_role("button", name="Log out").click()
    tab.wait_for_url(locked.url("/login"))
    tab.goto(locked.url("/review"))
    assert tab.url.startswith(locked.url("/login"))


def test_the_read_token_reads(locked: Site, tab: Page) -> None:
    log_in(tab, locked, READ_TOKEN, "/review/reloads")
    tab.wait_for_url(locked.url("/review/reloads"))
    assert tab.locator("header").get_by_text("read only").is_visible()
    assert tab.get_by_role("button", name="Reload now").count() == 0
    token = tab.locator("input[name=form_token]").first.input_value()
    answer = tab.request.post(
        locked.url("/review/reloads"), form={"form_token": token}, max_redirects=0
    )
    assert answer.status == 403
    assert not locked.supervisor.asked


def test_a_form_of_somebody_else_does_nothing(locked: Site, tab: Page) -> None:
    log_in(tab, locked, TOKEN, "/review/reloads")
    tab.wait_for_url(locked.url("/review/reloads"))
    forms: list[dict[str, str | float | bool]] = [{}, {"form_token": ""}, {"form_token": "0" * 64}]
    for form in forms:
        answer = tab.request.post(locked.url("/review/reloads"), form=form, max_redirects=0)
        assert answer.status == 403
    token = tab.locator("input[name=form_token]").first.input_value()
    answer = tab.request.post(
        locked.url("/review/reloads"),
        form={"form_token": token},
        headers={"Sec-Fetch-Site": "cross-site"},
        max_redirects=0,
    )
    assert answer.status == 403
    assert not locked.supervisor.asked


def test_an_id_that_was_planted_is_no_session(locked: Site, tab: Page) -> None:
    """Session fixation: the login gives a new id, and the old one stays worth nothing."""
    tab.goto(locked.url("/login"))
    (before,) = tab.context.cookies()
    log_in(tab, locked, TOKEN)
    tab.wait_for_url(locked.url("/review"))
    (after,) = tab.context.cookies()
    assert before["value"] != after["value"]
    tab.context.clear_cookies()
    tab.context.add_cookies(
        [{"name": before["name"], "value": before["value"], "url": locked.base}]
    )
    tab.goto(locked.url("/review"))
    assert tab.url.startswith(locked.url("/login"))


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_sent_elsewhere(locked: Site, tab: Page, target: str) -> None:
    tab.goto(locked.url("/login"))
    tab.locator("input[name=next]").evaluate("(field, value) => field.value = value", target)
    tab.get_by_label("Token").fill(TOKEN)
    tab.get_by_role("button", name="Log in").click()
    tab.wait_for_url(locked.url("/review"))
