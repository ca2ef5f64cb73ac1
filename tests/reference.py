"""The text of ``docs/reference.md``, written from the code that it describes.

Everything a user can name is here once: commands and options, settings, policy keys, parameters,
requirements, reasons, record fields, metrics, admin pages. ``test_docs`` holds the file to it.
"""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import click
from aiohttp import web
from prometheus_client import CollectorRegistry

from egressproxy.admin import browser, pages
from egressproxy.admin.access import OPEN_PATHS, SAFE_METHODS
from egressproxy.admin.pages import Pages
from egressproxy.admin.registry import ServiceCollector
from egressproxy.catalog import CLOUDS, load_catalog, parameters_of
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.cli.main import cli
from egressproxy.observe.cells import LookupOutcome, ReloadOutcome
from egressproxy.observe.counters import Counters
from egressproxy.observe.metrics import CountersCollector
from egressproxy.observe.record import FlowRecord, NameSource, Plane, to_json_line
from egressproxy.planes.http_commands import CloseReason
from egressproxy.policy.document import INCLUDED, ROOT, IncludeEntry, RuleEntry
from egressproxy.policy.fields import Record
from egressproxy.policy.lint import Code
from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal, SniCheck
from egressproxy.policy.schema import policy_schema
from egressproxy.policy.tag_edition import DatedBy, TagEdition
from egressproxy.policy.verdict import AUDITABLE, Action, Pass, Reason
from egressproxy.resolve.guard import DestinationMatch
from egressproxy.service.report import Outcome, Trigger
from egressproxy.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from enum import Enum

    from prometheus_client import Metric

    from egressproxy.admin.frame import Frame
    from egressproxy.service.supervisor import Supervisor

WIDTH: Final = 80
_HEAD: Final = """\
# Reference

Generated from the code by `make golden`; a test holds it to the code. What the words mean is in
[policy.md](policy.md) and [operations.md](operations.md).
"""
_UNITS: Final = {"_s": "seconds", "_bytes": "bytes", "_days": "days"}
_ERRORS: Final = (
    Reason.RESOLVE_FAILED,
    Reason.DIAL_FAILED,
    Reason.DIAL_TIMEOUT,
    Reason.INTERNAL_ERROR,
)
NOT_YET_REASONS: Final = (Reason.DNS_REFUSED,)
_CHOICES: Final[tuple[tuple[str, type[Enum]], ...]] = (
    ("`mode`", Mode),
    ("`destination`", Destination),
    ("`sni`", SniCheck),
    ("`ech`", Ech),
    ("`refusal`", Refusal),
    ("`on_reload`", OnReload),
)
_RECORD_CHOICES: Final[tuple[tuple[str, type[Enum]], ...]] = (
    ("`action`", Action),
    ("`pass`", Pass),
    ("`plane`", Plane),
    ("`name_source`", NameSource),
    ("`destination_match`", DestinationMatch),
    ("`close_reason`", CloseReason),
)


def reference() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        *_commands(),
        *_settings(),
        *_policy(),
        *_requirements(),
        *_reasons(),
        *_records(),
        *_metrics(),
        *_admin(),
    ]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with what a person types to reach it, groups included."""
    root = click.Context(
        cli, info_name="egressproxy", terminal_width=WIDTH, **cast("Any", cli.context_settings)
    )
    yield "egressproxy", cli, root
    yield from _below("egressproxy", cli, root)


def _below(
    path: str, group: click.Group, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(name)
        child = click.Context(command, info_name=name, parent=context)
        cast("Any", command)._help_option = None  # click keeps what another test's context made
        yield f"{path} {name}", command, child
        if isinstance(command, click.Group):
            yield from _below(f"{path} {name}", command, child)


def metrics() -> list[Metric]:
    """Every family of ``/metrics`` that is ours, with the labels of a fresh service."""
    counters = Counters.create(1)
    try:
        counters.set_policy("f" * 64, 1.0)
        counters.set_service_tags(TagEdition(Path("tags.json"), "Public", 1, 1.0, DatedBy.NAME))
        registry = CollectorRegistry()
        registry.register(CountersCollector(counters))
        supervisor = SimpleNamespace(crew=None, is_ready=False, last_reload=None, firewall=None)
        registry.register(ServiceCollector(cast("Supervisor", supervisor)))
        return list(registry.collect())
    finally:
        counters.close()


def exposed_name(metric: Metric) -> str:
    """The name as a query writes it."""
    return metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")


def record_fields() -> dict[str, object]:
    """A whole record as JSON reads it back; its keys are the fields."""
    record = FlowRecord(
        time=1_800_000_000.0,
        flow_id="0-19abcdef012-1",
        action=Action.DENY,
        reason=Reason.DEFAULT_DENY,
        plane=Plane.TRANSPARENT,
        protocol="tls",
        src_ip="10.240.0.4",
        src_port=41234,
        dst_port=443,
        source_group="nodes",
        dst_ip="140.82.112.4",
        name="gist.github.com",
        name_source=NameSource.SNI,
        alpn=("h2", "http/1.1"),
        tls_versions=("1.3", "1.2"),
        duration_s=0.0004,
        close_reason="refused",
        policy="37a7a82262b09cb36809472881279879ed5fb57dd9a8173de142391310b03b7f",
    )
    fields_: dict[str, object] = json.loads(to_json_line(record))
    return fields_


def admin_pages() -> dict[tuple[str, str], str]:
    """What each page for programs answers, by method and path, from the table of its module."""
    return _page_table(pages)


def browser_pages() -> dict[tuple[str, str], str]:
    """What each page for people is, likewise."""
    return _page_table(browser)


def browser_routes() -> set[tuple[str, str]]:
    """Method and path of every page for people that is served."""
    application = web.Application()
    browser.add_browser_pages(application, cast("Frame", None))
    return {
        (route.method, route.resource.canonical)
        for route in application.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


def _page_table(module: ModuleType) -> dict[tuple[str, str], str]:
    table: dict[tuple[str, str], str] = {}
    last = ("", "")
    for line in (inspect.getdoc(module) or "").splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and words[0] in ("GET", "POST"):
            last = (words[0], words[1])
            table[last] = words[2]
        elif last in table and line.startswith("  "):
            table[last] += " " + line.strip()
    return table


def admin_routes() -> set[tuple[str, str]]:
    """Method and path of every route that is served."""
    served = Pages(cast("Supervisor", None), CollectorRegistry()).routes()
    return {(route.method, route.path) for route in served}


def member_docs(members: type[Enum]) -> dict[str, str]:
    """The string after each member of an enum, which Python itself throws away."""
    tree = ast.parse(inspect.getsource(members))
    body = cast("ast.ClassDef", tree.body[0]).body
    values = {name: str(member.value) for name, member in members.__members__.items()}
    docs = dict.fromkeys(values.values(), "")
    for node, following in pairwise(body):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[values[node.targets[0].id]] = " ".join(str(following.value.value).split())
    return docs


def policy_keys() -> dict[str, dict[str, str]]:
    """Every key of the policy language with its meaning, by the place it stands in."""
    requirement = _at(policy_schema(), "properties", "requirements", "items")
    options = _at(requirement, "additionalProperties", "properties")
    return {
        "The root file": _about(ROOT),
        "An included file": _about(INCLUDED),
        "An item of `rules`": _about(Record(RuleEntry, "a rule")),
        "An option of a requirement": {
            name: option["description"]
            for name, option in options.items()
            if name not in PARAMETERS
        },
        "An item of `include`": _about(Record(IncludeEntry, "an include")),
    }


def _at(tree: Any, *path: str) -> dict[str, Any]:
    for step in path:
        tree = tree[step]
    return cast("dict[str, Any]", tree)


def _about(record: Record[Any]) -> dict[str, str]:
    return {
        name: known.about + (" (required)" if known.required else "")
        for name, known in record.known.items()
    }


def _commands() -> Iterator[str]:
    yield "## Commands\n\nExit codes: 0 allow or good, 1 deny or a difference, 2 an error.\n"
    for path, command, context in commands():
        yield f"### `{path}`\n\n```text\n{command.get_help(context)}\n```\n"


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield (
        "Limits and timeouts of `egressproxy run`. Each is an option, a variable and a key of the\n"
        "`--config` file; the option wins over the variable, the variable over the file.\n"
    )
    yield _table(
        ("setting", "unit", "default", "range", "what", "variable"),
        (
            (
                f"`{setting.name}`",
                next((u for end, u in _UNITS.items() if setting.name.endswith(end)), "count"),
                _number(cast("float", setting.default)),
                f"{_number(setting.metadata['low'])} to {_number(setting.metadata['high'])}",
                setting.metadata["help"],
                f"`{ENVIRONMENT_PREFIX}{setting.name.upper()}`",
            )
            for setting in fields(Settings)
        ),
    )


def _policy() -> Iterator[str]:
    yield "## Policy keys\n"
    for place, keys in policy_keys().items():
        yield f"### {place}\n"
        yield _table(("key", "what"), ((f"`{name}`", about) for name, about in keys.items()))
    yield "### Choices\n"
    yield _choices(_CHOICES)
    yield "### Parameters\n"
    yield (
        "Keys of `parameters`, and options of a requirement, which then count for it alone.\n"
        "`egressproxy catalog list` says which requirement takes which.\n"
    )
    yield _table(
        ("parameter", "kind", "default", "what", "example"),
        (
            (
                f"`{p.name}`",
                " or ".join(f"`{choice}`" for choice in p.choices) or p.kind.value,
                "" if p.default is None else f"`{str(p.default).lower()}`",
                p.about,
                f"`{p.example}`",
            )
            for p in PARAMETERS.values()
        ),
    )
    yield "### Findings of the lint\n"
    yield "Printed by `policy lint` and `policy validate`; what `accept` takes.\n"
    yield _table(
        ("finding", "severity", "what"),
        (
            (f"`{code}`", code.severity.value, _sentence(doc))
            for code, doc in zip(Code, member_docs(Code).values(), strict=True)
        ),
    )


def _requirements() -> Iterator[str]:
    yield "## Requirements\n"
    yield "`egressproxy catalog show REQUIREMENT` has every row with its purpose and document.\n"
    yield _table(
        ("requirement", "what", "clouds", "parameters", "`via`"),
        (
            (
                f"`{one.id}`",
                one.title,
                "all" if one.clouds == CLOUDS else ", ".join(one.clouds),
                _listed(parameters_of(one, None)),
                _vias(one.vias, one.default_via),
            )
            for one in load_catalog().requirements
        ),
    )


def _vias(vias: Iterable[str], default: str | None) -> str:
    marked = [f"`{via}`" + (" (default)" if via == default else "") for via in vias]
    return ", ".join(marked) + (", no default" if marked and default is None else "")


def _reasons() -> Iterator[str]:
    docs = member_docs(Reason)
    yield "## Reasons\n"
    yield (
        "The field `reason` of records and of `check --json`, the label `reason` of metrics.\n"
        "*Audit* says whether `mode: audit` lets such a flow through, with `would_deny`.\n"
        + _reserved(NOT_YET_REASONS)
    )
    yield _table(
        ("reason", "action", "audit", "meaning"),
        (
            (
                f"`{reason}`",
                _actions(reason),
                "softened" if reason in AUDITABLE else "",
                _sentence(docs[reason].removeprefix("Action ``error``: ")),
            )
            for reason in Reason
        ),
    )


def _actions(reason: Reason) -> str:
    if reason is Reason.RULE:
        return "allow, deny"
    return "error" if reason in _ERRORS else "deny"


def _records() -> Iterator[str]:
    record = record_fields()
    yield "## Flow records\n"
    yield (
        "One JSON object a line, keys in this order. What each field means is in\n"
        "[operations.md](operations.md#fields-of-a-record).\n"
    )
    yield "```json\n" + json.dumps(record, indent=1) + "\n```\n"
    yield _choices(_RECORD_CHOICES)


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "Beside these `/metrics` has the supervisor's own `process_…` metrics.\n"
    yield _table(
        ("metric", "type", "labels", "what"),
        (
            (f"`{exposed_name(metric)}`", metric.type, _labels(metric), metric.documentation)
            for metric in metrics()
        ),
    )
    yield "### Values of `outcome`\n"
    yield _choices(
        (
            ("`egressproxy_resolver_lookups_total`", LookupOutcome),
            ("`egressproxy_reloads_total`", ReloadOutcome),
        )
    )


def _labels(metric: Metric) -> str:
    names = {name for sample in metric.samples for name in sample.labels} - {"le"}
    return _listed(sorted(names))


def _admin() -> Iterator[str]:
    yield "## Admin pages\n"
    yield (
        "With a token every page wants `Authorization: Bearer TOKEN`, but for "
        + _listed(sorted(OPEN_PATHS))
        + ".\nMethods other than "
        + _listed(sorted(SAFE_METHODS))
        + " want the token or the header `X-Egressproxy`.\n"
    )
    yield _table(
        ("method", "path", "answer"),
        ((method, f"`{path}`", what) for (method, path), what in admin_pages().items()),
    )
    yield "### In a browser\n"
    yield (
        "With a token these want it once, at the login, and then a cookie. Forms carry a token of\n"
        "their own; errors are pages.\n"
    )
    yield _table(
        ("method", "path", "page"),
        ((method, f"`{path}`", what) for (method, path), what in browser_pages().items()),
    )
    yield "### Values in the answer of `/reload`\n"
    yield _choices((("`outcome`", Outcome), ("`triggers`", Trigger)))


def _choices(choices: Iterable[tuple[str, type[Enum]]]) -> str:
    return _table(
        ("of", "value", "meaning"),
        (
            (of, f"`{value}`", doc)
            for of, members in choices
            for value, doc in member_docs(members).items()
        ),
    )


def _reserved(members: Iterable[Enum]) -> str:
    return f"Reserved, and given by nothing yet: {_listed(str(each.value) for each in members)}.\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )
    return text.replace("``", "`") + "\n"
