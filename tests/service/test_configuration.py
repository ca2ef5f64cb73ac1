"""Command line before environment before file, and every problem at once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from egressproxy.errors import ServiceError
from egressproxy.service.configuration import (
    MAX_CONFIG_BYTES,
    Problems,
    Sources,
    flag,
    read_config,
    read_settings,
)
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("idle_timeout_s", "max_flows", "explicit", "policy")


def sources(
    flags: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    file: dict[str, str] | None = None,
) -> Sources:
    return Sources(
        {name: (value,) for name, value in (flags or {}).items()},
        environment or {},
        {name: (value,) for name, value in (file or {}).items()},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (sources(), 7200.0),
        (sources(file={"idle_timeout_s": "3"}), 3.0),
        (
            sources(environment={"EGRESSPROXY_IDLE_TIMEOUT_S": "2"}, file={"idle_timeout_s": "3"}),
            2.0,
        ),
        (
            sources(
                {"idle_timeout_s": "1"},
                {"EGRESSPROXY_IDLE_TIMEOUT_S": "2"},
                {"idle_timeout_s": "3"},
            ),
            1.0,
        ),
    ],
    ids=["default", "file", "environment", "flag"],
)
def test_who_wins(given: Sources, expected: float) -> None:
    problems = Problems()
    assert read_settings(given, problems).idle_timeout_s == expected
    assert not problems.found


@pytest.mark.parametrize("limit", fields(Settings), ids=lambda limit: limit.name)
def test_every_limit_has_a_flag_and_a_range(limit: object) -> None:
    name: str = getattr(limit, "name")  # noqa: B009
    problems = Problems()
    high = getattr(limit, "metadata")["high"]  # noqa: B009
    settings = read_settings(sources({name: f"{high:.0f}"}), problems)
    assert getattr(settings, name) == high
    read_settings(sources({name: "-1"}), problems)
    (problem,) = problems.found
    assert flag(name) in problem


@pytest.mark.parametrize("text", ["x", "", "nan", "1e99", "5.5", "0x10", "1_0 0"])
def test_no_number(text: str) -> None:
    problems = Problems()
    read_settings(sources({"max_flows": text or " "}), problems)
    (problem,) = problems.found
    assert "--max-flows" in problem
    assert "hint" in problem


def test_all_problems_at_once_with_their_places() -> None:
    problems = Problems()
    given = sources(
        {"max_flows": "x"}, {"EGRESSPROXY_KEEPALIVE_S": "x"}, {"idle_timeout_s": "forever"}
    )
    assert read_settings(given, problems) == Settings()
    with pytest.raises(ServiceError) as caught:
        problems.raise_all()
    for place in ("--max-flows", "EGRESSPROXY_KEEPALIVE_S", "idle_timeout_s in the config file"):
        assert place in str(caught.value)


def test_no_problems_raise_nothing() -> None:
    Problems().raise_all()


def test_many_values() -> None:
    environment = {"EGRESSPROXY_EXPLICIT": "127.0.0.1:1 127.0.0.1:2"}
    assert sources(environment=environment).many("explicit") == ("127.0.0.1:1", "127.0.0.1:2")
    assert sources({"explicit": ":3"}, environment).many("explicit") == (":3",)
    assert sources().many("explicit") == ()


def test_a_path_with_spaces_in_the_environment() -> None:
    environment = {"EGRESSPROXY_POLICY": "/etc/my policies/a.yaml"}
    assert sources(environment=environment).one("policy") == "/etc/my policies/a.yaml"


def read_whole(path: Path) -> None:
    problems = Problems()
    read_config(path, KNOWN, problems)
    problems.raise_all()


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("idle_timeout_s: 600\nexplicit: [127.0.0.1:3128, ':80']\n")
    assert read_config(path, KNOWN, Problems()) == {
        "idle_timeout_s": ("600",),
        "explicit": ("127.0.0.1:3128", ":80"),
    }


def test_an_empty_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# nothing yet\n")
    assert read_config(path, KNOWN, Problems()) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n", "not a mapping"),
        (b"idle_timeout: 3\n", "unknown key 'idle_timeout' (hint: idle_timeout_s?)"),
        (b"explicit: {a: b}\n", "neither a value nor a list"),
        (b"explicit: [[a]]\n", "neither a value nor a list"),
        (b"policy:\n", "neither a value nor a list"),
        (b"a: [\n", "cannot be read"),
        (b"!!python/object/apply:os.system [ls]\n", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"x" * (MAX_CONFIG_BYTES + 1), "larger than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_config_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ServiceError) as caught:
        read_whole(path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content", "values", "found"),
    [
        (
            "idle_timeout: 3\npolicy: p\n",
            {"idle_timeout_s": ("3",), "policy": ("p",)},
            ["unknown key 'idle_timeout' (hint: idle_timeout_s?)"],
        ),
        (
            "idle_timeout_s: 4\nidle_timeout: 3\n",
            {"idle_timeout_s": ("4",)},
            ["unknown key 'idle_timeout' (hint: idle_timeout_s?)"],
        ),
        (
            "1: x\nexplicit: {a: b}\nmax-flows: 7\n",
            {"explicit": (), "max_flows": ("7",)},
            [
                "unknown key '1'",
                "explicit is neither a value nor a list of values",
                "unknown key 'max-flows' (hint: max_flows?)",
            ],
        ),
    ],
    ids=["misspelt", "misspelt beside the right one", "each is told"],
)
def test_one_wrong_key_makes_no_other_unknown(
    tmp_path: Path, content: str, values: dict[str, tuple[str, ...]], found: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    problems = Problems()
    assert read_config(path, KNOWN, problems) == values
    assert problems.found == [f"{path}: {text}" for text in found]


def test_a_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"none\.yaml: cannot be read: No such file"):
        read_config(tmp_path / "none.yaml", KNOWN, Problems())
