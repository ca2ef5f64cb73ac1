"""The shape of a policy document, version 1: every key, what it takes and what it means.

Shape only: what needs other files or other keys (sources, tags, lists, requirements, ports against
destinations) is checked where the rules are made, ``written`` and ``required``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from egressproxy.catalog.model import CLOUDS
from egressproxy.catalog.parameters import PARAMETERS, ParameterKind
from egressproxy.errors import PatternError, nearest
from egressproxy.policy.fields import (
    At,
    Choice,
    Constant,
    Day,
    ListOf,
    MapOf,
    Record,
    Text,
    key,
    kind,
)
from egressproxy.policy.lint_finding import Code
from egressproxy.policy.networks import Network, parse_dialled_network, parse_network
from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal, SniCheck
from egressproxy.policy.targets import Target, parse_source, parse_source_name, parse_target
from egressproxy.policy.verdict import Action
from egressproxy.policy.yaml_nodes import Mapping, Node, Scalar, Sequence
from egressproxy.policy.yaml_scalars import is_null
from egressproxy.ports import PortSpan, parse_ports

if TYPE_CHECKING:
    from datetime import date

    from egressproxy.policy.fields import Schema
    from egressproxy.policy.problems import Report

VERSION: Final = 1
_RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}", re.ASCII)


def _rule_name(text: str) -> str:
    if not _RULE_NAME.fullmatch(text):
        raise PatternError(
            f"{text!r} is not a rule's name",
            hint="letters, digits, spaces, '.', '_' and '-', 100 at most",
        )
    return text


_WINDOW: Final = re.compile(r"([1-9][0-9]{0,3})([hd])", re.ASCII)
_MAX_WINDOW_S: Final = 90 * 86400


def _cloud(text: str) -> str:
    if text not in CLOUDS:
        hint = nearest(text, CLOUDS, count=1) or f"write {', '.join(CLOUDS)}"
        raise PatternError(f"{text!r} is not a cloud", hint=hint)
    return text


def _window(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * (3600 if found[2] == "h" else 86400) if found else 0
    if not 0 < seconds <= _MAX_WINDOW_S:
        hint = "write hours or days: 12h, 7d; at most 90d"
        raise PatternError(f"{text!r} is not a span of hours or days", hint=hint)
    return seconds


def _path(text: str) -> str:
    if not text.strip():
        raise PatternError("an empty path", hint="write the file's path, relative to this file")
    if not text.isprintable():
        raise PatternError(f"{text!r} is not a path that a log can show", hint="rename the file")
    return text


_WELL_KNOWN: Final = {"443": "write https", "80": "write http"}


def _port_instead(text: str) -> str:
    first, colon, last = text.partition(":")
    if colon:
        return f"write tcp:{first}-{last}"
    return _WELL_KNOWN.get(text, f"write tls:{text}, http:{text} or tcp:{text}")


_PORT_FORM: Final = {
    "pattern": "^(https|http|(tls|http|tcp|udp):[0-9]{1,5}|(tcp|udp):[0-9]+-[0-9]+)$"
}
TARGET: Final[Text[Target]] = Text(what="a destination", parse=parse_target, form={"minLength": 1})
PORTS: Final[Text[PortSpan]] = Text(
    what="a port item", parse=parse_ports, form=_PORT_FORM, instead=_port_instead
)
SOURCE: Final[Text[Network | str]] = Text(
    what="a source", parse=parse_source, form={"minLength": 1}
)
GROUP: Final[Text[str]] = Text(
    what="a source group's name",
    parse=parse_source_name,
    form={"pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,62}$"},
)
RANGE: Final[Text[Network]] = Text(what="an address range", parse=parse_network)
DIALLED: Final[Text[Network]] = Text(what="an address range", parse=parse_dialled_network)
NAME: Final[Text[str]] = Text(
    what="a rule's name", parse=_rule_name, form={"pattern": "^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"}
)
FILE: Final[Text[str]] = Text(what="a file", parse=_path, form={"minLength": 1})
ANY_TEXT: Final[Text[str]] = Text(what="a text", parse=str)

SOURCES: Final = ListOf(what="sources", item=SOURCE)
ADDRESSES: Final = ListOf(what="address ranges", item=DIALLED)
ACCEPT: Final = ListOf(what="findings", item=Choice("a finding of the lint", tuple(Code)))
AUDIT_UNTIL: Final = Day("a date")
WINDOW: Final = Text(
    what="a span of hours or days", parse=_window, form={"pattern": "^[1-9][0-9]{0,3}[hd]$"}
)

ABOUT_FROM: Final = "who it counts for: names from sources, or address ranges"
ABOUT_ADDRESSES: Final = "non-public ranges that its names may resolve to (Private Link)"
ABOUT_DESTINATION: Final = "what the client's own destination address counts for"
ABOUT_ECH: Final = "what an Encrypted ClientHello extension counts for"
ABOUT_ACCEPT: Final = "findings of the lint that are meant; they change no verdict"
ABOUT_AUDIT_UNTIL: Final = "the last UTC day of audit; it enforces by itself afterwards"

ParameterValue = str | bool | tuple[str, ...]


class _Parameter:
    """Reads the value of a parameter; the catalog says what it must be."""

    def read(self, node: Node, report: Report) -> At[ParameterValue] | None:
        if isinstance(node, Scalar) and node.is_plain and node.text in ("true", "false"):
            return At(node.text == "true", node)
        if isinstance(node, Sequence):
            items = [ANY_TEXT.read(item, report) for item in node.items]
            return At(tuple(item.value for item in items if item is not None), node)
        read = ANY_TEXT.read(node, report)
        return At(read.value, node) if read is not None else None

    def schema(self) -> Schema:
        """One text or several; ``parameter_schemas`` is narrower for those with a kind."""
        return {"type": ["string", "array"], "items": {"type": "string"}}


def parameter_schemas() -> dict[str, Schema]:
    """JSON Schema of every parameter that the catalog knows."""
    texts = _Parameter().schema()
    by_kind: dict[ParameterKind, Schema] = {
        ParameterKind.FLAG: {"type": "boolean"},
        ParameterKind.REGIONS: texts,
        ParameterKind.ADDRESSES: texts,
        ParameterKind.NETWORKS: texts,
    }
    return {
        name: {
            "description": parameter.about,
            **by_kind.get(parameter.kind, {"type": "string"}),
            **({"enum": list(parameter.choices)} if parameter.choices else {}),
        }
        for name, parameter in PARAMETERS.items()
    }


class _Parameters(MapOf[At[ParameterValue]]):
    """``parameters:``, which every requirement may use."""

    def schema(self) -> Schema:
        return {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": parameter_schemas(),
        }


_PARAMETER: Final = _Parameter()
_PARAMETERS: Final = _Parameters(what="a mapping of parameters", key=ANY_TEXT, value=_PARAMETER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEntry:
    """One item of ``rules:``."""

    node: Node
    name: At[str] | None = key(NAME, "stands in records and reports as rules/<name>")
    action: At[Action] | None = key(
        Choice("an action", (Action.ALLOW, Action.DENY)), "allow (default) or deny"
    )
    to: tuple[At[Target], ...] | None = key(
        ListOf(what="destinations", item=TARGET),
        "names, *.suffix, prefix*.suffix, list:file, tag:Name, or address ranges",
        required=True,
    )
    ports: tuple[At[PortSpan], ...] | None = key(
        ListOf(what="port items", item=PORTS),
        "https, http, tls:P, http:P (by name), tcp:P[-Q], udp:P[-Q] (network)",
        required=True,
    )
    sources: tuple[At[Network | str], ...] | None = key(SOURCES, ABOUT_FROM, name="from")
    until: At[date] | None = key(Day("a date"), "the last UTC day on which the rule counts")
    mode: At[Mode] | None = key(
        Choice("a rule's mode", (Mode.AUDIT,)), "audit: its deny is recorded and not enforced"
    )
    audit_until: At[date] | None = key(AUDIT_UNTIL, ABOUT_AUDIT_UNTIL)
    destination: At[Destination] | None = key(
        Choice("a destination mode", tuple(Destination)), ABOUT_DESTINATION
    )
    sni: At[SniCheck] | None = key(
        Choice("an SNI check", tuple(SniCheck)), "how the SNI is held to the CONNECT name"
    )
    ech: At[Ech] | None = key(Choice("an ECH mode", tuple(Ech)), ABOUT_ECH)
    addresses: tuple[At[Network], ...] | None = key(ADDRESSES, ABOUT_ADDRESSES)
    accept: tuple[At[Code], ...] | None = key(ACCEPT, ABOUT_ACCEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementEntry:
    """One item of ``requirements:``: an id alone, or an id with its options."""

    node: Node
    id: At[str]
    sources: tuple[At[Network | str], ...] | None = None
    via: At[str] | None = None
    addresses: tuple[At[Network], ...] | None = None
    accept: tuple[At[Code], ...] | None = None
    parameters: tuple[tuple[At[str], At[ParameterValue]], ...] = ()


_OPTIONS: Final[dict[str, tuple[str, Any, str]]] = {
    "from": ("sources", SOURCES, ABOUT_FROM),
    "via": ("via", Text(what="an alternative", parse=str), "which alternative of the catalog"),
    "addresses": ("addresses", ADDRESSES, ABOUT_ADDRESSES),
    "accept": ("accept", ACCEPT, ABOUT_ACCEPT),
}


class _Requirement:
    """Reads ``- aks/core`` and ``- acr: {registry: myregistry}``."""

    def read(self, node: Node, report: Report) -> RequirementEntry | None:
        match node:
            case Scalar():
                found = ANY_TEXT.read(node, report)
                return RequirementEntry(node=node, id=found) if found is not None else None
            case Mapping(entries=((name, options),)):
                return self._with_options(name, options, report)
            case Mapping():
                hint = "indent its options one step deeper than its id: - acr: {registry: …}"
                report.add(node, "a requirement is one id with its options below it", hint)
            case _:
                report.add(node, f"a requirement's id is expected, not {kind(node)}")
        return None

    def _with_options(self, name: Scalar, options: Node, report: Report) -> RequirementEntry:
        entry = At(name.text, name)
        if isinstance(options, Scalar) and is_null(options):
            return RequirementEntry(node=name, id=entry)
        if not isinstance(options, Mapping):
            what = f"the options of {name.text} are expected, not {kind(options)}"
            report.add(options, what, f"write - {name.text}: {{from: [cluster-a]}}")
            return RequirementEntry(node=name, id=entry)
        values: dict[str, Any] = {}
        parameters = []
        for option, value in options.entries:
            if option.text in _OPTIONS:
                attribute, reader, _ = _OPTIONS[option.text]
                if (read := reader.read(value, report)) is not None:
                    values[attribute] = read
            elif (parameter := _PARAMETER.read(value, report)) is not None:
                parameters.append((At(option.text, option), parameter))
        return RequirementEntry(node=name, id=entry, parameters=tuple(parameters), **values)

    def schema(self) -> Schema:
        options = {name: {"description": d, **r.schema()} for name, (_, r, d) in _OPTIONS.items()}
        return {
            "type": ["string", "object"],
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {**options, **parameter_schemas()},
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IncludeEntry:
    """One item of ``include:``; ``sources`` caps what the included file's rules count for."""

    node: Node
    file: At[str] | None = key(FILE, "a policy file, relative to this one", required=True)
    sources: tuple[At[Network | str], ...] | None = key(
        SOURCES, "its rules count for these sources at most", name="from"
    )


class _Include:
    """Reads ``- team-a.yaml`` and ``- {file: team-b.yaml, from: [build]}``."""

    def __init__(self) -> None:
        self._record = Record(IncludeEntry, "an include")

    def read(self, node: Node, report: Report) -> IncludeEntry | None:
        if isinstance(node, Scalar):
            file = FILE.read(node, report)
            return IncludeEntry(node=node, file=file) if file is not None else None
        return self._record.read(node, report)

    def schema(self) -> Schema:
        return {"anyOf": [FILE.schema(), self._record.schema()]}


_RULES: Final = ListOf(what="rules", item=Record(RuleEntry, "a rule"), may_be_empty=True)
_REQUIREMENTS: Final = ListOf(what="requirements", item=_Requirement(), may_be_empty=True)
_INCLUDES: Final = ListOf(what="files", item=_Include(), may_be_empty=True)
_SOURCES: Final = MapOf(
    what="a mapping of source groups", key=GROUP, value=ListOf(what="ranges", item=RANGE)
)
_VERSION: Final = Constant("a version of the policy document", VERSION)

Groups = tuple[tuple[At[str], tuple[At[Network], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Included:
    """A file that another one includes."""

    node: Node
    version: int | None = key(_VERSION, "the document's version")
    parameters: tuple[tuple[At[str], At[ParameterValue]], ...] | None = key(
        _PARAMETERS, "what requirements need to know"
    )
    sources: Groups | None = key(_SOURCES, "named groups of client address ranges")
    requirements: tuple[RequirementEntry, ...] | None = key(
        _REQUIREMENTS, "what the cluster needs, from the catalog; judged after all rules"
    )
    rules: tuple[RuleEntry, ...] | None = key(_RULES, "judged from top to bottom")
    include: tuple[IncludeEntry, ...] | None = key(
        _INCLUDES, "files whose rules follow this file's rules"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Included):
    """The root file, which alone sets what counts for the whole policy."""

    version: int | None = key(_VERSION, "the document's version: 1", required=True)
    cloud: At[str] | None = key(
        Text(what="a cloud", parse=_cloud, form={"enum": list(CLOUDS)}),
        "AzureCloud, AzureChinaCloud or AzureUSGovernment",
        required=True,
    )
    mode: At[Mode] | None = key(
        Choice("a mode", tuple(Mode)),
        "enforce (default); audit: denies are recorded only; warn-on-new: those of new names are",
    )
    audit_until: At[date] | None = key(AUDIT_UNTIL, ABOUT_AUDIT_UNTIL)
    warn_until: At[date] | None = key(
        Day("a date"), "the last UTC day of warn-on-new, which needs it; it enforces afterwards"
    )
    warn_window: At[int] | None = key(
        WINDOW, "for how long a name is new after it was first seen: 12h, 7d (default)"
    )
    destination: At[Destination] | None = key(
        Choice("a destination mode", tuple(Destination)), ABOUT_DESTINATION
    )
    ech: At[Ech] | None = key(Choice("an ECH mode", tuple(Ech)), ABOUT_ECH)
    refusal: At[Refusal] | None = key(
        Choice("a refusal", tuple(Refusal)), "how a denied client is told"
    )
    on_reload: At[OnReload] | None = key(
        Choice("a reload mode", tuple(OnReload)), "what becomes of open flows that are denied now"
    )
    accept: tuple[At[Code], ...] | None = key(ACCEPT, f"in the whole policy, {ABOUT_ACCEPT}")
    service_tags: At[str] | None = key(FILE, "Microsoft's weekly service tag file, unmodified")


ROOT: Final = Record(Document, "a policy")
INCLUDED: Final = Record(
    Included,
    "an included policy",
    elsewhere={
        name: f"only the root policy sets {name}: remove it here"
        for name in ROOT.known
        if name not in Record(Included, "").known
    },
)
