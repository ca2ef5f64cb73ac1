"""``Plan``: what this machine is meant to run, as far as the checks care."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egressproxy.service.options import DEFAULT_MARK
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.names import DnsName
    from egressproxy.policy.rules import Policy
    from egressproxy.service.options import Endpoint, Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options of the service to be, defaults where no configuration was given.

    ``is_firewall`` is false for an explicit proxy alone, which needs neither kernel rules nor
    privileges. ``servers`` is empty for those of the system.
    """

    settings: Settings = field(default_factory=Settings)
    listeners: tuple[Listener, ...] = ()
    admin: Endpoint | None = None
    servers: tuple[Endpoint, ...] = ()
    overrides: Mapping[DnsName, tuple[str, ...]] = field(default_factory=dict)
    policy: Policy | None = None
    mark: int = DEFAULT_MARK
    is_firewall: bool = True
    firewall: FirewallOptions | None = None
    """Of the configuration; ``None`` where there is none."""
    review_store: str | None = None
