"""The state file: round trip, hostile content, another boot, another namespace, one owner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel import host_state
from egressproxy.kernel.host_state import HostState, forget_state, owned, read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Callable

STATE: Final = HostState(
    sysctls={"net/ipv4/ip_forward": "0", "net/ipv6/conf/eth0.100/accept_ra": "-1"},
    fingerprint="0123456789abcdef",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state.json"


def test_what_is_written_is_read(path: Path) -> None:
    assert read_state(path) == HostState()
    write_state(STATE, path)
    assert read_state(path) == STATE
    write_state(HostState(), path)
    assert read_state(path) == HostState()
    forget_state(path)
    forget_state(path)
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_nobody_else_can_look_or_write(path: Path) -> None:
    write_state(STATE, path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_crash_while_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(STATE, path)

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_state(HostState(), path)
    assert read_state(path) == STATE
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_of_another_boot_counts_as_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(STATE, path)
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(host_state, "_BOOT_ID", tmp_path / "boot")
    assert read_state(path) == HostState()


def test_a_file_of_another_namespace_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(STATE, path)
    monkeypatch.setattr(host_state, "_NAMESPACE", tmp_path)
    with pytest.raises(KernelError, match=r"another network namespace .*--state"):
        read_state(path)


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


DAMAGED: Final[dict[str, Callable[[Path], object]]] = {
    "empty": lambda path: path.write_text(""),
    "cut short": lambda path: path.write_text(path.read_text()[:-20]),
    "no object": lambda path: path.write_text("[]"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "of a later version": edited(version=2),
    "a path that leaves": edited(sysctls={"net/../kernel/core_pattern": "1"}),
    "an absolute path": edited(sysctls={"/etc/passwd": "1"}),
    "another tree": edited(sysctls={"kernel/core_pattern": "1"}),
    "a value that is text": edited(sysctls={"net/ipv4/ip_forward": "|sh"}),
    "a value that is a number": edited(sysctls={"net/ipv4/ip_forward": 1}),
    "sysctls that are a list": edited(sysctls=[1]),
    "a fingerprint that is none": edited(fingerprint="xyz"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_told(path: Path, case: str) -> None:
    write_state(STATE, path)
    DAMAGED[case](path)
    with pytest.raises(KernelError, match=r"damaged.*ip_forward=0.*sysctl --system"):
        read_state(path)


def _readable(path: Path) -> None:
    path.chmod(0o620)


def _linked(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [_readable, _linked, _folder, _pipe])
def test_a_file_that_others_may_have_written_is_refused(
    path: Path, change: Callable[[Path], None]
) -> None:
    write_state(STATE, path)
    change(path)
    with pytest.raises(KernelError, match=r"state\.json: "):
        read_state(path)


@given(st.binary(max_size=300))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    path = Path(f"/dev/shm/egressproxy-test-{os.getpid()}.json")
    try:
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KernelError):
            read_state(path)
    finally:
        path.unlink(missing_ok=True)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for action in (write_state, lambda _, path: forget_state(path), lambda _, path: _own(path)):
        with pytest.raises(KernelError, match=r"name another file: --state PATH"):
            action(STATE, tmp_path / "file" / "state.json")
    with pytest.raises(KernelError, match=r"Is a directory"):
        forget_state(tmp_path)


def _own(path: Path) -> None:
    with owned(path):
        pass


OWNER: Final = """
import sys
from pathlib import Path
from egressproxy.kernel.host_state import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_there_is_one_owner_until_it_ends(path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(KernelError, match=r"egressproxy is up") as caught, owned(path):
            pass
        assert caught.value.code == "busy"
        other.kill()
        other.wait()
        with owned(path), pytest.raises(KernelError), owned(path):
            pass
        with owned(path):
            pass


@pytest.mark.netns
def test_root_works_for_the_user_whose_folder_it_is(path: Path) -> None:
    """``sudo egressproxy down``, beside a service that runs as a user of its own."""
    path.parent.mkdir(mode=0o755)
    os.chown(path.parent, 65534, 65534)
    write_state(STATE, path)
    with owned(path):
        assert {entry.stat().st_uid for entry in path.parent.iterdir()} == {65534}
    assert len(list(path.parent.iterdir())) == 2
    assert read_state(path) == STATE
    os.chown(path, 12345, 65534)
    with pytest.raises(KernelError, match="only this service"):
        read_state(path)


@pytest.mark.netns
def test_root_gives_no_file_away_that_was_linked_there(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    os.chown(path.parent, 65534, 65534)
    (tmp_path / "precious").touch()
    path.with_name("state.json.lock").hardlink_to(tmp_path / "precious")
    with owned(path):
        assert (tmp_path / "precious").stat().st_uid == 0
