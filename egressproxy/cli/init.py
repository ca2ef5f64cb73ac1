"""``egressproxy init``: asks, or takes flags, and writes a commented policy that validates."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from egressproxy.catalog import CLOUDS, PARAMETERS, expand, load_catalog, parameters_of
from egressproxy.catalog.parameters import read_value
from egressproxy.cli.starter import (
    CORE,
    TUNNEL,
    Answers,
    add_ons,
    is_always_needed,
    policy_text,
)
from egressproxy.errors import CatalogError, ParameterProblem, nearest
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import date

STDOUT: Final = "-"

_Read = TypeVar("_Read")

EXAMPLES: Final = """\b
egressproxy init
egressproxy init --location japaneast --registry myregistry --add-on azure-monitor,azure-policy
egressproxy init --cloud AzureChinaCloud --location chinaeast2 --api-server-ip 20.1.2.3 -o -
"""


@click.command(epilog=EXAMPLES)
@click.option("--cloud", type=click.Choice(CLOUDS), help="Default: AzureCloud.")
@click.option("--location", help="The cluster's region, such as japaneast.")
@click.option(
    "--private-cluster", is_flag=True, default=None, help="Nodes reach the API server privately."
)
@click.option("--api-server-fqdn", help="The API server's own name.")
@click.option("--api-server-ip", "api_server_ips", multiple=True, help="For pods that use it.")
@click.option("--dns-server", "dns_servers", multiple=True, help="A custom DNS server.")
@click.option("--registry", help="A container registry's name.")
@click.option("--registry-region", "regions", multiple=True, help="A region that it is in.")
@click.option("--data-endpoint", type=click.Choice(PARAMETERS["data_endpoint"].choices))
@click.option("--add-on", "chosen", multiple=True, help="A requirement's name; commas may part.")
@click.option(
    "--audit-until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Record denies only, until the end of this day (UTC).",
)
@click.option("-o", "--output", default="policy.yaml", show_default=True, help="- is stdout.")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("--no-input", is_flag=True, help="Ask nothing, even on a terminal.")
def command(output: str, *, force: bool, no_input: bool, **given: Any) -> None:
    """Write a first policy for a cluster.

    On a terminal it asks for what the flags do not give; Enter leaves an optional answer out.
    """
    target = Path(output)
    if output != STDOUT and target.exists() and not force:
        raise CatalogError(f"{output} exists", hint="--force overwrites it, -o names another")
    answers = _answers(given, asks=not no_input and may_ask())
    _check(answers)
    text = policy_text(answers)
    rules = _validated(text)
    if output == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{output} cannot be written: {error.strerror}") from error
    click.echo(f"{output}: {rules} rules in {answers.cloud}", err=True)
    _say_what_is_open(answers)
    _say_what_is_next(output)


def may_ask() -> bool:
    """Whether a person is there to answer."""
    return sys.stdin.isatty()


def _answers(given: dict[str, Any], *, asks: bool) -> Answers:
    ask = _Asker(given, asks)
    cloud = ask.choice("cloud", CLOUDS, CLOUDS[0])
    location = ask.text("location", "Region of the cluster", is_needed=True)
    if not location:
        raise CatalogError("init needs a location", hint="--location japaneast")
    core = parameters_of(load_catalog().requirement(CORE), cloud)
    is_private = ask.flag("private_cluster") if "private_cluster" in core else False
    fqdn = None if is_private else ask.text("api_server_fqdn", "API server's own name")
    api_server_ips = ask.items("api_server_ips", "API server's addresses, for pods that use them")
    dns_servers = ask.items("dns_servers", "Custom DNS servers")
    registry = ask.text("registry", "Container registry")
    endpoint, regions = _data_endpoint(ask) if registry else ("blob", ())
    return Answers(
        cloud=cloud,
        location=location,
        private_cluster=is_private,
        api_server_fqdn=fqdn,
        api_server_ips=api_server_ips,
        dns_servers=dns_servers,
        registry=registry,
        data_endpoint=endpoint,
        regions=regions,
        add_ons=_add_ons(ask, cloud),
        audit_until=given["audit_until"].date() if given["audit_until"] else None,
    )


def _data_endpoint(ask: _Asker) -> tuple[str, tuple[str, ...]]:
    endpoint = ask.choice("data_endpoint", PARAMETERS["data_endpoint"].choices, "blob")
    if endpoint == "dedicated":
        return endpoint, ask.items("regions", "Its regions", is_needed=True)
    return endpoint, _split(ask.given["regions"])


@dataclass(frozen=True, slots=True)
class _Asker:
    """Gives a flag's value, or asks for it on stderr where a person is there to answer."""

    given: dict[str, Any]
    asks: bool

    def text(self, name: str, question: str, *, is_needed: bool = False) -> str | None:
        value = self.given[name]
        if value is None and self.asks:
            value = self._ask(name, question, is_needed)
        return str(value) if value else None

    def items(self, name: str, question: str, *, is_needed: bool = False) -> tuple[str, ...]:
        value = self.given[name]
        if not value and self.asks:
            value = (self._ask(name, question, is_needed),)
        return _split(value)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.given[name]
        if value is None and self.asks:
            question = name.replace("_", " ").capitalize()
            kind = click.Choice(choices)
            value = click.prompt(question, type=kind, default=default, err=True)
        return str(value or default)

    def flag(self, name: str) -> bool:
        value = self.given[name]
        if value is None and self.asks:
            value = click.confirm(name.replace("_", " ").capitalize(), default=False, err=True)
        return bool(value)

    def _ask(self, name: str, question: str, is_needed: bool) -> str:
        answer: str = click.prompt(
            f"{question}, such as {_example(name)}" + ("" if is_needed else " (Enter: none)"),
            default="",
            show_default=False,
            value_proc=_reader(name, is_needed=is_needed),
            err=True,
        )
        return answer


def _example(name: str) -> str:
    return PARAMETERS[name].example.strip("[]")


def _split(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(item.strip() for text in texts for item in text.split(",") if item.strip())


def _reader(name: str, *, is_needed: bool) -> Callable[[str], str]:
    """Checks an answer as the catalog will, so that it is asked again at once."""

    def read(text: str) -> str:
        if text.strip():
            value = read_value(PARAMETERS[name], text)
            if isinstance(value, ParameterProblem):
                raise click.UsageError(str(value))
        elif is_needed:  # only regions are
            raise click.UsageError(f"a region is needed (hint: such as {_example(name)})")
        return text.strip()

    return read


def _add_ons(ask: _Asker, cloud: str) -> tuple[str, ...]:
    """The chosen requirements in the catalog's order, and those that the cloud always needs."""
    known = add_ons(cloud)
    if ask.asks and not ask.given["chosen"]:
        for one in known:
            click.echo(f"  {one.id.removeprefix('aks/'):20} {one.title}", err=True)
        chosen: frozenset[str] = click.prompt(
            "Add-ons and node pools, commas between (Enter: none)",
            default="",
            show_default=False,
            value_proc=lambda text: _asked_again(lambda: _known_add_ons((text,), cloud)),
            err=True,
        )
    else:
        chosen = _known_add_ons(ask.given["chosen"], cloud)
    return tuple(one.id for one in known if one.id in chosen or is_always_needed(one, cloud))


def _asked_again(read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except CatalogError as error:
        raise click.UsageError(str(error)) from error


def _known_add_ons(texts: Iterable[str], cloud: str) -> frozenset[str]:
    known = [one.id for one in add_ons(cloud)]
    chosen = {item: item if item in known else f"aks/{item}" for item in _split(texts)}
    unknown = [item for item, name in chosen.items() if name not in known]
    if unknown:
        problems = tuple(_no_add_on(item, cloud, known) for item in unknown)
        raise CatalogError.of("init", problems)
    return frozenset(chosen.values())


def _no_add_on(item: str, cloud: str, known: list[str]) -> ParameterProblem:
    names = [name.removeprefix("aks/") for name in known]
    elsewhere = [one.id for one in load_catalog().requirements if one.id in (item, f"aks/{item}")]
    what = f"{cloud} has no add-on {item!r}" if elsewhere else f"there is no add-on {item!r}"
    return ParameterProblem("add_on", what, nearest(item, names) or f"one of {', '.join(names)}")


def _check(answers: Answers) -> None:
    """Say what is wrong with the flags in the flags' words, all at once.

    Raises:
        CatalogError: with every problem.
    """
    problems: dict[ParameterProblem, None] = dict.fromkeys(_over(answers.audit_until))
    wanted: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in (CORE, *answers.add_ons)]
    wanted += [("aks/custom-dns", {})] if answers.dns_servers else []
    wanted += [("aks/api-server", {})] if answers.api_server_ips else []
    wanted += [("acr", dict(answers.registry_options))] if answers.registry else []
    for name, options in wanted:
        try:
            expand(name, cloud=answers.cloud, parameters=options, shared=answers.shared)
        except CatalogError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise CatalogError.of("init", tuple(problems))


def _over(audit_until: date | None) -> Iterator[ParameterProblem]:
    """An audit that is over would enforce from the first minute, unnoticed."""
    today = datetime.now(UTC).date()
    if audit_until is not None and audit_until < today:
        hint = f"a later day, such as {today + timedelta(days=14)}"
        yield ParameterProblem("audit_until", f"audit_until: {audit_until} is over (UTC)", hint)


def _validated(text: str) -> int:
    """The number of rules of a policy text, which is loaded as ``run`` would load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        return len(load_policy(path).rules)


def _say_what_is_next(output: str) -> None:
    steps = (
        f"check mcr.microsoft.com --policy {output}",
        f"doctor --policy {output}",
        f"up --policy {output} --review-store review.db"
        " --management 10.0.0.64/26   # or where you administer it from",
        f"denies --store review.db --policy {output}   # what it refuses, and what each of it is",
    )
    for place, step in enumerate(steps):
        click.echo(f"{'     ' if place else 'next:'} egressproxy {step}", err=True)


def _say_what_is_open(answers: Answers) -> None:
    if not answers.api_server_fqdn and not answers.private_cluster:
        click.echo(
            "note: without --api-server-fqdn every cluster in the region is allowed", err=True
        )
    tunnel = load_catalog().requirement(TUNNEL)
    if is_always_needed(tunnel, answers.cloud) and not answers.api_server_ips:
        click.echo(
            f"note: {answers.cloud}'s document requires {TUNNEL}; give --api-server-ip, or choose "
            "another via in the file",
            err=True,
        )
