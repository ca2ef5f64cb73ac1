"""The lab up to the gateway: network, CA, internet servers, registry with its image."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import registry
from lab.authority import Authority, create_authority
from lab.events import FILE, EventReader
from lab.internet import READY
from lab.namespaces import LabError
from lab.programs import client, missing, server
from lab.skopeo import skopeo
from lab.topology import Topology, topology

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT: Final = Path(__file__).resolve().parent.parent
REGISTRY_PROGRAMS: Final = ("docker-registry", "skopeo")


@dataclass(frozen=True, slots=True)
class Network:
    """A running lab without a gateway; ``events`` is what its servers saw."""

    directory: Path
    net: Topology
    authority: Authority
    events: EventReader

    @property
    def trust(self) -> dict[str, str]:
        """Environment that makes clients trust the lab's CA (OpenSSL, Go, Node, curl)."""
        path = str(self.authority.ca_file)
        return {"SSL_CERT_FILE": path, "NODE_EXTRA_CA_CERTS": path, "CURL_CA_BUNDLE": path}

    @property
    def has_registry(self) -> bool:
        """Whether the image registry runs (docker-registry and skopeo are there)."""
        return not missing(*REGISTRY_PROGRAMS)


@contextmanager
def network(directory: Path) -> Iterator[Network]:
    """Build and start everything below an existing folder; all of it is gone at the end.

    Raises:
        LabError: a program is missing or did not come up; the text says which.
    """
    lacking = missing("ip", "nft", "nsenter")
    if lacking:
        raise LabError(f"missing programs: {', '.join(lacking)}")
    authority = create_authority(directory)
    with topology(directory) as net, ExitStack() as stack:
        log = directory / "internet.log"
        stack.enter_context(
            server(
                net.internet,
                sys.executable,
                "-m",
                "lab.internet",
                str(directory),
                log=log,
                ready=lambda: log.exists() and log.read_text().startswith(READY),
                environment={"PYTHONPATH": str(CHECKOUT)},
            )
        )
        built = Network(directory, net, authority, EventReader(directory / FILE))
        if built.has_registry:
            _start_registry(built, stack)
        yield built


def _start_registry(built: Network, stack: ExitStack) -> None:
    directory = built.directory / "registry"
    image = built.directory / "image"
    directory.mkdir()
    configuration = built.directory / "registry.json"
    configuration.write_text(registry.configuration(directory))
    registry.write_image(image)
    stack.enter_context(
        server(
            built.net.internet,
            "docker-registry",
            "serve",
            str(configuration),
            log=built.directory / "registry.log",
            ready=lambda: _listens(built),
        )
    )
    copied = client(
        built.net.internet,
        *skopeo(built.directory),
        "copy",
        "--dest-tls-verify=false",
        f"oci:{image}",
        f"docker://{registry.BACKEND}/{registry.IMAGE}",
    )
    if copied.code != 0:
        raise LabError(f"the image could not be seeded: {copied.text}")


def _listens(built: Network) -> bool:
    host, _, port = registry.BACKEND.partition(":")
    try:
        built.net.internet.connect(host, int(port), timeout_s=1).close()
    except OSError:
        return False
    return True
