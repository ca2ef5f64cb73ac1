"""``/review/flows``: what is open now: long tunnels with their ALPN, who is busy, who is quiet."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from aiohttp import web

from egressproxy.admin.question import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.service.open_flows import OpenFlow

PATH: Final = "/review/flows"
MAX_SHOWN: Final = 300
MAX_SEARCH: Final = 256
LONG_S: Final = 600.0
"""From this age on a flow counts as a tunnel; web requests are over long before."""
KONNECTIVITY: Final = "konnectivity"
"""The ALPN of AKS's tunnel between nodes and control plane."""
RELAYED: Final = frozenset({"relay", "http", "forward"})
"""Stages of flows that are through; all others are on their way."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the URL asks for: which flows, in which order, with which text in them."""

    kind: str = "all"
    order: str = "age"
    search: str = ""

    def link(self, **changes: str) -> str:
        """The page with some of it changed."""
        said = {"kind": self.kind, "order": self.order, "search": self.search} | changes
        default = {"kind": "all", "order": "age", "search": ""}
        pairs = [(key, text) for key, text in said.items() if text != default[key]]
        return f"{PATH}?{urlencode(pairs)}" if pairs else PATH


@dataclass(frozen=True, slots=True)
class FlowView:
    """A flow, and whether it is a tunnel: long open, or konnectivity's."""

    flow: OpenFlow
    is_konnectivity: bool
    is_long: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsView:
    """The page; counts are of all flows told, ``matched`` of those that fit, ``at`` is now."""

    look: Look
    at: float
    flows: tuple[FlowView, ...]
    matched: int
    total: int
    clients: int
    tunnels: int
    konnectivity: int
    forwarded: int
    waiting: int
    bytes_up: int
    bytes_down: int
    kinds: tuple[Way, ...]
    order_links: Mapping[str, str]


class FlowsPage:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get(PATH, self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """The flows that are open."""
        flows = await self._frame.supervisor.open_flows()
        view = flows_view(flows, read_look(request.query), time.time())
        return await self._frame.page(request, "flows.html", view=view)


def read_look(query: Mapping[str, str]) -> Look:
    """What a URL asks for, whatever it holds."""
    kind, order = query.get("kind", ""), query.get("order", "")
    return Look(
        kind if kind in _KINDS else "all",
        order if order in _ORDERS else "age",
        query.get("search", "").strip()[:MAX_SEARCH],
    )


def flows_view(flows: Sequence[OpenFlow], look: Look, now: float) -> FlowsView:
    """The page of some flows; ``now`` is POSIX seconds."""
    views = [FlowView(flow, _is_konnectivity(flow), _is_long(flow)) for flow in flows]
    in_kind = _KINDS[look.kind]
    wanted = look.search.lower()
    found = [view for view in views if in_kind(view) and wanted in _text(view.flow)]
    found.sort(key=_ORDERS[look.order])
    return FlowsView(
        look=look,
        at=now,
        flows=tuple(found[:MAX_SHOWN]),
        matched=len(found),
        total=len(views),
        clients=len({flow.src_ip for flow in flows}),
        tunnels=sum(map(_is_tunnel, views)),
        konnectivity=sum(view.is_konnectivity for view in views),
        forwarded=sum(flow.worker is None for flow in flows),
        waiting=sum(flow.stage not in RELAYED for flow in flows),
        bytes_up=sum(flow.bytes_up or 0 for flow in flows),
        bytes_down=sum(flow.bytes_down or 0 for flow in flows),
        kinds=tuple(_kinds(look, views)),
        order_links={order: look.link(order=order) for order in _ORDERS},
    )


def _is_konnectivity(flow: OpenFlow) -> bool:
    return KONNECTIVITY in flow.alpn


def _is_long(flow: OpenFlow) -> bool:
    return flow.age_s is not None and flow.age_s >= LONG_S


def _is_tunnel(view: FlowView) -> bool:
    return view.is_konnectivity or view.is_long


def _text(flow: OpenFlow) -> str:
    """Everything of a flow that a search looks at."""
    parts = (flow.name, flow.src_ip, flow.dst_ip, flow.dialled_ip, flow.rule, *flow.alpn)
    ports = f"{flow.protocol}:{flow.dst_port}"
    return "\n".join((*(part for part in parts if part), ports, flow.stage)).lower()


def _kinds(look: Look, views: Sequence[FlowView]) -> Iterator[Way]:
    for kind, is_in in _KINDS.items():
        count = sum(map(is_in, views))
        if count or kind in ("all", look.kind):
            yield Way(kind, look.link(kind=kind), kind == look.kind, count)


_KINDS: Final[Mapping[str, Callable[[FlowView], bool]]] = {
    "all": lambda _: True,
    "tunnels": _is_tunnel,
    "konnectivity": lambda view: view.is_konnectivity,
    "audit": lambda view: view.flow.would_deny,
    "on their way": lambda view: view.flow.stage not in RELAYED,
    "by the kernel": lambda view: view.flow.worker is None,
}
_ORDERS: Final[Mapping[str, Callable[[FlowView], tuple[float, str]]]] = {
    "age": lambda view: (-(view.flow.age_s or -1.0), view.flow.src_ip),
    "bytes": lambda view: (
        -float((view.flow.bytes_up or 0) + (view.flow.bytes_down or 0)),
        view.flow.src_ip,
    ),
    "idle": lambda view: (-(view.flow.idle_s or -1.0), view.flow.src_ip),
}
