"""From a ``KernelPolicy`` to the text of the one table ``inet egressproxy``: pure.

Each text is one transaction for nft(8): the kernel has the table before it or after it, never a
mix. ``nft_chains`` says what a packet meets, ``nft_judgement`` what pass 1 is.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.nft_apply import DIGEST_COMMENT, FAMILY, OPTIONS_COMMENT, TABLE
from egressproxy.kernel.nft_chains import first_chains, forward_chains, last_chains
from egressproxy.kernel.nft_input import input_chain
from egressproxy.kernel.nft_judgement import common_ports, judging_chains, transition_chains
from egressproxy.kernel.nft_names import Outcome, comment_of, rule_counter
from egressproxy.kernel.nft_sets import Sets
from egressproxy.kernel.nft_text import Chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.kernel.nft_apply import TableState

_IT: Final = f"{FAMILY} {TABLE}"


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
    sets = Sets()
    chains = (
        _about(f"{DIGEST_COMMENT}{policy.digest}{OPTIONS_COMMENT}{options.digest}"),
        *first_chains(options, sets),
        *judging_chains(policy, options, sets),
        *last_chains(options, policy.application_ports),
        *forward_chains(options, sets),
        input_chain(options, sets),
    )
    return _script(chains, _counters(policy), sets, existing)


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
    sets = Sets()
    chains = (
        _about(f"between {old.digest[:16]} and {new.digest[:16]}"),
        *first_chains(options, sets),
        *transition_chains(old, new, options, sets),
        *last_chains(options, common_ports(old, new)),
        *forward_chains(options, sets),
        input_chain(options, sets),
    )
    return _script(chains, _counters(old, new), sets, existing)


def _about(text: str) -> Chain:
    return Chain("about", "what this table was made of", (f"return comment {comment_of(text)}",))


def _counters(*policies: KernelPolicy) -> dict[str, str]:
    """Counters by name, with the rule's id for a reader."""
    rules = (rule.id for policy in policies for rule in policy.rules)
    return {**dict.fromkeys(Outcome, ""), **{rule_counter(each): each for each in rules}}


def _script(
    chains: Iterable[Chain],
    counters: Mapping[str, str],
    sets: Sets,
    existing: TableState | None,
) -> str:
    """Empty all chains, write the table, remove what nothing uses any more; in this order.

    A set that is written of in a chain cannot be deleted, and a chain only when nothing jumps to
    it; within the one transaction a flushed chain uses nothing.
    """
    chains = tuple(chains)
    body = chain(
        _counter_texts(counters, () if existing is None else existing.counters),
        sets.declarations(_kept(sets, existing)),
        *(each.text() for each in chains),
    )
    lines = (
        f"add table {_IT}",
        *_before(sets, existing),
        f"table {_IT} {{",
        *(f"\t{line}" for line in body),
        "}",
        *_after(chains, counters, sets, existing),
        "",
    )
    return "\n".join(lines)


def _before(sets: Sets, existing: TableState | None) -> Iterator[str]:
    if existing is None:
        yield f"delete table {_IT}"
        yield f"add table {_IT}"
        return
    yield f"flush table {_IT}"
    yield from (f"flush set {_IT} {name}" for name in sets.changed(existing.sets))


def _kept(sets: Sets, existing: TableState | None) -> frozenset[str]:
    if existing is None:
        return frozenset()
    return frozenset(existing.sets) - frozenset(sets.changed(existing.sets))


def _after(
    chains: Iterable[Chain], counters: Iterable[str], sets: Sets, existing: TableState | None
) -> Iterator[str]:
    if existing is None:
        return
    for kind, there, used in (
        ("chain", existing.chains, frozenset(each.name for each in chains)),
        ("set", existing.sets.keys(), sets.used()),
        ("counter", existing.counters.keys(), frozenset(counters)),
    ):
        yield from (f"delete {kind} {_IT} {name}" for name in sorted(there - used))


def _counter_texts(counters: Mapping[str, str], there: Iterable[str]) -> Iterator[str]:
    known = frozenset(there)
    for name, rule_id in counters.items():
        if name in known:
            continue
        if rule_id:
            yield f"counter {name} {{ comment {comment_of(rule_id)} }}"
        else:
            yield f"counter {name} {{ }}"
