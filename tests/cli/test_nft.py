"""``egressproxy nft``: what it prints without a kernel, and what it does to one."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner, Result

from egressproxy.cli import nft as command_module
from egressproxy.cli import nft_page
from egressproxy.errors import KernelError, PolicyError, ServiceError
from egressproxy.kernel.firewall_status import Count, FirewallStatus, SetSize
from egressproxy.kernel.host_state import owned
from egressproxy.kernel.nft_apply import Nft, TableState
from egressproxy.kernel.nft_names import name_sets
from egressproxy.kernel.routing import RoutingState, ensure_guard
from egressproxy.kernel.sysctls import Difference, ensure_sysctls
from egressproxy.kernel.takeover import Takeover
from egressproxy.names import DnsName
from tests.kernel.one_nic import OneNic, one_nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLICY: Final = """\
version: 1
cloud: AzureCloud
rules:
  - {name: web, to: [www.contoso.example], ports: [https]}
  - {name: any-udp, to: [20.97.0.0/24, "2001:db8:97::/64"], ports: ["udp:1024-65535"]}
  - {name: time, to: [ntp.ubuntu.com], ports: ["udp:123"]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state.json"


def run(*arguments: object, **environment: str) -> Result:
    """Run it; errors are raised, as ``main`` gets them."""
    words = [str(argument) for argument in arguments]
    return CliRunner(env=environment).invoke(command_module.command, words, catch_exceptions=False)


def test_show_prints_what_nft_reads(policy: Path) -> None:
    result = run("show", "--policy", policy, "--redirect", ":15001")
    assert result.exit_code == 0
    assert result.output.startswith("add table inet egressproxy\n")
    assert "redirect to :15001" in result.output


def test_options_come_from_the_same_file_as_those_of_up(policy: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"policy: {policy}\nredirect: 0.0.0.0:15009\nmanagement: [10.9.0.0/24]\n"
        "admin: 10.0.0.4:9091\nexplicit: [10.0.0.4:3128, 127.0.0.1:3129]\nidle_timeout_s: 60\n"
    )
    text = run("show", "--config", config).output
    assert "redirect to :15009" in text
    assert "10.9.0.0/24" in text
    assert "9091" in text
    assert "3128" in text
    assert "3129" not in text
    text = run("show", "--config", config, EGRESSPROXY_REDIRECT=":15010").output
    assert "redirect to :15010" in text
    text = run("show", "--config", config, "--redirect", ":15011", EGRESSPROXY_REDIRECT=":1").output
    assert "redirect to :15011" in text


def test_tproxy_and_no_admin(policy: Path) -> None:
    for admin in ("none", "unix:/run/x", "127.0.0.1:9090"):
        text = run("show", "--policy", policy, "--tproxy", ":15002", "--admin", admin).output
        assert "tproxy to :15002" in text
        assert "9090" not in text


def test_every_problem_is_told_at_once(policy: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("snta: never\n")
    wrong = ("--redirect", "x", "--admin", "y", "--clients", "10.0.0.0/99", "--snat", "z")
    with pytest.raises(ServiceError) as caught:
        run("show", "--policy", policy, "--config", config, *wrong)
    for told in ("'snta' (hint: snat?)", "--redirect", "--admin", "--clients", "--snat"):
        assert told in str(caught.value)


@pytest.mark.parametrize("verb", ["show", "check", "apply"])
def test_a_policy_is_wanted(verb: str) -> None:
    result = run(verb)
    assert result.exit_code == 2
    assert "a policy is wanted" in result.output


def test_a_bad_policy_is_told(policy: Path) -> None:
    policy.write_text("version: 2\n")
    with pytest.raises(PolicyError):
        run("show", "--policy", policy)


# The page of status

STATUS: Final = FirewallStatus(
    takeover=Takeover(
        table=TableState(digest="ab" * 32, chains=frozenset("abc"), sets={}, counters={}),
        is_changed=True,
        routing=RoutingState(guard=True, ahead=("ip rule 9: from all lookup 7",)),
        sysctls=(Difference("net/ipv4/tcp_migrate_req", "1", ""),),
        is_forwarding=True,
    ),
    policy_digest="ab" * 32,
    outcomes=(
        Count("proxied", "proxied", 1204, 72_240, "proxy"),
        Count("invalid", "invalid", 0, 0, "drop"),
    ),
    rules=(
        Count("rules/sql", "r_1", 12, 1_400_000, "allow"),
        Count("rules/[bold]\x1b[31mevil", "r_2", 1, 9, "drop"),
        Count("rules/rest", "r_3", 0, 0, "allow"),
    ),
    sets=(
        SetSize("ntp.ubuntu.com", "n4_1", "ipv4_addr", 4),
        SetSize("", "s4_1", "ipv4_addr", 1000),
        SetSize("", "s4_2", "ipv4_addr", 500),
    ),
    problems=("a routing rule comes before the guard: ip rule 9: from all lookup 7",),
)
NOTHING: Final = FirewallStatus(
    takeover=Takeover(
        table=None, is_changed=None, routing=RoutingState(), sysctls=(), is_forwarding=False
    ),
    policy_digest="",
    problems=("there is no table",),
)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def shown(found: FirewallStatus, monkeypatch: pytest.MonkeyPatch, *, all_: bool = False) -> str:
    """The page on a terminal of 100 columns, without colours."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name, value in (("COLUMNS", "100"), ("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    nft_page.print_status(found, all_=all_)
    monkeypatch.undo()
    return "".join(f"{line.rstrip()}\n" for line in terminal.getvalue().splitlines())


def test_golden_pages(monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]) -> None:
    golden("nft-status.txt", shown(STATUS, monkeypatch))
    golden("nft-status-all.txt", shown(STATUS, monkeypatch, all_=True))
    golden("nft-status-none.txt", shown(NOTHING, monkeypatch))
    audit = replace(STATUS, is_audit=True, wants_tproxy=True, outcomes=(), rules=(), sets=())
    golden("nft-status-audit.txt", shown(audit, monkeypatch))


def test_a_pipe_gets_everything_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    nft_page.print_status(STATUS, all_=False)
    lines = [tuple(line.split("\t")) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ("table", "ab" * 32),
        ("guard", "yes"),
        ("problem", STATUS.problems[0]),
        ("outcome", "proxied", "1204", "72240"),
        ("outcome", "invalid", "0", "0"),
        ("rule", "rules/sql", "12", "1400000"),
        ("rule", "rules/[bold]\ufffd[31mevil", "1", "9"),
        ("rule", "rules/rest", "0", "0"),
        ("set", "ntp.ubuntu.com", "ipv4_addr", "4"),
        ("set", "s4_1", "ipv4_addr", "1000"),
        ("set", "s4_2", "ipv4_addr", "500"),
    ]


def test_a_pipe_is_told_of_an_audit_and_of_tproxy(capsys: pytest.CaptureFixture[str]) -> None:
    nft_page.print_status(replace(STATUS, is_audit=True, wants_tproxy=True), all_=False)
    assert "guard\tyes\ntproxy\tno\naudit\tyes\nproblem\t" in capsys.readouterr().out


def test_json_is_exact() -> None:
    found = nft_page.status_as_json(STATUS)
    assert found["table"] == {"policy": "ab" * 32, "chains": 3}
    assert found["changed_by_hand"] is True
    assert found["audit"] is False
    assert nft_page.status_as_json(NOTHING)["audit"] is None
    assert found["sysctls"] == [{"name": "net.ipv4.tcp_migrate_req", "wanted": "1", "now": None}]
    assert found["rules"][0] == {
        "rule": "rules/sql",
        "action": "allow",
        "packets": 12,
        "bytes": 1_400_000,
        "counter": "r_1",
    }
    assert found["sets"][1] == {"set": "s4_1", "name": None, "type": "ipv4_addr", "size": 1000}
    assert nft_page.status_as_json(NOTHING)["table"] is None


# A real kernel


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built, built.hub.entered():
        yield built


@pytest.mark.netns
def test_a_gateway_by_hand(net: OneNic, policy: Path, state: Path) -> None:
    """Check, apply, flushed, applied again, removed: the real table, and what is forwarded."""
    given = ("--policy", policy, "--state", state, "--redirect", ":15001")
    result = run("check", *given)
    assert result.output.startswith("good: policy ")
    assert "2 network rules, application ports 443" in result.output
    assert "nothing of ours is in place" in run("status", *given).output

    result = run("apply", *given)
    assert result.stdout.startswith("in place: policy ")
    assert "the routing guard is not" in result.stderr
    assert "sysctls that are not as they have to be: " in result.stderr
    ensure_guard()
    ensure_sysctls(state)
    result = run("status", *given)
    assert result.exit_code == 1
    assert "to port 15001, and nobody listens there" in result.output
    with socket.create_server(("", 15001)):
        result = run("status", *given)
    assert result.exit_code == 0, result.output
    assert [net.forwards(version) for version in (4, 6)] == [True, True]
    assert "rule\trules/any-udp\t2\t" in run("status", *given).output
    net.hub.run("nft", "flush", "ruleset")
    assert [net.forwards(version) for version in (4, 6)] == [False, False]
    run("apply", *given)
    assert [net.forwards(version) for version in (4, 6)] == [True, True]
    assert run("remove", "--state", state).output == "the table is deleted\n"
    assert run("remove", "--state", state).output == "there was no table\n"
    assert [net.forwards(version) for version in (4, 6)] == [False, False]


@pytest.mark.netns
def test_what_a_new_policy_denies_is_closed_by_hand(net: OneNic, policy: Path, state: Path) -> None:
    given = ("--policy", policy, "--state", state)
    assert run("apply", *given).stdout.count("\n") == 1, "there is nothing to close"
    ensure_guard()
    ensure_sysctls(state)
    assert net.forwards(4)
    policy.write_text(POLICY.replace("20.97.0.0/24", "20.98.0.0/24"))
    output = run("apply", *given).stdout
    assert "forwarded connections that it denies: ended: 1\n" in output
    policy.write_text(POLICY.replace("udp:123", "udp:1234"))
    Nft().add_elements(name_sets(DnsName("ntp.ubuntu.com"))[0], [("10.50.0.9", 600)])
    assert "addresses of names that it denies: taken out: 1\n" in run("apply", *given).stdout


@pytest.mark.netns
def test_status_counts_and_tells_what_is_wrong(
    net: OneNic, policy: Path, state: Path, request: pytest.FixtureRequest
) -> None:
    given = ("--policy", policy, "--state", state)
    run("apply", *given)
    ensure_guard()
    ensure_sysctls(state)
    with socket.create_server(("127.0.0.1", 15001)):
        assert "nobody listens there" in status(*given)["problems"][0]
    listener = socket.create_server(("", 15001))
    request.addfinalizer(listener.close)
    assert status(*given)["problems"] == []
    net.hub.run("nft", "insert", "rule", "inet", "egressproxy", "forward", "accept")
    found = status(*given)
    assert found["changed_by_hand"] is True
    assert "somebody changed the table" in found["problems"][0]
    run("apply", *given)
    assert status(*given)["problems"] == []
    policy.write_text(POLICY.replace("udp:123", "udp:1234"))
    assert "is in force, not" in status(*given)["problems"][0]
    assert [rule["rule"] for rule in found["rules"]] == ["rules/any-udp", "rules/time"]
    assert {one["name"] for one in found["sets"]} >= {"ntp.ubuntu.com"}
    policy.write_text(POLICY.replace("udp:123", "udp:x"))
    found = status(*given)
    assert "the policy's file is bad" in found["problems"][0]
    assert str(policy) in found["problems"][0]
    assert {rule["rule"] for rule in found["rules"]} == {"rules/any-udp", "rules/time"}


@pytest.mark.netns
def test_status_tells_of_options_that_are_not_in_force(
    net: OneNic, policy: Path, state: Path, request: pytest.FixtureRequest
) -> None:
    """Where management is given, as for ``up``; the order of ranges means nothing."""
    listener = socket.create_server(("", 15001))
    request.addfinalizer(listener.close)
    given = ("--policy", policy, "--state", state, "--clients", "10.240.0.0/16")
    run("apply", *given, "--clients", "10.241.0.0/16", "--management", "10.9.0.0/24")
    ensure_guard()
    ensure_sysctls(state)
    assert status(*given)["problems"] == []
    whole = (*given, "--management", "10.9.0.0/24")
    (problem,) = status(*whole)["problems"]
    assert "other options are in force" in problem
    assert status("--clients", "10.241.0.0/16", *whole)["problems"] == []


@pytest.mark.netns
def test_a_damaged_state_file_hides_nothing(net: OneNic, policy: Path, state: Path) -> None:
    given = ("--policy", policy, "--state", state)
    run("apply", *given)
    state.write_text("{")
    found = status(*given)
    assert any("damaged" in each for each in found["problems"])
    assert found["changed_by_hand"] is None
    assert found["rules"]


def status(*given: object) -> dict[str, Any]:
    result = run("status", *given, "--json")
    found: dict[str, Any] = json.loads(result.output)
    assert result.exit_code == (1 if found["problems"] else 0)
    return found


@pytest.mark.netns
def test_what_up_owns_is_left_alone(net: OneNic, policy: Path, state: Path) -> None:
    with owned(state):
        for words in (("apply", "--policy", policy), ("remove",)):
            with pytest.raises(KernelError, match="egressproxy is up"):
                run(*words, "--state", state)
        assert run("status", "--policy", policy, "--state", state).exit_code == 1
