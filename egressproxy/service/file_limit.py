"""How many files a process may have open: a flow is two sockets, and pipes while it is fast."""

from __future__ import annotations

import resource
from typing import Final

from egressproxy.service.journal import journal

PER_FLOW: Final = 2
BESIDE_FLOWS: Final = 1024
"""Pipes of fast flows, the resolver, listeners, list tables."""


def raise_file_limit(max_flows: int) -> None:
    """Let every process hold ``max_flows`` flows; inherited by processes started afterwards.

    As far as the hard limit goes, and above it where that is allowed (CAP_SYS_RESOURCE).
    """
    wanted = PER_FLOW * max_flows + BESIDE_FLOWS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    for reachable in (wanted, min(wanted, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, max(hard, reachable)))
        except (ValueError, PermissionError):  # above the hard limit, or the kernel's own
            continue
        if reachable < wanted:
            _warn(reachable, max_flows)
        return
    _warn(soft, max_flows)


def _warn(limit: int, max_flows: int) -> None:
    journal().warning(
        "too few open files for max_flows",
        open_files=limit,
        max_flows=max_flows,
        hint=f"ulimit -n {PER_FLOW * max_flows + BESIDE_FLOWS}, LimitNOFILE=, or lower --max-flows",
    )
