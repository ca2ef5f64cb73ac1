"""The catalog's word on a denied name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from egressproxy.names import DnsName


class Notes:
    """The catalog's word on names, for one policy's cloud and requirements."""

    def __init__(self, cloud: str, requirements: Collection[str]) -> None:
        self.cloud = cloud
        self.requirements = frozenset(requirements)

    def of(self, name: DnsName) -> str:
        """``harmless``, ``optional: …``, ``needed-by: …`` or an empty text; never raises."""
        raise NotImplementedError(name)


def note(name: DnsName, cloud: str, requirements: Collection[str]) -> str:
    """``Notes(cloud, requirements).of(name)``."""
    return Notes(cloud, requirements).of(name)
