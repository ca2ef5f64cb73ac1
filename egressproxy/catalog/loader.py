"""Reads the packaged YAML into a ``Catalog``, and refuses what is not exactly right.

``schema`` holds the shape of the files, ``integrity`` what no schema can say. Every mistake of
every file is reported at once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, TypeVar, get_args

import yaml
from pydantic import ValidationError

from egressproxy.catalog.integrity import mistakes
from egressproxy.catalog.model import (
    Catalog,
    Condition,
    Exemption,
    Kind,
    Requirement,
    Row,
)
from egressproxy.catalog.schema import (
    Cloud,
    IndexFile,
    RequirementsFile,
    Strict,
    WrittenRequirement,
    WrittenRow,
)
from egressproxy.errors import CatalogError, ParameterProblem, PortError
from egressproxy.ports import PortSpan, parse_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

INDEX: Final = "index.yaml"

_Model = TypeVar("_Model", bound=Strict)
_Value = TypeVar("_Value")


@cache
def load_catalog() -> Catalog:
    """The packaged catalog, read once.

    Raises:
        CatalogError: the packaged data are broken; a test holds that they are not.
    """
    return read_catalog(files("egressproxy.catalog"))


def read_catalog(folder: Traversable) -> Catalog:
    """The catalog of a folder that has an ``index.yaml``.

    Raises:
        CatalogError: with every mistake of every file.
    """
    index = _read(folder, INDEX, IndexFile)
    problems: list[ParameterProblem] = []
    written: list[WrittenRequirement] = []
    for name in index.files:
        try:
            written += _read(folder, name, RequirementsFile).requirements
        except CatalogError as error:
            problems += error.problems
    spread = _Spread(index.documents)
    for requirement in written:
        spread.add(requirement)
    catalog = Catalog(tuple(spread.requirements.values()))
    found = [*spread.mistakes, *mistakes(catalog)]
    problems += [ParameterProblem("", mistake) for mistake in found]
    if problems:
        raise CatalogError.of("the catalog is broken", tuple(problems))
    return catalog


class _Loader(yaml.CSafeLoader):
    """Refuses a key that is written twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    mapping: dict[object, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} is written twice", key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _read(folder: Traversable, name: str, model: type[_Model]) -> _Model:
    try:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        return model.model_validate(yaml.load(text, Loader=_Loader))  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError) as error:
        raise CatalogError(f"{name}: {error}") from error
    except ValidationError as error:
        problems = tuple(
            ParameterProblem("", f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")
            for wrong in error.errors()
        )
        raise CatalogError.of(name, problems) from error


class _Spread:
    """Spreads written requirements over their clouds; mistakes are collected."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self.documents = documents
        self.requirements: dict[str, Requirement] = {}
        self.mistakes: list[str] = []

    def add(self, written: WrittenRequirement) -> None:
        if written.id in self.requirements:
            self.mistakes.append(f"{written.id} is written twice")
        rows = [row for one in written.rows for row in self._rows(written, one)]
        self.requirements[written.id] = Requirement(
            id=written.id,
            title=written.title,
            rows=(*rows, *self._referred(written)),
            vias=dict(written.via.choices) if written.via else {},
            default_via=written.via.default if written.via else None,
            absent={cloud: written.absent[cloud] for cloud in written.absent},
            warning=written.warning or "",
        )

    def _rows(self, written: WrittenRequirement, one: WrittenRow) -> Iterator[Row]:
        ports = self._ports(written.id, one)
        for cloud in get_args(Cloud):
            if not _is_of(cloud, written, one):
                continue
            yield Row(
                id=f"{written.id}#{one.id}",
                requirement=written.id,
                cloud=cloud,
                ports=ports,
                purpose=one.purpose,
                document=self._document(one.document or written.document),
                section=_of(one.section, cloud) or _of(written.section, cloud) or "",
                kind=Kind(one.kind or written.kind),
                names=tuple(_of(one.names, cloud) or ()),
                tags=tuple(one.tags or ()),
                networks_from=one.networks_from,
                any_destination=bool(one.any_destination),
                group=one.group,
                via=one.via,
                when=tuple(Condition(name, value) for name, value in one.when.items()),
                narrowed_by=one.narrowed_by,
                not_needed=tuple(
                    Exemption(exemption.text, exemption.flag, exemption.since)
                    for exemption in one.not_needed.get(cloud, ())
                ),
                ours=_of(one.ours, cloud),
                since=one.since,
                note=one.note,
                suggested=one.suggested,
                symptom=_of(one.symptom, cloud) or "",
            )

    def _document(self, key: str) -> str:
        if key not in self.documents:
            self.mistakes.append(f"{INDEX} has no document {key!r}")
        return self.documents.get(key, key)

    def _ports(self, requirement_id: str, one: WrittenRow) -> tuple[PortSpan, ...]:
        try:
            return tuple(parse_ports(item) for item in one.ports)
        except PortError as error:
            self.mistakes.append(f"{requirement_id}#{one.id}: {error}")
            return ()

    def _referred(self, written: WrittenRequirement) -> Iterator[Row]:
        if written.refers_to is None:
            return
        other = self.requirements.get(written.refers_to)
        if other is None:
            self.mistakes.append(f"{written.id} refers to {written.refers_to}, not written above")
            return
        for row in other.rows:
            yield replace(
                row,
                id=f"{written.id}#{row.id.partition('#')[2]}",
                requirement=written.id,
                kind=Kind(written.kind),
                section=f"{written.title}, which refers to: {row.section}",
            )


def _of(value: _Value | dict[Cloud, _Value] | None, cloud: Cloud) -> _Value | None:
    """What a value says for one cloud."""
    return value.get(cloud) if isinstance(value, dict) else value


def _is_of(cloud: Cloud, written: WrittenRequirement, one: WrittenRow) -> bool:
    clouds = one.clouds or (list(one.names) if isinstance(one.names, dict) else written.clouds)
    return clouds is None or cloud in clouds
