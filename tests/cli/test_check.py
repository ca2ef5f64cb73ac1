"""``check`` as its users run it: text, JSON, batch, exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.cli.check import MAX_LINE_OCTETS, command, judge_lines
from egressproxy.errors import PolicyError
from egressproxy.policy.compile import compile_policy
from tests.policy.building import NOON, policy, rule
from tests.policy.tag_file import tag_file

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

POLICY = """\
version: 1
cloud: AzureCloud
parameters: {location: japaneast}
sources: {build: [10.241.4.0/24]}
requirements: [aks/core]
rules:
  - {name: no-gists, action: deny, to: [gist.github.com], ports: [https]}
  - {name: github, to: [github.com, "*.github.com"], ports: [https], until: 2026-12-31}
  - {name: wheels, to: [wheels.example], ports: [https], from: [build]}
  - {name: sql, to: [20.9.0.0/16], ports: ["tcp:1433"]}
"""


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def run(policy_file: Path, *words: str, stdin: str | bytes | None = None) -> Result:
    at = () if "--at" in words else ("--at", "2026-06-15")
    return CliRunner().invoke(command, ["--policy", str(policy_file), *at, *words], input=stdin)


def test_allow(policy_file: Path) -> None:
    result = run(policy_file, "api.github.com", "--from", "10.241.4.7")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "allow  api.github.com  tls:443  from 10.241.4.7 (build)",
        "  rule    rules/github, *.github.com",
        f"  from    {policy_file}:8",
        "  pass    application (by name)",
    ]


def test_deny(policy_file: Path) -> None:
    result = run(policy_file, "gist.github.com")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "deny  gist.github.com  tls:443  rule: a deny rule matches",
        "  rule    rules/no-gists, gist.github.com",
        f"  from    {policy_file}:7",
        "  pass    application (by name)",
        f"  near    rules/github: allows *.github.com, but rules/no-gists is judged first"
        f"  {policy_file}:8",
        "  needed  rules:",
        f"            # before rules/no-gists ({policy_file}:7)",
        "            - to: [gist.github.com]",
        "              ports: [https]",
    ]


def test_audit(policy_file: Path) -> None:
    policy_file.write_text(POLICY + "mode: audit\n")
    result = run(policy_file, "gist.github.com")
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == (
        "allow  gist.github.com  tls:443  audit: enforcing denies it, rule"
    )


def test_a_catalog_row_names_its_document(policy_file: Path) -> None:
    result = run(policy_file, "mcr.microsoft.com")
    assert result.exit_code == 0
    assert "aks/core#mcr, mcr.microsoft.com" in result.output
    assert "Azure Global required FQDN" in result.output


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (("wheels.example",), 1, "rules/wheels: allows wheels.example only from build"),
        (("wheels.example", "--from", "10.241.4.1"), 0, "rules/wheels"),
        (("github.com", "--at", "2026-12-31"), 0, "rules/github"),
        (("github.com", "--at", "2026-12-31T23:59:59Z"), 0, "rules/github"),
        (("github.com", "--at", "2027-01-01"), 1, "expired_rule: its rule has expired"),
        (("20.9.1.1:1433",), 0, "pass    network (by address)"),
        (("20.9.1.1:1434",), 1, "rules/sql: allows 20.9.0.0/16 on tcp:1433, not on tcp:1434"),
        (("20.9.1.1:1433", "--protocol", "udp"), 1, "not on udp:1433"),
        (("[2001:db8::1]:443",), 1, 'to: ["2001:db8::1"]'),
        (("md-x.z1.blob.storage.azure.net",), 1, "note    harmless"),
        (("xn--gthub-n4a.com",), 1, "(g\u0131thub.com)"),
        (("github.com:80",), 1, "on tls:443, not on http:80"),
    ],
)
def test_questions(policy_file: Path, words: tuple[str, ...], code: int, shown: str) -> None:
    result = run(policy_file, *words)
    assert result.exit_code == code, result.output
    assert shown in result.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "give NAME[:PORT], or --batch"),
        (("github.com", "--batch"), "give NAME[:PORT], or --batch"),
        (("github.com", "--at", "tomorrow"), "is not a date"),
        (("github.com", "--protocol", "quic"), "'quic' is not one of"),
    ],
)
def test_usage(policy_file: Path, words: tuple[str, ...], complaint: str) -> None:
    result = run(policy_file, *words)
    assert result.exit_code == 2
    assert complaint in result.output


NEVER_DIALLED = "never dialled, whatever the policy says"
ALLOWS_NEVER_DIALLED = """\
version: 1
cloud: AzureCloud
sources: {build: [10.241.4.0/24]}
rules: [{to: [127.0.0.1, "::1"], ports: ["tcp:443-9443"]}]
"""
FORBIDDEN = {
    "allowed by a rule": "127.0.0.1:8443",
    "named by no rule": "169.254.169.254:80",
    "platform": "168.63.129.16:80",
    "multicast": "224.0.0.1:443",
    "unspecified": "0.0.0.0:443",
    "v6 loopback": "[::1]:443",
    "carried": "[::ffff:127.0.0.1]:443",
}


@pytest.mark.parametrize("mode", ["", "mode: audit\naudit_until: 2099-12-31\n"])
@pytest.mark.parametrize("target", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_is_never_dialled_is_denied(policy_file: Path, target: str, mode: str) -> None:
    policy_file.write_text(f"{ALLOWS_NEVER_DIALLED}{mode}")
    result = run(policy_file, target, "--from", "10.241.4.7")
    assert result.exit_code == 1
    shown, _, port = target.rpartition(":")
    assert result.output.splitlines() == [
        f"deny  {shown.strip('[]')}  tcp:{port}  from 10.241.4.7 (build)"
        "  forbidden_address: the address is private or special, and no rule opens it",
        f"  note    {NEVER_DIALLED}",
    ]
    one = json.loads(run(policy_file, target, "--json").output)
    line = f"{shown} {port}\n"
    batch = json.loads(run(policy_file, "--batch", "--protocol", "tcp", stdin=line).output)
    for answer in (one, batch):
        assert (answer["action"], answer["reason"]) == ("deny", "forbidden_address")
        assert (answer["rule"], answer["note"]) == (None, NEVER_DIALLED)
    assert one["needed"] == []


def test_json(policy_file: Path) -> None:
    result = run(policy_file, "gist.github.com", "--from", "10.241.4.7", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "name": "gist.github.com",
        "address": None,
        "port": 443,
        "protocol": "tls",
        "source": "10.241.4.7",
        "action": "deny",
        "reason": "rule",
        "rule": "rules/no-gists",
        "pass": "application",
        "would_deny": False,
        "note": "",
        "source_group": "build",
        "mentioned_as": "gist.github.com",
        "origin": f"{policy_file}:7",
        "requirement": None,
        "document": "",
        "section": "",
        "near_misses": [
            {
                "kind": "shadowed",
                "rule": "rules/github",
                "origin": f"{policy_file}:8",
                "text": "allows *.github.com, but rules/no-gists is judged first",
            }
        ],
        "needed": [
            "rules:",
            f"  # before rules/no-gists ({policy_file}:7)",
            "  - to: [gist.github.com]",
            "    ports: [https]",
            "    from: [build]",
        ],
        "symptom": "",
        "mode_note": "",
    }


def test_a_deny_says_what_people_see(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("version: 1\ncloud: AzureCloud\nrules: [{to: [a.test], ports: [https]}]\n")
    assert (
        "CSE exit code 50" in json.loads(run(path, "mcr.microsoft.com", "--json").output)["symptom"]
    )
    shown = run(path, "mcr.microsoft.com").output
    assert "  seen    node bootstrap fails with CSE exit code 50" in shown
    assert "seen" not in run(path, "mcr.microsoft.com", "--port", "8443").output


def test_batch(policy_file: Path) -> None:
    lines = b"\n".join(
        [
            b"github.com 443",
            b"wheels.example 443 10.241.4.1",
            b"",
            b"one-word",
            b"bad_port x",
            b"\xff\xfe 443",
            b"x" * 5000 + b" 443",
            b"20.9.1.1 1433",
            b"a b c d",
            b"gist.github.com 443",
        ]
    )
    result = run(policy_file, "--batch", stdin=lines)
    assert result.exit_code == 0
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert [(a.get("action"), a.get("rule"), a.get("line")) for a in answers] == [
        ("allow", "rules/github", None),
        ("allow", "rules/wheels", None),
        (None, None, 4),
        (None, None, 5),
        (None, None, 6),
        (None, None, 7),
        ("allow", "rules/sql", None),
        (None, None, 9),
        ("deny", "rules/no-gists", None),
    ]
    assert "write name port [source]" in answers[2]["error"]
    assert answers[2]["error"].startswith("a port is wanted")
    assert answers[7]["error"].startswith("4 words")
    assert "not UTF-8" in answers[4]["error"]
    assert "more than 1024 octets" in answers[5]["error"]


def judge(data: bytes) -> list[dict[str, Any]]:
    ruleset = compile_policy(policy(rule("a", "a.test")))
    answers = judge_lines(io.BytesIO(data), ruleset, None, source="", now=NOON)
    return [json.loads(answer) for answer in answers]


@pytest.mark.parametrize("size", [MAX_LINE_OCTETS - 1, MAX_LINE_OCTETS, MAX_LINE_OCTETS + 1, 10**6])
@pytest.mark.parametrize("end", [b"", b"\n", b"\na.test 443", b"\na.test 443\n"])
def test_lines_are_bounded(size: int, end: bytes) -> None:
    answers = judge(b"a.test 443".ljust(size) + end)
    fits = size + (end[:1] == b"\n") <= MAX_LINE_OCTETS
    assert ("error" not in answers[0]) is fits
    assert [answer.get("action") for answer in answers[1:]] == ["allow"] * (len(end) > 1)


def test_batch_streams(policy_file: Path) -> None:
    """A program may ask, wait for the answer, and ask again."""
    words = [sys.executable, "-m", "egressproxy", "check", "--batch", "--policy", str(policy_file)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(3):
            process.stdin.write(b"gist.github.com 443\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["rule"] == "rules/no-gists"
        process.stdin.close()
        assert process.wait() == 0


def test_batch_whose_reader_leaves(policy_file: Path) -> None:
    words = [sys.executable, "-m", "egressproxy", "check", "--batch", "--policy", str(policy_file)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"github.com 443\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"github.com 443\n" * 10)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_bad_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 2\n")
    with pytest.raises(PolicyError):
        CliRunner().invoke(
            command,
            ["a.test", "--policy", str(path)],
            catch_exceptions=False,
            standalone_mode=False,
        )
    process = subprocess.run(
        [sys.executable, "-m", "egressproxy", "check", "a.test", "--policy", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert f"{path}:1:10: " in process.stderr


def test_no_color(policy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours: list[bool | None] = []
    monkeypatch.setattr("click.echo", lambda _line, color=None: colours.append(color))
    run(policy_file, "github.com")
    monkeypatch.setenv("NO_COLOR", "1")
    run(policy_file, "github.com")
    assert colours == [None] * 4 + [False] * 4


def test_a_policy_that_names_files_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    (tmp_path / "tags.json").write_text(tag_file())
    path = folder / "policy.yaml"
    path.write_text(
        "version: 1\ncloud: AzureCloud\nservice_tags: ../tags.json\n"
        "rules: [{name: sql, to: ['tag:Sql.JapanEast'], ports: ['tcp:1433']}]\n"
    )
    assert isinstance(run(path, "13.78.61.196:1433").exception, PolicyError)
    result = run(path, "13.78.61.196:1433", "--allow-outside")
    assert result.output.startswith("allow  13.78.61.196  tcp:1433")
