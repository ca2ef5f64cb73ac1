"""nginx stream with ssl_preread: a map of the same names, one worker, reuseport, no log.

It has no word for the original destination of a redirected connection, so the names lead to the
server's address by the map: what it saves by that is one getsockopt(2) a connection.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.network import PORT, SERVER
from bench.peers.peer import LISTEN, Peer, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.network import Network


_CONFIGURATION: Final = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
daemon off;
pid {directory}/nginx.pid;
worker_processes {processes};
worker_rlimit_nofile {limit};
error_log /dev/null crit;
events {{ worker_connections {limit}; multi_accept on; }}
stream {{
  map_hash_bucket_size 256;
  map_hash_max_size {hash_size};
  map $ssl_preread_server_name $original {{
    hostnames;
    default "";
{names}
  }}
  server {{
    listen {listen} reuseport backlog=65535 so_keepalive=on;
    ssl_preread on;
    preread_timeout 5s;
    proxy_connect_timeout 5s;
    proxy_timeout 2h;
    proxy_socket_keepalive on;
    proxy_pass $original;
  }}
}}
"""


@contextmanager
def nginx(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """A master and its workers, which share the port."""
    configuration = write_configuration(directory, port, processes)
    argv = ["nginx", "-p", str(directory), "-c", str(configuration)]
    with redirected("nginx", network, directory, {port: argv}) as peer:
        yield peer


def write_configuration(directory: Path, port: int, processes: int = 1) -> Path:
    """The file that nginx reads, from the policy of the folder."""
    names = exact_names(directory) + [f"*{end}" for end in suffixes(directory)]
    lines = "\n".join(f"    {name} {SERVER}:{PORT};" for name in names)
    configuration = directory / "nginx.conf"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    configuration.write_text(
        _CONFIGURATION.format(
            directory=directory,
            listen=port,
            names=lines,
            hash_size=max(2048, 2 * len(names)),
            processes=processes,
            limit=limit,
        )
    )
    return configuration
