"""A day's denies reviewed to their end: what was wanted passes, what an intruder tried does not.

Once at the command line, once in a browser that runs in the hub, both against a gateway that has
recorded the day itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import sync_playwright

from lab import policies
from lab.day import BOOTSTRAP, DAY, EXFILTRATION, MONITORING, NOISE, TYPO, WANTED, WORKLOAD, live
from lab.gateway import ADMIN_PORT, gateway
from lab.network import network
from tests.admin.chromium import SWITCHES, new_tab

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from lab.day import Visit
    from lab.gateway import Gateway
    from lab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

PATIENCE_S: Final = 30.0
MISSPELT: Final = "  - {name: api, to: [api.contso.example], ports: [https]}\n"
MORNING: Final = policies.policy(policies.CORE, policies.DNS, rules=MISSPELT)
EVENING: Final = MORNING.replace("contso", "contoso") + "include: [reviewed.yaml]\n"
"""What a person does with the review: takes the suggestions in, and mends the misspelling."""
SITE: Final = f"http://127.0.0.1:{ADMIN_PORT}"


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network without the gateway that other tests share: a hub has one."""
    with network(tmp_path_factory.mktemp("day")) as built:
        yield built


@pytest.fixture
def day(own_lab: Network, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with a review store, after the day has been lived under the morning's policy."""
    options = ("--fold-window-s", "0", "--gateway", "hub-lab")
    place = ("--review-store", str(tmp_path / "review.db"))
    with gateway(own_lab, MORNING, options=(*options, *place)) as running:
        assert served(own_lab) == names(BOOTSTRAP)
        await_stored(running, len(DAY))
        yield running


def served(lab: Network) -> set[str | None]:
    """Live the day; who was served."""
    return {name for name, is_served in live(lab, DAY).items() if is_served}


def names(visits: Iterable[Visit]) -> set[str | None]:
    return {visit.name for visit in visits}


def ask(running: Gateway, *argv: str, code: int = 0) -> Any:
    """What a command of the review says in JSON of the gateway's store and policy."""
    store = running.options[-1]
    command = [sys.executable, "-m", "egressproxy", *argv, "--store", store, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def await_stored(running: Gateway, flows: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := stored(running)) < flows:
        assert time.monotonic() < deadline, f"{found} of {flows} flows are stored"
        time.sleep(0.1)
    assert found == flows


def stored(running: Gateway) -> int:
    return sum(ask(running, what)["totals"]["flows"] for what in ("denies", "flows"))


def classes(lines: list[dict[str, Any]]) -> dict[str, set[str | None]]:
    """The targets of each class."""
    found: dict[str, set[str | None]] = {}
    for line in lines:
        found.setdefault(line["class"], set()).update(line["targets"])
    return found


def test_at_the_command_line(day: Gateway) -> None:
    policy = ("--policy", str(day.policy_file))
    reviewed = day.policy_file.with_name("reviewed.yaml")

    # What was denied, and what it is.
    lines = ask(day, "denies", *policy, "--group-by", "name", "--limit", "1000")["lines"]
    found = classes(lines)
    assert found["missing requirement"] == names(MONITORING)
    assert found["near miss"] == names(TYPO)
    assert found["unknown"] == names(WORKLOAD)
    assert found["harmless"] | found["optional"] == names(NOISE)
    hidden = names(EXFILTRATION) - {None}
    assert hidden < found["suspicious"]
    assert len(found["suspicious"]) == len(hidden) + 1  # the address that had no name
    assert {source for line in lines for source in line["sources"]} == {"10.240.0.4", "10.240.0.5"}

    # What to write; the misspelling is the reviewer's to mend.
    offered = ask(day, "suggest", *policy, "--write", str(reviewed))
    assert {each["kind"] for each in offered["suggestions"]} == {"requirement", "name", "wildcard"}
    assert "evil" not in reviewed.read_text()
    withheld = {target for each in offered["withheld"] for target in each["targets"]}
    assert names(TYPO) < withheld

    # What it would change, before anything is changed.
    candidate = day.policy_file.with_name("candidate.yaml")
    candidate.write_text(EVENING)
    tried = ask(day, "replay", "--policy", str(candidate), "--fail-if-newly-denied", "0")
    assert {change["target"] for change in tried["newly_allowed"]} == names(WANTED)
    assert tried["newly_denied"] == []
    assert tried["newly_allowed_flows"] == len(WANTED)

    # The same day once more.
    day.apply_policy(EVENING)
    assert served(day.lab) == names(BOOTSTRAP) | names(WANTED)
    await_stored(day, 2 * len(DAY))
    kept = ask(day, "unused", "--policy", str(day.policy_file))
    assert "rules/api" not in json.dumps(
        [rule for rule in kept.get("rules", []) if rule["use"] == "unused"]
    )


def test_a_change_that_would_deny_the_bootstrap_is_told(day: Gateway, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(policies.policy(policies.DNS))
    argv = ("replay", "--policy", str(candidate), "--fail-if-newly-denied", "0")
    tried = ask(day, *argv, code=1)
    assert {change["target"] for change in tried["newly_denied"]} == names(BOOTSTRAP)
    assert tried["newly_denied_flows"] == len(BOOTSTRAP)


@pytest.fixture
def page(day: Gateway, tmp_path: Path) -> Iterator[Page]:
    """A browser in the hub, where the admin listener needs no token."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    inside = tmp_path / "chromium-in-hub"
    inside.write_text(f'#!/bin/sh\nexec nsenter --net={day.lab.net.hub.path} {program} "$@"\n')
    inside.chmod(0o755)
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=inside, args=list(SWITCHES))
        with new_tab(browser, complaints) as tab:
            yield tab
        browser.close()
    assert not complaints


def test_in_the_browser(day: Gateway, page: Page) -> None:
    page.goto(f"{SITE}/")
    page.get_by_role("navigation").get_by_role("link", name="Denies", exact=True).first.click()
    text = page.inner_text("main")
    for name in ("lab.ods.opinsights.azure.com", "api.contoso.example", "*.drop.evil.example"):
        assert name in text
    page.get_by_role("link", name="lab.ods.opinsights.azure.com").first.click()
    assert "aks/azure-monitor" in page.inner_text("main")
    page.get_by_role("navigation").get_by_role("link", name="Suggestions", exact=True).first.click()
    yaml = page.locator("pre.copy.tall").inner_text()
    assert "aks/azure-monitor" in yaml
    assert "evil" not in yaml

    day.policy_file.with_name("reviewed.yaml").write_text(yaml)
    day.apply_policy(EVENING)
    assert served(day.lab) == names(BOOTSTRAP) | names(WANTED)
    await_stored(day, 2 * len(DAY))

    page.goto(f"{SITE}/review/reloads")
    text = page.inner_text("main")
    assert "aks/azure-monitor" in text
    page.goto(f"{SITE}/review/name?name=www.fabrikam.example")
    assert "reviewed.yaml" in page.inner_text("main")
