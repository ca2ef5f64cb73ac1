"""Microsoft's weekly service tag file, read as it is downloaded.

Source: "Azure IP Ranges and Service Tags", Public, China and US Government editions: an object with
``cloud``, ``changeNumber`` and ``values``, each value with ``name`` and
``properties.addressPrefixes``. Tags are compared without regard to case, as Azure does.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import near_words
from egressproxy.policy.networks import Network, in_order
from egressproxy.policy.text import decode

if TYPE_CHECKING:
    from egressproxy.policy.problems import Marked, Report

MAX_TAG_BYTES: Final = 16 * 1024 * 1024
"""Four times the public cloud's; JSON of this size can take 30 times its size in memory."""
DOWNLOAD: Final = "download ServiceTags_*.json from Microsoft, unmodified"

_CLOUD_WORDS: Final = {
    "AzureCloud": "public",
    "AzureChinaCloud": "china",
    "AzureUSGovernment": "gov",
}
"""What the file's ``cloud`` has in it, in lower case."""


class ServiceTags:
    """The tags of one file; ranges are read when a tag is asked for."""

    def __init__(self, cloud: str, prefixes: dict[str, tuple[str, list[str]]]) -> None:
        self.cloud = cloud
        self._prefixes = prefixes
        self._networks: dict[str, tuple[Network, ...]] = {}

    def __contains__(self, tag: str) -> bool:
        return tag.lower() in self._prefixes

    def networks(self, tag: str, at: Marked, report: Report) -> tuple[Network, ...]:
        """The ranges of a tag; an unknown tag is a problem with the nearest names."""
        key = tag.lower()
        if key not in self._prefixes:
            report.add(at, f"there is no service tag {tag!r}", self._near(key))
            return ()
        if key not in self._networks:
            name, prefixes = self._prefixes[key]
            try:
                self._networks[key] = in_order(map(ip_network, prefixes))
            except ValueError as error:
                report.add(at, f"service tag {name!r} has a wrong range: {error}", DOWNLOAD)
                self._networks[key] = ()
        return self._networks[key]

    def _near(self, key: str) -> str:
        names = [self._prefixes[near][0] for near in near_words(key, self._prefixes)]
        return f"did you mean {' or '.join(names)}?" if names else "such as Sql.JapanEast"


def parse_tags(data: bytes, cloud: str | None, report: Report) -> ServiceTags | None:
    """The tags of a file for a policy of ``cloud``; ``None`` and problems where it is not one."""
    text = decode(data, report, limit=MAX_TAG_BYTES)
    if text is None:
        return None
    try:
        content = json.loads(text)
        of_cloud = str(content["cloud"])
        prefixes = dict(_tag(value) for value in content["values"])
    except json.JSONDecodeError as error:
        report.at(error.lineno, error.colno, f"not JSON: {error.msg}", DOWNLOAD)
        return None
    except RecursionError:
        report.add(None, "nested too deep for a service tag file", DOWNLOAD)
        return None
    except (KeyError, TypeError, ValueError) as error:
        report.add(None, f"not a service tag file: {_shape(error)}", DOWNLOAD)
        return None
    if cloud is not None and _CLOUD_WORDS[cloud] not in of_cloud.lower():
        report.add(None, f"the service tags are of {of_cloud!r}", f"the policy is of {cloud}")
    return ServiceTags(of_cloud, prefixes)


def _tag(value: Any) -> tuple[str, tuple[str, list[str]]]:
    name, prefixes = value["name"], value["properties"]["addressPrefixes"]
    if not isinstance(name, str) or not isinstance(prefixes, list):
        raise TypeError("name and addressPrefixes are a text and a list")
    if not all(isinstance(prefix, str) for prefix in prefixes):
        raise TypeError(f"the ranges of {name} are not texts")
    return name.lower(), (name, prefixes)


def _shape(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
