"""The sysctls that a gateway needs: set, compared, and put back as they were.

Order for who brings the gateway up: guard, table, sysctls. Forwarding is the last word, and
nf_conntrack's sysctls exist only once the table has loaded it.

What the kernel changes by itself is remembered too: ``ip_forward`` and IPv6's ``all/forwarding``
set every interface's, and an interface that comes later starts with ``default`` (ip-sysctl.rst in
the kernel's Documentation/networking, net/ipv4/devinet.c, net/ipv6/addrconf.c).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.host_state import DEFAULT_STATE, read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROC: Final = Path("/proc/sys")

_EACH: Final = "*"
"""In a name: ``default`` and every interface."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A sysctl that is not as it has to be; ``now`` is empty where this kernel does not have it."""

    name: str
    wanted: str
    now: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a sysctl has to be, and only where it is ``instead_of`` if that is given."""

    name: str
    value: str
    is_optional: bool = False
    instead_of: str = ""


_IPV6: Final = "net/ipv6"
_WANTED: Final = (  # in this order: forwarding starts when all else is in place
    # One interface in Azure: a client would be told to go around the gateway.
    _Wanted("net/ipv4/conf/all/send_redirects", "0"),
    _Wanted(f"net/ipv4/conf/{_EACH}/send_redirects", "0"),
    _Wanted("net/ipv4/conf/all/accept_source_route", "0"),
    # rp_filter (2 in Ubuntu) asks for a forwarded packet's way back: with its mark, or the routing
    # guard says no.
    _Wanted("net/ipv4/conf/all/src_valid_mark", "1"),
    # A connection ended by us must not come to life again as one that was always there.
    _Wanted("net/netfilter/nf_conntrack_tcp_loose", "0"),
    # What waits on a closing worker's listener goes to another's (since Linux 5.14).
    _Wanted("net/ipv4/tcp_migrate_req", "1", is_optional=True),
    # A router hears no router advertisements, and loses the default route that one gave it as soon
    # as it begins to forward; 2 is: in spite of that.
    _Wanted(f"net/ipv6/conf/{_EACH}/accept_ra", "2", is_optional=True, instead_of="1"),
    _Wanted("net/ipv4/ip_forward", "1"),
    _Wanted("net/ipv4/conf/all/accept_redirects", "0"),
    _Wanted("net/ipv6/conf/all/forwarding", "1", is_optional=True),
)
_CHANGED_BESIDES: Final = (
    f"net/ipv4/conf/{_EACH}/forwarding",
    f"net/ipv6/conf/{_EACH}/forwarding",
)
_GLOBAL: Final = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
"""Put back first, because they set others; then those."""


def ensure_sysctls(state: Path = DEFAULT_STATE, *, proc: Path = PROC) -> tuple[str, ...]:
    """Remember the values as they are, then set ours; returns the names that were changed.

    What is remembered already stays: a second call, or one after a crash, loses nothing. Optional
    ones that this kernel does not have are left out.

    Raises:
        KernelError: some cannot be set (all are tried but forwarding, which stays as it is), or the
            state file cannot be written; then nothing was set.
    """
    differences = sysctl_differences(proc=proc)
    if not differences:
        return ()
    missing = [each.name for each in differences if not each.now]
    if missing:
        raise _missing(missing[0])
    _remember(state, proc)
    changed: list[str] = []
    refused: list[tuple[Difference, OSError]] = []
    for each in differences:
        if refused and each.name in _GLOBAL:
            break
        try:
            _write(proc, each.name, each.wanted)
            changed.append(each.name)
        except OSError as error:
            refused.append((each, error))
    if refused:
        raise _refused(refused)
    return tuple(changed)


def restore_sysctls(state: Path = DEFAULT_STATE, *, proc: Path = PROC) -> tuple[str, ...]:
    """Put back what is remembered; returns the names that were changed.

    The file is kept: who has taken all the rest back forgets it.

    Raises:
        KernelError: some could not be put back; all were tried.
    """
    remembered = read_state(state).sysctls
    changed: list[str] = []
    refused: list[tuple[Difference, OSError]] = []
    for name in (*_GLOBAL, *_all_names(proc)):
        wanted = _before(name, remembered)
        now = _read(proc, name)
        if not wanted or not now or now == wanted:
            continue
        try:
            _write(proc, name, wanted)
            changed.append(name)
        except OSError as error:
            refused.append((Difference(name, wanted, now), error))
    if refused:
        raise _refused(refused)
    return tuple(changed)


def is_forwarding(*, proc: Path = PROC) -> bool:
    """Whether this machine forwards IPv4 or IPv6 now."""
    return any(_read(proc, name) not in ("", "0") for name in _GLOBAL)


def sysctl_differences(*, proc: Path = PROC) -> tuple[Difference, ...]:
    """What is not as ``ensure_sysctls`` would have it; empty while all is well."""
    return tuple(
        Difference(name, wanted.value, now)
        for wanted in _WANTED
        for name in _names(wanted.name, proc)
        if (now := _read(proc, name)) != wanted.value
        and (now or not wanted.is_optional)
        and wanted.instead_of in ("", now)
    )


def _remember(state: Path, proc: Path) -> None:
    """Add to the state file what it does not know yet.

    Of an interface that came after us nothing is added: its values are our defaults already.
    """
    known = read_state(state)
    found = {name: value for name in _all_names(proc) if (value := _read(proc, name))}
    new = {name: value for name, value in found.items() if not _before(name, known.sysctls)}
    if new:
        write_state(replace(known, sysctls={**new, **known.sysctls}), state)


def _before(name: str, remembered: Mapping[str, str]) -> str:
    """A value before us; of an interface that came later, what it would have begun with."""
    value = remembered.get(name)
    if value is None and "/conf/" in name and "/conf/all/" not in name:
        head, _, tail = name.partition("/conf/")
        value = remembered.get(f"{head}/conf/default/{tail.rpartition('/')[2]}")
    return value or ""


def _all_names(proc: Path) -> list[str]:
    """Every sysctl that is changed by us, or by the kernel for us."""
    patterns = (*_CHANGED_BESIDES, *(wanted.name for wanted in _WANTED))
    return [name for pattern in patterns for name in _names(pattern, proc)]


def _names(pattern: str, proc: Path) -> Iterator[str]:
    head, star, tail = pattern.partition(_EACH)
    if not star:
        yield pattern
        return
    folder = proc / head
    if folder.is_dir():
        for interface in sorted(entry.name for entry in folder.iterdir()):
            if interface != "all":
                yield f"{head}{interface}{tail}"


def _read(proc: Path, name: str) -> str:
    """A value; empty where there is none, as of an interface that has just gone."""
    try:
        return (proc / name).read_text().strip()
    except OSError:
        return ""


def _write(proc: Path, name: str, value: str) -> None:
    """Set one; an interface that is gone by now needs nothing.

    Raises:
        OSError: it cannot be set.
    """
    try:
        descriptor = (proc / name).open("r+")
    except FileNotFoundError:
        return
    with descriptor:
        descriptor.write(value)


def _missing(name: str) -> KernelError:
    hint = "modprobe nf_conntrack" if "nf_conntrack" in name else "a Linux of 5.14 or later has it"
    return KernelError(f"{_dotted(name)}: this kernel does not have it", hint=hint, code="module")


def _refused(refused: Iterable[tuple[Difference, OSError]]) -> KernelError:
    """One error for all; the first one's reason stands for them."""
    listed = list(refused)
    names = ", ".join(f"{_dotted(each.name)}={each.wanted}" for each, _ in listed)
    error = listed[0][1]
    hint = ""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = "run it as root; in a container set them from outside (docker run --sysctl)"
    return KernelError(f"cannot set {names}: {error.strerror}", hint=hint, code="permission")


def _dotted(name: str) -> str:
    """A name as sysctl(8) writes it: dots for slashes, and slashes for an interface's dots."""
    return name.translate(str.maketrans("/.", "./"))
