"""The whole of what this gateway changes on its machine: how it is now, and how it goes.

Four things: the table, the routing guard, TPROXY's routing, and sysctls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from egressproxy.errors import KernelError
from egressproxy.kernel.host_state import (
    DEFAULT_STATE,
    HostState,
    forget_state,
    read_state,
    write_state,
)
from egressproxy.kernel.nft_apply import Nft, TableState
from egressproxy.kernel.routing import RoutingState, remove_routing, routing_state
from egressproxy.kernel.sysctls import (
    Difference,
    is_forwarding,
    restore_sysctls,
    sysctl_differences,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

_KEPT: Final = "the routing guard stays, so that nothing is forwarded unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """What is in place.

    ``is_changed`` says whether somebody changed the table by hand since it was applied; ``None``
    where nothing is remembered of that, and ``forgotten`` says why if it should be.
    """

    table: TableState | None
    is_changed: bool | None
    routing: RoutingState
    sysctls: tuple[Difference, ...]
    is_forwarding: bool
    forgotten: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What ``take_back`` found to remove.

    ``sysctls`` are the names that were put back; ``failures`` say what had to be left as it is.
    """

    sysctls: tuple[str, ...] = ()
    table: bool = False
    routing: bool = False
    failures: tuple[str, ...] = ()


def takeover(nft: Nft, state: Path = DEFAULT_STATE) -> Takeover:
    """What is in place now, sets with the number of their elements.

    Raises:
        KernelError: the kernel cannot be asked.
    """
    table = nft.table_state(elements=True)
    applied = forgotten = ""
    try:
        applied = read_state(state).fingerprint
    except KernelError as error:
        forgotten = str(error)
    return Takeover(
        table=table,
        is_changed=None if table is None or not applied else table.fingerprint != applied,
        routing=routing_state(),
        sysctls=sysctl_differences(),
        is_forwarding=is_forwarding(),
        forgotten=forgotten,
    )


def remember_table(table: TableState | None, state: Path = DEFAULT_STATE) -> None:
    """Keep the fingerprint of a table just applied, so that a change by hand shows later.

    Raises:
        KernelError: the state file cannot be read or written.
    """
    fingerprint = "" if table is None else table.fingerprint
    known = read_state(state)
    if known.fingerprint != fingerprint:
        write_state(replace(known, fingerprint=fingerprint), state)


def take_back(nft: Nft, state: Path = DEFAULT_STATE, *, force: bool = False) -> Removed:
    """Put the machine back as it was: forwarding first, the routing guard last.

    Can be repeated, also after a crash half-way: the state file goes when all else has gone.

    Args:
        nft: how to reach the table.
        state: where the machine's own sysctls are remembered.
        force: go on where something cannot be put back. Without it the guard stays then: a machine
            that still forwards would forward everything. So it is where nothing is remembered: the
            file may be another one, or gone with a container.

    Raises:
        KernelError: something is still in place; the text says what.
    """
    failures: list[str] = []
    nothing: tuple[str, ...] = ()
    sysctls = _attempt(lambda: _restore(nft, state), nothing, failures, force=force)
    table = _attempt(nft.remove, False, failures, force=force)
    routing = _attempt(remove_routing, False, failures, force=force)
    if not failures:
        forget_state(state)
    return Removed(sysctls=sysctls, table=table, routing=routing, failures=tuple(failures))


def _restore(nft: Nft, state: Path) -> tuple[str, ...]:
    """Put the sysctls back.

    Raises:
        KernelError: that failed, or this machine forwards and nobody knows whether it did before.
    """
    if (
        read_state(state) == HostState()
        and is_forwarding()
        and (routing_state().guard or nft.table_state() is not None)
    ):
        raise KernelError(
            f"{state}: nothing is remembered of this machine, and it forwards",
            hint="name the file that up had: --state PATH, or stop forwarding:"
            " sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
            code="not_remembered",
        )
    return restore_sysctls(state)


def _attempt(act: Callable[[], _T], otherwise: _T, failures: list[str], *, force: bool) -> _T:
    try:
        return act()
    except KernelError as error:
        if not force:
            hint = f"{error.hint}; or go on without: --force" if error.hint else "--force goes on"
            raise KernelError(f"{error.message}: {_KEPT}", hint=hint, code=error.code) from error
        failures.append(str(error))
        return otherwise
