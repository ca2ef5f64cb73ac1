"""What the catalog's page shows: the requirements of one cloud, one of them whole, what was found.

A search is a host name (which rows mean it?) or words of ids, titles, destinations and purposes.
The policy in force says which requirements and rows are in use.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.catalog import CLOUDS, PARAMETERS, load_catalog, parameters_of
from egressproxy.catalog.lines import Line
from egressproxy.catalog.templates import expression, placeholders

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from egressproxy.admin.frame import Frame
    from egressproxy.catalog import Requirement, Row
    from egressproxy.policy.rules import Policy

MAX_SEARCH: Final = 253
"""Characters of a search; a host name has no more."""


@dataclass(frozen=True, slots=True)
class Item:
    """A requirement in the list; ``found`` counts its rows that fit the search."""

    requirement: Requirement
    is_included: bool
    rows: int
    found: int


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with its sources' number; ``rules`` are the policy's rules that it became."""

    line: Line
    source: int
    rules: tuple[str, ...]
    is_found: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy may write beside the id: an alternative or a parameter."""

    text: str
    about: str
    default: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """One requirement whole; ``sources`` are (document, section), numbered from one."""

    requirement: Requirement
    is_included: bool
    rows: tuple[RowView, ...]
    sources: tuple[tuple[str, str], ...]
    choices: tuple[Choice, ...]
    yaml: str
    absent: str


@dataclass(frozen=True, slots=True)
class CatalogView:
    """The page; ``chosen`` is ``None`` for the list, ``unknown`` an id that does not exist."""

    cloud: str
    clouds: tuple[str, ...]
    search: str
    items: tuple[Item, ...]
    chosen: Chosen | None
    unknown: str


class CatalogPage:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get("/review/catalog", self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """The list, a search of it, or one requirement."""
        crew = self._frame.supervisor.crew
        policy = crew.current.policy if crew else None
        view = await asyncio.to_thread(catalog_view, request.query, policy)
        status = 404 if view.unknown else 200
        return await self._frame.page(request, "catalog.html", status=status, view=view)


def catalog_view(query: Mapping[str, str], policy: Policy | None) -> CatalogView:
    """The page for a query of ``cloud``, ``search`` and ``requirement``, whatever they hold."""
    default = policy.cloud if policy is not None else CLOUDS[0]
    asked = query.get("cloud", "")
    cloud = asked if asked in CLOUDS else default
    search = query.get("search", "").strip()[:MAX_SEARCH]
    rules = _rules(policy) if policy is not None and policy.cloud == cloud else {}
    included = frozenset(policy.requirements) if policy is not None else frozenset()
    wanted = query.get("requirement", "")[:MAX_SEARCH]
    requirements = {one.id: one for one in load_catalog().requirements}
    found = {one.id: _found(one, cloud, search) for one in requirements.values()}
    return CatalogView(
        cloud=cloud,
        clouds=CLOUDS,
        search=search,
        items=_items(requirements.values(), cloud, included, found if search else None),
        chosen=_chosen(requirements[wanted], cloud, included, rules, found[wanted])
        if wanted in requirements
        else None,
        unknown=wanted if wanted not in requirements else "",
    )


def _rules(policy: Policy) -> dict[str, tuple[str, ...]]:
    """The policy's rules by the row that they are made of (``aks/core#mcr@group`` is a rule id)."""
    found: dict[str, tuple[str, ...]] = {}
    for rule in policy.rules:
        if rule.requirement is not None:
            row = rule.id.partition("@")[0]
            found[row] = (*found.get(row, ()), rule.id)
    return found


def _found(requirement: Requirement, cloud: str, search: str) -> frozenset[str]:
    """The ids of the rows that fit a search; all where the requirement itself does."""
    rows = requirement.rows_of(cloud)
    words = search.lower().split()
    if not words:
        return frozenset()
    title = f"{requirement.id} {requirement.title}".lower()
    if all(word in title for word in words):
        return frozenset(row.id for row in rows)
    return frozenset(row.id for row in rows if _fits(row, words))


def _fits(row: Row, words: list[str]) -> bool:
    text = " ".join((row.id, *row.destinations, row.purpose, *map(str, row.ports))).lower()
    if all(word in text for word in words):
        return True
    return len(words) == 1 and any(_means(template, words[0]) for template in row.names)


def _means(template: str, name: str) -> bool:
    return bool("." in name and expression(template).fullmatch(name.rstrip(".")))


def _items(
    requirements: Collection[Requirement],
    cloud: str,
    included: Collection[str],
    found: Mapping[str, Collection[str]] | None,
) -> tuple[Item, ...]:
    """The list; with a search only what was found."""
    items = []
    for one in requirements:
        rows = one.rows_of(cloud)
        hits = len(found[one.id]) if found is not None else 0
        if rows and (found is None or hits):
            items.append(Item(one, one.id in included, len(rows), hits))
    return tuple(items)


def _chosen(
    requirement: Requirement,
    cloud: str,
    included: Collection[str],
    rules: Mapping[str, tuple[str, ...]],
    found: Collection[str],
) -> Chosen:
    rows = requirement.rows_of(cloud)
    sources = tuple(dict.fromkeys((row.document, row.section) for row in rows))
    numbers = {source: number for number, source in enumerate(sources, start=1)}
    return Chosen(
        requirement=requirement,
        is_included=requirement.id in included,
        rows=tuple(
            RowView(
                line=Line.of_row(row),
                source=numbers[row.document, row.section],
                rules=rules.get(row.id, ()),
                is_found=row.id in found,
            )
            for row in rows
        ),
        sources=sources,
        choices=tuple(_choices(requirement, cloud)),
        yaml=_yaml(requirement, cloud),
        absent="" if rows else requirement.absent.get(cloud, f"{cloud} does not have it."),
    )


def _choices(requirement: Requirement, cloud: str) -> list[Choice]:
    choices = [
        Choice(f"via: {via}", about, "default" if via == requirement.default_via else "")
        for via, about in requirement.vias.items()
    ]
    for name in parameters_of(requirement, cloud):
        parameter = PARAMETERS[name]
        is_said = parameter.default not in (None, False)
        default = f"default {parameter.default}" if is_said else ""
        choices.append(Choice(f"{name}: {parameter.example}", parameter.about, default))
    return choices


def _yaml(requirement: Requirement, cloud: str) -> str:
    """How a policy lists it: what must be said, with the catalog's examples."""
    via = requirement.default_via or _example_via(requirement, cloud)
    said = [f"via: {via}"] if via != requirement.default_via else []
    said += [f"{name}: {PARAMETERS[name].example}" for name in _wanted(requirement, cloud, via)]
    options = f": {{{', '.join(said)}}}" if said else ""
    return f"requirements:\n  - {requirement.id}{options}\n"


def _example_via(requirement: Requirement, cloud: str) -> str | None:
    """Of alternatives without a default the first that needs no service tag file."""
    tagged = {row.via for row in requirement.rows_of(cloud) if row.tags}
    return next((via for via in requirement.vias if via not in tagged), None)


def _wanted(requirement: Requirement, cloud: str, via: str | None) -> list[str]:
    """The parameters without a default that the rows of an alternative fill in."""
    wanted: dict[str, None] = {}
    for row in requirement.rows_of(cloud):
        if row.is_note or row.via not in (None, via) or row.when:
            continue
        templates = (*row.names, *row.tags)
        names = [n for t in templates for n in placeholders(t).values()]
        for name in (*names, *filter(None, [row.networks_from])):
            if PARAMETERS[name].default is None:
                wanted[name] = None
    return list(wanted)
