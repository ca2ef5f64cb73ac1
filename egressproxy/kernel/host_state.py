"""What the machine was like before us: one small file that outlives a crash, and one owner.

The file lies on a tmpfs, so it is gone with what it describes when the machine restarts; one of
another boot counts as none. Under systemd its folder must outlive the service
(``RuntimeDirectoryPreserve=yes``), or nothing can be put back after it has stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_STATE: Final = Path("/run/egressproxy/state.json")

_LOST: Final = (
    "remove it; forwarding stays on until sysctl -w net.ipv4.ip_forward=0"
    " net.ipv6.conf.all.forwarding=0; sysctl --system applies what this machine's files say"
)
_VERSION: Final = 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/thread-self/ns/net")
_MAX_BYTES: Final = 4 << 20
"""Some 100 bytes a sysctl, a dozen an interface: a thousand interfaces fit well."""
_SYSCTL: Final = re.compile(r"net(?:/(?!\.\.?(?:/|\Z))[^/\0]{1,64}){2,4}")
_VALUE: Final = re.compile(r"-?[0-9]{1,10}")
_HEX: Final = re.compile(r"[0-9a-f]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """What is remembered.

    ``sysctls`` are names below /proc/sys with their values before us. ``fingerprint`` is that of
    the table (``nft_apply.TableState``) as it was applied last.
    """

    sysctls: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def read_state(path: Path = DEFAULT_STATE) -> HostState:
    """What is remembered; an empty state where there is no file, or one of another boot.

    Raises:
        KernelError: the file is damaged, not ours, not readable, or of another network namespace.
    """
    try:
        with _opened(path) as descriptor:
            text = os.read(descriptor, _MAX_BYTES)
    except FileNotFoundError:
        return HostState()
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint=_hint(error)) from error
    try:
        document = json.loads(text)
        if document["boot"] != _boot():
            return HostState()
        state, namespace = _state(document), document["namespace"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KernelError(
            f"{path}: damaged, so what was before us is not known",
            hint=_LOST,
        ) from error
    if namespace != _namespace():
        raise KernelError(
            f"{path}: of another network namespace", hint="name another file: --state PATH"
        )
    return state


def write_state(state: HostState, path: Path = DEFAULT_STATE) -> None:
    """Replace the file in one step; its folder is made with mode 0700.

    Raises:
        KernelError: it cannot be written; the file before it stays.
    """
    document = {
        "version": _VERSION,
        "boot": _boot(),
        "namespace": _namespace(),
        "fingerprint": state.fingerprint,
        "sysctls": dict(sorted(state.sysctls.items())),
    }
    text = json.dumps(document, indent=1) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                _give_to_owner(descriptor, path.parent)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint=_hint(error)) from error


def forget_state(path: Path = DEFAULT_STATE) -> None:
    """Remove the file; that there is none is no error.

    Raises:
        KernelError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint=_hint(error)) from error


@contextmanager
def owned(path: Path = DEFAULT_STATE) -> Iterator[None]:
    """Be the one that owns this machine's firewall, until the block or the process ends.

    ``up`` holds it while it runs, ``down`` takes it first: a lock beside the state file, not handed
    on to programs that are started meanwhile.

    Raises:
        KernelError: another process has it (``code`` is ``busy``), or there can be no file.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KernelError(f"{lock}: {error.strerror}", hint=_hint(error)) from error
    try:
        _give_to_owner(descriptor, path.parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KernelError(
                "egressproxy is up, and keeps the firewall as its policy says",
                hint="stop it first: systemctl stop egressproxy",
                code="busy",
            ) from error
        yield
    finally:
        os.close(descriptor)  # and with it the lock; the file stays, or two could lock two files


def _owner(folder: Path) -> int:
    """Whose its files are: root works for the service's user (``sudo egressproxy down``).

    What such a file can say is bounded (``_state``): numbers for sysctls of the network, which that
    user could set himself.
    """
    return folder.stat().st_uid if os.geteuid() == 0 else os.geteuid()


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Let a new file of root's belong to the service's user, who must read it when it starts.

    Raises:
        OSError: it cannot be given away.
    """
    found = os.fstat(descriptor)
    is_new = found.st_size == 0 and found.st_nlink == 1  # never a file that was linked here
    if is_new and found.st_uid != _owner(folder):
        os.fchown(descriptor, _owner(folder), folder.stat().st_gid)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file for reading; nobody else may have written it.

    Raises:
        OSError: it cannot be opened.
        KernelError: it is no plain file of ours.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        is_ours = found.st_uid in (os.geteuid(), _owner(path.parent))
        if not is_ours or found.st_mode & 0o170022 != 0o100000:
            raise KernelError(
                f"{path}: not a file that only this service can write",
                hint=_LOST,
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _state(document: Any) -> HostState:
    """Hold every name and value to its form: they are written below /proc/sys as they are.

    Raises:
        ValueError: one has another; or ``TypeError``, ``KeyError``, ``AttributeError``.
    """
    sysctls, fingerprint = document["sysctls"], document["fingerprint"]
    is_good = (
        document["version"] == _VERSION
        and _HEX.fullmatch(fingerprint)
        and all(_SYSCTL.fullmatch(n) and _VALUE.fullmatch(v) for n, v in sysctls.items())
    )
    if not is_good:
        raise ValueError(document["version"])
    return HostState(sysctls=sysctls, fingerprint=fingerprint)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _namespace() -> int:
    return _NAMESPACE.stat().st_ino


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run it as root, or name another file: --state PATH"
    return "name another file: --state PATH"
