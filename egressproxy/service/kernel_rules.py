"""``KernelRules``: table, routing guard, TPROXY's routing and sysctls, as a policy needs them.

Every call blocks: asyncio makes them in a thread, one at a time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import Intercept
from egressproxy.kernel.held_table import HeldTable
from egressproxy.kernel.host_state import read_state
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import Outcome, rule_counter
from egressproxy.kernel.nft_script import table_script, transition_script
from egressproxy.kernel.routing import ensure_guard, ensure_tproxy, remove_tproxy, routing_state
from egressproxy.kernel.sysctls import ensure_sysctls, sysctl_differences
from egressproxy.policy.verdict import Action
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.held_table import Script
    from egressproxy.kernel.kernel_policy import KernelPolicy


RULE_OUTCOMES: Final = {
    (Action.ALLOW, False): "rule_allow",
    (Action.DENY, False): "rule_deny",
    (Action.ALLOW, True): "rule_would_deny",
    (Action.DENY, True): "rule_would_deny",
}
"""What a rule's counter counts, by its action and whether only audit lets pass."""


class KernelRules:
    """What the kernel enforces, of which policy.

    Args:
        options: the ports are those that are really listened on.
        state: where the machine's own settings are remembered.
        policy: the first one.
        nft: how to reach the table.
    """

    def __init__(
        self, options: FirewallOptions, state: Path, policy: KernelPolicy, nft: Nft | None = None
    ) -> None:
        self.nft = nft or Nft()
        self.policy = policy
        """What is in force once no reload is under way."""
        self._options = options
        self._state = state
        self._table = HeldTable(self.nft, state)
        self._told_unremembered = ""

    def judged(self) -> dict[str, int]:
        """Packets on the table's counters when it was last looked at; those of rules added up."""
        table = self._table.seen
        if table is None:
            return {}
        found = dict.fromkeys((*Outcome, *RULE_OUTCOMES.values()), 0)
        rules = {rule_counter(rule.id): rule for rule in self.policy.rules}
        for name, counter in table.counters.items():
            rule = rules.get(name)
            outcome = name if rule is None else RULE_OUTCOMES[rule.action, rule.would_deny]
            if outcome in found:
                found[outcome] += counter.packets
        return found

    def rule_packets(self) -> dict[str, int]:
        """Packets by the id of each network rule when the table was last looked at."""
        table = self._table.seen
        if table is None:
            return {}
        counted = (
            (rule.id, table.counters.get(rule_counter(rule.id))) for rule in self.policy.rules
        )
        return {rule: counter.packets for rule, counter in counted if counter is not None}

    def put_up(self) -> None:
        """Guard, TPROXY's routing, table, sysctls; over whatever is there of a service before.

        Raises:
            KernelError: something is missing or refused. What can be tried beforehand is, and then
                nothing was changed; else what is in place closes, and ``egressproxy down`` removes
                it.
        """
        script = self._script_of(self.policy)
        read_state(self._state)
        self._table.check(script)
        try:
            ensure_guard()
            self._route_tproxy()
            self._table.put(script)
            changed = ensure_sysctls(self._state)
        except KernelError:
            hint = "egressproxy down takes it back"
            journal().warning("what is up by now stays, and forwards nothing unjudged", hint=hint)
            raise
        for rule in routing_state().ahead:
            journal().warning("another routing rule comes before the guard", rule=rule)
        journal().info(
            "the kernel's firewall is up",
            network_rules=len(self.policy.rules),
            application_ports=list(self.policy.application_ports),
            intercept=str(self._options.intercept),
            clients=[str(network) for network in self._options.clients],
            management=[str(network) for network in self._options.management],
            sysctls_changed=len(changed),
        )

    def close_first(self, new: KernelPolicy) -> bool:
        """Forward only what the new policy forwards, too; false where both forward the same.

        Raises:
            KernelError: the kernel would not take the new policy; nothing was changed.
        """
        if replace(new, digest="") == replace(self.policy, digest=""):
            return False
        self._table.check(self._script_of(new))
        self._table.put(partial(transition_script, self.policy, new, self._options))
        self._tell_unremembered()
        return True

    def open_last(self, new: KernelPolicy) -> None:
        """Put the new policy's table in place: it is in force everywhere else.

        Raises:
            KernelError: it is not yet; ``problems`` says so until ``put_back`` succeeds.
        """
        self.policy = new
        self._table.insist(self._script_of(new))
        self._tell_unremembered()

    def problems(self, *, elements: bool = False) -> tuple[str, ...]:
        """What is not as it was put up; empty while all is well.

        Raises:
            KernelError: the kernel cannot be asked.
        """
        return tuple(self._problems(elements=elements))

    def put_back(self) -> bool:
        """Put everything up again; whether the table had to be made anew, with empty sets.

        Raises:
            KernelError: something is not in place yet.
        """
        ensure_guard()
        self._route_tproxy()
        is_new = self._table.put_back()
        self._tell_unremembered()
        ensure_sysctls(self._state)
        return is_new

    def _problems(self, *, elements: bool) -> Iterator[str]:
        if difference := self._table.difference(elements=elements):
            yield difference
        routing = routing_state()
        if not routing.guard:
            yield "the routing guard was changed"
        if self._is_tproxy and not routing.tproxy:
            yield "the routing of TPROXY was changed"
        for each in sysctl_differences():
            yield f"{each.name.replace('/', '.')} is {each.now or 'missing'}, not {each.wanted}"

    def _tell_unremembered(self) -> None:
        """Say once what ``nft status`` will get wrong."""
        why = self._table.unremembered
        if why and why != self._told_unremembered:
            journal().warning(
                "what the kernel was given cannot be remembered",
                why=why,
                hint="nft status will call it changed by hand; the kernel has it",
            )
        self._told_unremembered = why

    @property
    def _is_tproxy(self) -> bool:
        return self._options.intercept is Intercept.TPROXY

    def _route_tproxy(self) -> None:
        if self._is_tproxy:
            ensure_tproxy()
        else:
            remove_tproxy()

    def _script_of(self, policy: KernelPolicy) -> Script:
        return partial(table_script, policy, self._options)
