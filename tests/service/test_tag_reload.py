"""The running service follows its service tag file: written over, renamed over, linked, outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from tests.policy.tag_file import tag_file
from tests.service.running import poll, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.running import Service, World

pytestmark = pytest.mark.netns

FORBIDDEN: Final = 403
POLICY: Final = """\
version: 1
cloud: AzureCloud
service_tags: %s
rules:
  - {name: sql, to: ["tag:Sql.JapanEast"], ports: ["tcp:1433"]}
"""
TODAY: Final = datetime.now(UTC).date()
YOUNGER: Final = f"ServiceTags_Public_{TODAY:%Y%m%d}.json"
OLDER: Final = f"ServiceTags_Public_{TODAY - timedelta(days=7):%Y%m%d}.json"


def week(number: int, *prefixes: str) -> str:
    """A file in which Sql.JapanEast has these ranges."""
    return tag_file({("Sql.JapanEast", "japaneast"): prefixes}, change_number=number)


FIRST: Final = week(374, "20.9.0.0/24")
SECOND: Final = week(375, "20.9.1.0/24")


def allows(service: Service, address: str) -> bool:
    """Whether an address is allowed; there is no route to it, so it cannot be reached."""
    with service.connect() as connection:
        return service.try_tunnel(connection, 1433, address)[0] != FORBIDDEN


def gauge(service: Service, name: str) -> float:
    text = service.ask("/metrics")[1]
    found = re.search(rf"^egressproxy_service_tags_{name} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def rename_over(path: Path, text: str) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


def link_over(path: Path, target: str) -> None:
    draft = path.with_suffix(".link")
    draft.symlink_to(target)
    draft.replace(path)


def assert_second_week(service: Service) -> None:
    line = service.wait_for("policy reloaded")
    (change,) = line["changes"]
    assert change == (
        "~ rule rules/sql: the ranges of its service tags changed, 1 added and 1 removed"
    )
    assert "change 375" in line["service_tags"]
    assert allows(service, "20.9.1.7")
    assert not allows(service, "20.9.0.7")
    assert gauge(service, "change_number") == 375


def test_renamed_over(gate: World) -> None:
    with running(gate, policy=POLICY % "tags.json", files={"tags.json": FIRST}) as service:
        assert "change 374" in service.said("policy loaded")[0]["service_tags"]
        assert allows(service, "20.9.0.7")
        rename_over(service.policy.parent / "tags.json", SECOND)
        assert_second_week(service)


def test_a_link_that_is_swapped(gate: World) -> None:
    files = {OLDER: FIRST, YOUNGER: SECOND}
    with running(gate, policy=POLICY % OLDER, files=files) as service:
        link = service.policy.parent / "tags.json"
        link_over(link, OLDER)
        service.policy.write_text(POLICY % "tags.json")
        service.wait_for("policy unchanged")
        before = gauge(service, 'timestamp_seconds{dated_by="name"}')
        link_over(link, YOUNGER)
        assert_second_week(service)
        after = gauge(service, 'timestamp_seconds{dated_by="name"}')
        assert after - before == timedelta(days=7).total_seconds()
        page = service.ask("/policy")[1]["service_tags"]
        assert (page["change_number"], page["dated"]) == (375, str(TODAY))


def test_outside_the_policys_folder(gate: World, tmp_path: Path) -> None:
    """As where a timer downloads it into a folder of its own and swaps a link there."""
    for name, text in ((OLDER, FIRST), (YOUNGER, SECOND)):
        (tmp_path / name).write_text(text)
    current = tmp_path / "current.json"
    current.symlink_to(OLDER)
    with running(gate, "--allow-outside", policy=POLICY % current) as service:
        assert allows(service, "20.9.0.7")
        link_over(current, YOUNGER)
        assert_second_week(service)


def test_half_a_download_and_a_file_that_lacks_the_tag_change_nothing(gate: World) -> None:
    with running(gate, policy=POLICY % "tags.json", files={"tags.json": FIRST}) as service:
        tags = service.policy.parent / "tags.json"
        tags.write_text(SECOND[: len(SECOND) // 2])
        (problem,) = service.wait_for("policy refused, the old one stays")["problems"]
        assert "tags.json:" in problem
        assert "not JSON" in problem
        rename_over(tags, tag_file({("Sql.JapanWest", "japanwest"): ["20.9.1.0/24"]}))
        line = service.wait_for("policy refused, the old one stays", times=2)
        assert "did you mean Sql.JapanWest?" in line["problems"][0]
        assert allows(service, "20.9.0.7")
        assert gauge(service, "change_number") == 374
        rename_over(tags, SECOND)
        assert_second_week(service)


def test_a_week_that_changes_nothing_here_is_noted_all_the_same(gate: World) -> None:
    with running(gate, policy=POLICY % "tags.json", files={"tags.json": FIRST}) as service:
        rename_over(service.policy.parent / "tags.json", week(375, "20.9.0.0/25", "20.9.0.128/25"))
        assert "change 375" in service.wait_for("policy unchanged")["service_tags"]
        assert gauge(service, "change_number") == 375
        assert service.ask("/policy")[1]["service_tags"]["change_number"] == 375
        service.policy.write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
        service.wait_for("policy reloaded")
        poll("no tags", lambda: "service_tags" not in service.ask("/metrics")[1])
        assert service.ask("/policy")[1]["service_tags"] is None


def test_an_old_file_is_told(gate: World) -> None:
    name = "ServiceTags_Public_20200106.json"
    with running(gate, policy=POLICY % name, files={name: FIRST}) as service:
        line = service.wait_for("service tags are old")
        assert (line["level"], line["published"]) == ("warning", "2020-01-06")
        assert line["age_days"] > 2000
        assert line["file"].endswith(name)
        service.reload()
        service.wait_for("policy unchanged")
        service.policy.write_text(POLICY % name + "# edited\nmode: audit\n")
        service.wait_for("policy reloaded")
        assert len(service.said("service tags are old")) == 1, "of this file it is known"
        rename_over(service.policy.parent / name, SECOND)
        service.wait_for("service tags are old", times=2)


def test_a_file_that_comes_after_the_policy_that_names_it(gate: World) -> None:
    with running(gate, policy="version: 1\ncloud: AzureCloud\nrules: []\n") as service:
        service.policy.write_text(POLICY % "tags.json")
        line = service.wait_for("policy refused, the old one stays")
        assert "'tags.json' cannot be read: No such file or directory" in line["problems"][0]
        rename_over(service.policy.parent / "tags.json", FIRST)
        service.wait_for("policy reloaded")
        assert allows(service, "20.9.0.7")
