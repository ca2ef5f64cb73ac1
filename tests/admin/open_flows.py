"""Open flows made by hand: an afternoon of a cluster, and what a hostile client has there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from egressproxy.service.open_flows import OpenFlow

if TYPE_CHECKING:
    from collections.abc import Iterable


def an_open_flow(name: str | None = "mcr.microsoft.com", **more: Any) -> OpenFlow:
    """A relayed TLS flow, ten seconds old, unless ``more`` says otherwise."""
    return OpenFlow(
        **{
            "worker": 0,
            "flow_id": "0-19f3a2b4c00-1",
            "plane": "transparent",
            "stage": "relay",
            "protocol": "tls",
            "since": time.time() - 10,
            "age_s": 10.0,
            "idle_s": 0.5,
            "src_ip": "10.240.0.4",
            "src_port": 40122,
            "dst_ip": "20.60.1.2",
            "dst_port": 443,
            "name": name,
            "alpn": ("h2", "http/1.1"),
            "tls_versions": ("1.3", "1.2"),
            "rule": "aks/core#mcr",
            "reason": "rule",
            "would_deny": False,
            "dialled_ip": "20.60.1.2",
            "bytes_up": 4_200,
            "bytes_down": 17_400_000,
            **more,
        }
    )


def a_tunnel(host: int) -> OpenFlow:
    """A node's konnectivity tunnel, hours old."""
    return an_open_flow(
        "lab-dns-1a2b3c4d.hcp.westeurope.azmk8s.io",
        src_ip=f"10.240.0.{host}",
        age_s=3600.0 * host,
        idle_s=4.0 * host,
        alpn=("konnectivity", "h2"),
        rule="aks/core#api-server",
        dialled_ip="20.50.1.2",
        bytes_up=912_000 * host,
        bytes_down=5_400_000,
    )


def an_afternoon(hostile: Iterable[str] = ()) -> list[OpenFlow]:
    """Tunnels, pulls, a forwarded connection, one on its way, one by audit, and hostile names."""
    return [
        *(a_tunnel(host) for host in range(4, 9)),
        *(an_open_flow(src_ip=f"10.244.1.{n}", age_s=2.0 + n) for n in range(6)),
        an_open_flow("audited.example", rule=None, reason="default_deny", would_deny=True),
        an_open_flow(
            None, stage="sniff", alpn=(), rule=None, reason="", dialled_ip=None, tls_versions=()
        ),
        an_open_flow(
            None,
            worker=None,
            plane="network",
            stage="forward",
            protocol="tcp",
            dst_port=1433,
            since=None,
            age_s=None,
            idle_s=None,
            alpn=(),
            tls_versions=(),
            rule="rules/sql",
            bytes_up=None,
            bytes_down=None,
        ),
        *(
            an_open_flow(name, alpn=(name[:20], "<b>"), rule=None, reason="default_deny")
            for name in hostile
        ),
    ]
