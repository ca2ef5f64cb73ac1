"""The command as a process: whatever goes wrong is told on one line and ends with 2, never 1."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import click
import pytest
from click.testing import CliRunner

from egressproxy.cli import main as main_module
from egressproxy.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

POLICY: Final = """\
version: 1
cloud: AzureCloud
rules: [{to: [github.com], ports: [https]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "folder").mkdir()
    return tmp_path


def shell(folder: Path, line: str) -> tuple[int, str, str]:
    """Run a line of bash in which ``egressproxy`` is the command."""
    command = f'egressproxy() {{ "{sys.executable}" -m egressproxy "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, timeout=50, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


ENDS = {
    "allow": ("egressproxy check github.com --policy policy.yaml", 0),
    "allow, stdout closed": ("egressproxy check github.com --policy policy.yaml >&-", 0),
    "deny, all closed": ("egressproxy check a.com --policy policy.yaml <&- >&- 2>&-", 1),
    "batch without stdin": ("egressproxy check --batch --policy policy.yaml <&-", 0),
    "list without stdout": ("egressproxy catalog list >&-", 0),
    "help": ("egressproxy --help", 0),
    "no command": ("egressproxy", 2),
    "unknown option": ("egressproxy check --nonsense", 2),
    "full disk": ("egressproxy policy show policy.yaml >/dev/full", 2),
    "full disk, check": ("egressproxy check github.com --policy policy.yaml >/dev/full", 2),
    "full disk, batch": (
        "echo github.com 443 | egressproxy check --batch --policy policy.yaml >/dev/full",
        2,
    ),
    "no folder to write to": ("egressproxy init --location japaneast -o none/policy.yaml", 2),
    "a folder to write to": ("egressproxy init --location japaneast -o folder --force", 2),
    "no such file": ("egressproxy check a.com --policy none.yaml", 2),
    "a folder": ("egressproxy policy diff policy.yaml folder", 2),
    "argument not UTF-8": (r"egressproxy check $'\xff\xfe' --policy policy.yaml", 2),
    "path not UTF-8": (r"egressproxy policy validate $'\xff\xfe.yaml'", 2),
}


@pytest.mark.parametrize(("line", "code"), ENDS.values(), ids=ENDS)
def test_how_it_ends(folder: Path, line: str, code: int) -> None:
    ended, _, told = shell(folder, line)
    assert "Traceback" not in told
    assert ended == code, told


@pytest.mark.parametrize("command", ["policy show policy.yaml", "catalog list", "catalog show acr"])
def test_a_reader_that_has_seen_enough(folder: Path, command: str) -> None:
    _, _, told = shell(folder, f"egressproxy {command} | true")
    assert told == ""


RAISED = {
    "ours": (ServiceError("no"), "egressproxy: no\n", 2),
    "of the system": (
        PermissionError(13, "Permission denied", "x"),
        "egressproxy: x: Permission",
        2,
    ),
    "usage": (click.UsageError("what"), "Error: what", 2),
    "file": (click.ClickException("what"), "Error: what", 2),
    "interrupted": (click.Abort(), "Aborted!", 2),
    "a defect": (ZeroDivisionError(), "Traceback", 2),
    "pipe": (BrokenPipeError(), "", 2),
    "its own end": (SystemExit(1), "", 1),
}


@pytest.mark.parametrize(("error", "told", "code"), RAISED.values(), ids=RAISED)
def test_what_a_command_raises(
    error: BaseException,
    told: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "main", command)
    monkeypatch.setattr(main_module, "forget_stdout", lambda: None)
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(told)


def test_missing_streams_are_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(main_module.cli, "main", lambda **_: sys.stdin.close())
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == 0


MISSPELT = {
    "a letter": ("deneis", "No such command 'deneis': did you mean denies?"),
    "nothing near": ("xyzzy", "No such command 'xyzzy'."),
    "an empty one": ("", "No such command ''."),
}


@pytest.mark.parametrize(("word", "told"), MISSPELT.values(), ids=MISSPELT)
def test_no_such_command(word: str, told: str) -> None:
    done = CliRunner().invoke(main_module.cli, [word])
    assert done.exit_code == main_module.EXIT_ERROR
    assert told in done.stderr
