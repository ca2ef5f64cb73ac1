"""``egressproxy run``: its options from all their sources, and what it says when they are wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from egressproxy.admin.options import AdminOptions
from egressproxy.cli import run
from egressproxy.errors import ServiceError
from egressproxy.planes.context import AllowRecords, ListenerKind
from egressproxy.service.configuration import flag
from egressproxy.service.options import Endpoint, Listener, RunOptions, host_name
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = ("--policy", "p.yaml", "--explicit", "127.0.0.1:3128")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[RunOptions, Any]]:
    """Run the command up to the point where the service would begin."""
    seen: list[tuple[RunOptions, Any]] = []
    monkeypatch.setattr(run, "serve", lambda options, admin: seen.append((options, admin)))

    def call(*arguments: str, **environment: str) -> tuple[RunOptions, Any]:
        result = CliRunner(env=environment).invoke(run.command, list(arguments))
        if result.exception is not None:
            raise result.exception
        return seen[-1]

    return call


def test_defaults(invoke: Callable[..., tuple[RunOptions, Any]]) -> None:
    options, admin = invoke(*LEAST)
    assert options.policy == Path("p.yaml")
    assert options.listeners == (Listener(ListenerKind.EXPLICIT, Endpoint("127.0.0.1", 3128)),)
    assert options.settings == Settings()
    assert options.workers >= 1
    assert options.log.path is None
    assert options.log.allows is AllowRecords.ALL
    assert admin == AdminOptions(Endpoint("127.0.0.1", 9090))
    assert not options.allow_outside
    assert options.review_store is None
    assert options.review_max_newly_denied is None
    assert options.gateway == host_name()


def test_everything_given(invoke: Callable[..., tuple[RunOptions, Any]], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    (tmp_path / "reads").write_text("only-looking-thank-you")
    options, admin = invoke(
        *LEAST,
        *("--explicit", "[::1]:3128", "--redirect", ":8443", "--tproxy", "0.0.0.0:8444"),
        *("--workers", "3", "--admin", "0.0.0.0:9090", "--admin-token-file", str(token)),
        *("--admin-read-token-file", str(tmp_path / "reads")),
        *("--log", "flows.jsonl", "--log-allows", "1/10", "--mark", "0x10", "--allow-outside"),
        *("--resolve", "a.test=192.0.2.1", "--resolve", "a.test=192.0.2.2"),
        *("--dns", "192.0.2.53", "--dns", "[2001:db8::53]:54", "--max-flows", "5"),
        *("--review-store", "review.db", "--gateway", "gw-1", "--review-max-newly-denied", "7"),
        *("--review-max-age-days", "9"),
    )
    kinds = [listener.kind.value for listener in options.listeners]
    assert kinds == ["explicit", "explicit", "redirect", "tproxy"]
    assert options.workers == 3
    assert admin.token == "correct-horse-battery-staple"
    assert admin.read_token == "only-looking-thank-you"
    assert (options.log.allows, options.log.sample_every) == (AllowRecords.SAMPLE, 10)
    assert options.log.path == Path("flows.jsonl")
    assert options.overrides == {"a.test": ("192.0.2.1", "192.0.2.2")}
    assert options.servers == (Endpoint("192.0.2.53", 53), Endpoint("2001:db8::53", 54))
    assert options.settings.max_flows == 5
    assert options.mark == 16
    assert (options.review_store, options.gateway) == ("review.db", "gw-1")
    assert options.review_max_newly_denied == 7
    assert options.settings.review_max_age_days == 9
    assert options.allow_outside


def test_flag_before_environment_before_file(
    invoke: Callable[..., tuple[RunOptions, Any]], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "policy: file.yaml\nexplicit: ['127.0.0.1:1', '127.0.0.1:2']\nmax_flows: 1\n"
        "keepalive_s: 11\nidle_timeout_s: 1.5\nadmin: none\nallow_outside: true\n"
    )
    options, admin = invoke(
        *("--config", str(config), "--max-flows", "3"),
        EGRESSPROXY_MAX_FLOWS="2",
        EGRESSPROXY_KEEPALIVE_S="22",
        EGRESSPROXY_EXPLICIT="127.0.0.1:8",
        EGRESSPROXY_PORT="tcp://10.0.0.1:3128",
    )
    assert admin is None
    assert options.policy == Path("file.yaml")
    assert [listener.endpoint.port for listener in options.listeners] == [8]
    assert options.settings == Settings(max_flows=3, keepalive_s=22, idle_timeout_s=1.5)
    assert options.allow_outside


def test_every_problem_at_once(
    invoke: Callable[..., tuple[RunOptions, Any]], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("max_flow: 3\n")
    with pytest.raises(ServiceError) as caught:
        invoke(
            *("--config", str(config), "--explicit", "3128", "--admin", "0.0.0.0:9"),
            *("--workers", "x", "--resolve", "a", "--dns", "x", "--log-allows", "some"),
            *("--admin-token-file", str(tmp_path / "none"), "--mark", "-1"),
            EGRESSPROXY_IDLE_TIMEOUT_S="forever",
        )
    message = str(caught.value)
    for part in (
        "'max_flow' (hint: max_flows?)",
        "--explicit: '3128'",
        "--admin: ",
        "--admin-token-file: ",
        "--workers: 'x'",
        "--resolve: 'a'",
        "--dns: 'x'",
        "--log-allows: 'some'",
        "--mark: '-1'",
        "EGRESSPROXY_IDLE_TIMEOUT_S: 'forever'",
        "a policy is wanted (hint: --policy FILE; egressproxy init writes one)",
    ):
        assert part in message, message
    assert message.count("\n  ") == message.count("hint: ") == 11


def test_nothing_to_do(invoke: Callable[..., tuple[RunOptions, Any]]) -> None:
    with pytest.raises(ServiceError, match="nothing to listen on"):
        invoke("--policy", "p.yaml")


@pytest.mark.parametrize("limit", fields(Settings), ids=lambda limit: limit.name)
def test_every_limit_is_an_option_that_says_what_it_limits(limit: Any) -> None:
    option = next(o for o in run.command.params if o.name == limit.name)
    assert isinstance(option, click.Option)
    assert option.opts == [flag(limit.name)]
    assert option.help
    assert limit.metadata["help"] in option.help
    assert str(limit.default) in option.help


def test_help(golden: Callable[[str, str], None]) -> None:
    result = CliRunner().invoke(
        run.command, ["--help"], prog_name="egressproxy run", terminal_width=100
    )
    golden("run_help.txt", result.output)


def test_a_limit_on_newly_denied_flows_needs_a_store(
    invoke: Callable[..., tuple[RunOptions, Any]],
) -> None:
    with pytest.raises(ServiceError, match="asks the review store, and there is none"):
        invoke(*LEAST, "--review-max-newly-denied", "7")
    with pytest.raises(ServiceError, match="there is none"):
        invoke(*LEAST, "--review-max-newly-denied", "7", "--review-store", "none")
    assert invoke(*LEAST, "--review-max-newly-denied", "none")[0].review_max_newly_denied is None


def test_a_limit_on_newly_denied_flows_needs_recorded_allows(
    invoke: Callable[..., tuple[RunOptions, Any]],
) -> None:
    with pytest.raises(ServiceError, match="--log-allows none records none"):
        invoke(
            *(*LEAST, "--review-max-newly-denied", "7", "--review-store", "r.db"),
            *("--log-allows", "none"),
        )
