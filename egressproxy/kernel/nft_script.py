"""From a ``KernelPolicy`` to the text of the one table ``inet egressproxy``: pure.

Each text is one transaction for nft(8): the kernel has the table before it or after it, never a
mix. See ``nft_chains`` for what the chains do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.kernel.nft_apply import TableState


def table_script(
    policy: KernelPolicy, options: FirewallOptions, existing: TableState | None = None
) -> str:
    """The table for a policy.

    Args:
        policy: what to enforce.
        options: of the gateway.
        existing: what the kernel has. Then sets of ranges that are there are not loaded again,
            sets of names and counters keep what they have, and what is no longer used goes. Without
            it the table is made anew, whatever was there. Where it is not what the kernel has (any
            more), nft refuses the text and nothing changes.
    """
    raise NotImplementedError


def transition_script(
    old: KernelPolicy,
    new: KernelPolicy,
    options: FirewallOptions,
    existing: TableState | None = None,
) -> str:
    """The table between two policies: a new connection passes only where both forward it.

    Apply it before any worker commits to the new policy, and ``table_script(new)`` after all have:
    so what the new policy denies is closed first, and what it allows is opened last.
    """
    raise NotImplementedError
