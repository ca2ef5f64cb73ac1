"""``Parts``: what every stage of the engine works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.planes.context import EngineContext
    from egressproxy.planes.flows import Flows
    from egressproxy.planes.ledger import Ledger
    from egressproxy.planes.reactor import Reactor
    from egressproxy.planes.timers import Timers


@dataclass(frozen=True, slots=True)
class Parts:
    """Handed to each stage as it is built; a stage keeps those that it uses on a flow's path."""

    context: EngineContext
    reactor: Reactor
    timers: Timers
    flows: Flows
    ledger: Ledger
