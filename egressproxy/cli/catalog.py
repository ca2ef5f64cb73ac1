"""``egressproxy catalog list|show|names``: the documented requirements, readable or as JSON.

Without ``--set`` and ``--via``, ``show`` gives the catalog's page: every alternative, templates
unfilled. With either it gives what a policy that lists the requirement so would allow.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from egressproxy.catalog import CLOUDS, PARAMETERS, expand, load_catalog, samples
from egressproxy.catalog.lines import Line
from egressproxy.cli.catalog_page import print_list, print_page, summary
from egressproxy.errors import CatalogError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLES: Final = """\b
egressproxy catalog show aks/core
egressproxy catalog show aks/core --cloud AzureCloud --set location=japaneast
egressproxy catalog show aks/tunnel --cloud AzureCloud --via service-tag --set location=japaneast
egressproxy catalog show acr --cloud AzureCloud --set registry=myregistry
"""

NAMES_EXAMPLES: Final = """\b
egressproxy catalog names --cloud AzureCloud |
  egressproxy check --batch --policy policy.yaml
egressproxy catalog names aks/core acr --cloud AzureChinaCloud --set location=chinaeast2
"""


@click.group()
def command() -> None:
    """Show the AKS and ACR requirements that a policy can list."""


@command.command("list")
@click.option("--cloud", type=click.Choice(CLOUDS), help="Only what this cloud has.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_(cloud: str | None, *, as_json: bool) -> None:
    """List every requirement."""
    requirements = [
        requirement
        for requirement in load_catalog().requirements
        if cloud is None or cloud in requirement.clouds
    ]
    if as_json:
        click.echo(json.dumps([summary(one, cloud) for one in requirements], indent=2))
    else:
        print_list(requirements, cloud)


@command.command(epilog=EXAMPLES)
@click.argument("requirement")
@click.option("--cloud", type=click.Choice(CLOUDS), help="Only this cloud's rows.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Fill in a parameter.")
@click.option("--via", metavar="CHOICE", help="Take one of the alternatives.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(
    requirement: str,
    cloud: str | None,
    settings: tuple[str, ...],
    via: str | None,
    *,
    as_json: bool,
) -> None:
    """Show what a requirement allows, with purpose and source."""
    found = load_catalog().requirement(requirement)
    parameters = _assignments(settings)
    via = via or parameters.pop("via", None)
    is_filled = bool(parameters or via)
    if is_filled and cloud is None:
        raise CatalogError("--set and --via need a cloud", hint=f"--cloud {found.clouds[0]}")
    if cloud is not None and (is_filled or cloud not in found.clouds):
        expanded = expand(found.id, cloud=cloud, parameters=parameters, via=via)
        lines = [Line.of_expanded(row) for row in expanded]
        lines += [Line.of_row(row) for row in found.rows_of(cloud) if row.is_note]
    else:
        lines = [Line.of_row(row) for row in found.rows if cloud in (None, row.cloud)]
    if as_json:
        page = summary(found, cloud) | {"rows": [line.as_json() for line in lines]}
        click.echo(json.dumps(page, indent=2, ensure_ascii=False))
    else:
        print_page(found, cloud, lines, is_filled=is_filled)


@command.command(epilog=NAMES_EXAMPLES)
@click.argument("requirements", nargs=-1, metavar="[REQUIREMENT]...")
@click.option("--cloud", type=click.Choice(CLOUDS), required=True, help="Of this cloud.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Fill in a parameter.")
def names(requirements: tuple[str, ...], cloud: str, settings: tuple[str, ...]) -> None:
    """Print every name of the catalog with its port, for check --batch.

    All alternatives count, and the names that only explain a deny. A label "sample" stands for a
    wildcard's star, the catalog's examples for parameters that are not set.
    """
    catalog = load_catalog()
    found = [catalog.requirement(one) for one in requirements] or catalog.requirements
    parameters = _assignments(settings)
    if unknown := [name for name in parameters if name not in PARAMETERS]:
        raise CatalogError(
            f"there is no parameter {unknown[0]!r}", hint=nearest(unknown[0], PARAMETERS)
        )
    for sample in samples((row for one in found for row in one.rows_of(cloud)), parameters):
        click.echo(f"{sample.name} {sample.port}")


def _assignments(settings: Iterable[str]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise CatalogError(f"{setting!r} sets nothing", hint="write --set location=japaneast")
        parameters[name] = value
    return parameters
