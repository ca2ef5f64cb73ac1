"""Microsoft's weekly service tag file, read as it is downloaded.

Source: "Azure IP Ranges and Service Tags", Public, China and US Government editions: an object with
``cloud``, ``changeNumber`` and ``values``, each value with ``name`` and, under ``properties``,
``addressPrefixes``, ``region`` and ``systemService``. As of October 2025 the public one has 3,039
tags with 93,362 ranges, none wider than a /14, none that is not public.

Tags are compared without regard to case, as Azure does. ``Storage.*``, which Azure does not have,
is all regional tags of Storage together.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import AddressError, near_words
from egressproxy.policy.networks import NEVER_DIALLED, looks_like_address
from egressproxy.policy.spans import AddressSet
from egressproxy.policy.text import decode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.networks import Network
    from egressproxy.policy.problems import Marked, Report

MAX_TAG_BYTES: Final = 16 * 1024 * 1024
"""Four times the public cloud's; JSON of this size can take 30 times its size in memory."""
MAX_PREFIXES: Final = 400_000
"""Ranges of all tags of a file, four times the public cloud's."""
MAX_CHANGE_NUMBER: Final = 2**53
DOWNLOAD: Final = "download ServiceTags_*.json from Microsoft, unmodified"

_CLOUD_WORDS: Final = {
    "AzureCloud": "public",
    "AzureChinaCloud": "china",
    "AzureUSGovernment": "gov",
}
"""What the file's ``cloud`` has in it, in lower case."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _.-]{0,100}", re.ASCII)
"""Clouds and regions: they are printed as they are."""
_REGIONS: Final = ".*"

# A changed file must not open what no service of Microsoft's can have.
_NOT_PUBLIC: Final = AddressSet.of_networks(
    network for network, _ in NEVER_DIALLED
) | AddressSet.of(
    (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "240.0.0.0/4"),
        *("fc00::/7", "::/96", "::ffff:0:0/96", "64:ff9b::/96"),
    )
)
_MAX_IPV4: Final = 2**28
"""Addresses of one tag, a sixteenth of all; the widest real one, AzureCloud, has a ninetieth."""
_MAX_IPV6: Final = 2**112

_NONE_NEAR: Final = "egressproxy tags list shows what there is, --match TEXT finds it"
_NOT_IN_THE_FILE: Final = {
    "internet": "Microsoft's file does not have it: write 0.0.0.0/0 and ::/0",
    "virtualnetwork": "Microsoft's file does not have it: write your networks' ranges",
    "azureloadbalancer": "it is 168.63.129.16, whose traffic is never routed to a gateway",
}


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag as the file has it; ``region`` is Microsoft's code, empty for all regions."""

    name: str
    region: str
    service: str
    prefixes: tuple[str, ...]

    def addresses(self) -> AddressSet:
        """Its ranges, read.

        Raises:
            AddressError: a text that is no range, a range that is not public, or nearly everything.
        """
        try:
            addresses = AddressSet.of(self.prefixes)
        except ValueError as error:
            what = f"service tag {self.name!r} has a wrong range: {error}"
            raise AddressError(what, hint=DOWNLOAD) from error
        too_many = addresses.ipv4_addresses > _MAX_IPV4 or addresses.ipv6_addresses > _MAX_IPV6
        if too_many:
            widest = min(addresses.networks(), key=lambda network: network.prefixlen)
            what = f"service tag {self.name!r} is nearly everything, it has {widest}"
            raise AddressError(what, hint=DOWNLOAD)
        if private := (addresses & _NOT_PUBLIC).networks():
            what = f"service tag {self.name!r} has {private[0]}, which is not public"
            raise AddressError(what, hint=DOWNLOAD)
        return addresses


class ServiceTags:
    """The tags of one file; ranges are read when a tag is asked for."""

    def __init__(self, cloud: str, change_number: int, tags: Iterable[Tag]) -> None:
        self.cloud = cloud
        self.change_number = change_number
        self.tags = tuple(tags)
        self._by_name = {tag.name.lower(): tag for tag in self.tags}
        self._by_service: dict[str, dict[str, Tag]] = {}
        self._names_of: dict[str, Counter[str]] = {}
        for key, tag in self._by_name.items():
            service, _, region = key.partition(".")
            self._by_service.setdefault(service, {})[region] = tag
            self._names_of.setdefault(tag.region.lower(), Counter())[region] += 1
        self._known: dict[str, tuple[Network, ...] | AddressError] = {}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name

    def find(self, name: str) -> tuple[Tag, ...]:
        """The tags that ``Storage``, ``Storage.EastUS`` or ``Storage.*`` stands for.

        ``AzureCloud`` has Microsoft's codes of regions where other tags have their names
        (``norwaye``, ``NorwayEast``); the name is understood there, too.

        Raises:
            AddressError: it stands for none; the nearest names are its hint.
        """
        key = name.lower()
        if key in self._by_name:
            return (self._by_name[key],)
        if key.endswith(_REGIONS):
            found = self._regional(key.removesuffix(_REGIONS))
        else:
            found = self._by_code(key)
        if not found:
            raise AddressError(f"there is no service tag {name!r}", hint=self._near(key))
        return found

    def addresses(self, name: str) -> AddressSet:
        """All addresses of what ``find`` gives.

        Raises:
            AddressError: as ``find`` and ``Tag.addresses``.
        """
        addresses = AddressSet()
        for tag in self.find(name):
            addresses |= tag.addresses()
        return addresses

    def networks(self, name: str, at: Marked, report: Report) -> tuple[Network, ...]:
        """The ranges of what a rule names, collapsed; empty, and a problem, where that fails."""
        key = name.lower()
        if key not in self._known:
            try:
                self._known[key] = self.addresses(name).networks()
            except AddressError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, AddressError):
            report.add(at, found.message, found.hint)
            return ()
        return found

    def _regional(self, service: str) -> tuple[Tag, ...]:
        tags = self._by_service.get(service, {}).items()
        return tuple(tag for region, tag in tags if region and tag.region)

    def _by_code(self, key: str) -> tuple[Tag, ...]:
        """The tag named by a region's code, where all other tags of it have the name asked for."""
        service, _, region = key.partition(".")
        for tag in self._regional(service):
            code = tag.region.lower()
            if tag.name.lower() == f"{service}.{code}":
                names = self._names_of[code]
                if names.keys() == {code, region} and names[code] == 1:
                    return (tag,)
        return ()

    def _near(self, key: str) -> str:
        """What to write instead; services and regions apart, as there are thousands of pairs."""
        service, dot, region = key.partition(".")
        if looks_like_address(key):
            return f"egressproxy tags list --match {key} says which tags have it"
        if key in _NOT_IN_THE_FILE:
            return _NOT_IN_THE_FILE[key]
        if "*" in key and (region != "*" or "*" in service):
            return "'*' stands for all regions of one service: Storage.*"
        if region == "*" and service in self._by_service:
            others = ", ".join(tag.name for tag in self._by_service[service].values())
            return f"it has no regions, there is {others}"
        names = [
            name
            for near in ([service] if service in self._by_service else self._services(service))
            for name in self._regions(near, region if dot else "")
        ]
        return f"did you mean {' or '.join(names[:2])}?" if names else _NONE_NEAR

    def _services(self, word: str) -> list[str]:
        return near_words(word, self._by_service)

    def _regions(self, service: str, region: str) -> list[str]:
        tags = self._by_service[service]
        if region == "*":
            return [f"{next(iter(tags.values())).name.partition('.')[0]}{_REGIONS}"]
        if not region:
            return [tags[""].name] if "" in tags else [tag.name for tag in tags.values()]
        near = [region] if region in tags else near_words(region, tags)
        return [tags[one].name for one in near]


def parse_tags(data: bytes, cloud: str | None, report: Report) -> ServiceTags | None:
    """The tags of a file for a policy of ``cloud``; ``None`` and problems where it is not one."""
    text = decode(data, report, limit=MAX_TAG_BYTES)
    if text is None:
        return None
    try:
        content = json.loads(text)
        tags = _service_tags(content)
    except json.JSONDecodeError as error:
        report.at(error.lineno, error.colno, f"not JSON: {error.msg}", DOWNLOAD)
        return None
    except RecursionError:
        report.add(None, "nested too deep for a service tag file", DOWNLOAD)
        return None
    except (KeyError, TypeError, ValueError) as error:
        report.add(None, f"not a service tag file: {_shape(error)}", DOWNLOAD)
        return None
    if cloud is not None and _CLOUD_WORDS[cloud] not in tags.cloud.lower():
        report.add(None, f"the service tags are of {tags.cloud!r}", f"the policy is of {cloud}")
    return tags


def _service_tags(content: Any) -> ServiceTags:
    cloud, values = content["cloud"], content["values"]
    number = content.get("changeNumber", 0)
    if not isinstance(cloud, str) or not isinstance(values, list):
        raise TypeError("cloud and values are a text and a list")
    if not _PLAIN.fullmatch(cloud):
        raise ValueError(f"{cloud!r} is not the name of a cloud")
    if type(number) is not int or not 0 <= number < MAX_CHANGE_NUMBER:
        raise TypeError("changeNumber is a number from 0")
    tags: dict[str, Tag] = {}
    prefixes = 0
    for value in values:
        tag = _tag(value)
        prefixes += len(tag.prefixes)
        if prefixes > MAX_PREFIXES:
            raise ValueError(f"more than {MAX_PREFIXES:,} ranges")
        if tags.setdefault(tag.name.lower(), tag) is not tag:
            raise ValueError(f"the tag {tag.name} is there twice")
    return ServiceTags(cloud, number, tags.values())


def _tag(value: Any) -> Tag:
    name, properties = value["name"], value["properties"]
    prefixes = properties["addressPrefixes"]
    region, service = properties.get("region", ""), properties.get("systemService", "")
    if not isinstance(name, str) or not isinstance(prefixes, list):
        raise TypeError("name and addressPrefixes are a text and a list")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a tag")
    if not all(isinstance(text, str) for text in (*prefixes, region, service)):
        raise TypeError(f"the ranges, region and systemService of {name} are not texts")
    if not _PLAIN.fullmatch(region):
        raise ValueError(f"{region!r} is not the name of a region")
    return Tag(name, region, service, tuple(prefixes))


def _shape(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
