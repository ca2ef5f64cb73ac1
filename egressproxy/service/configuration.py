"""Where an option's value comes from: the command line, else the environment, else a file.

Every option has one name: ``idle_timeout_s`` is ``--idle-timeout-s``, the variable
``EGRESSPROXY_IDLE_TIMEOUT_S``, and the key ``idle_timeout_s`` of the YAML mapping in ``--config
FILE``. An option that may be repeated is a list in the file and separated by spaces in the
environment. Problems are gathered, not raised, so that a person sees all of them at once. Unknown
variables are left alone (Kubernetes invents ``EGRESSPROXY_PORT`` for a service of that name);
unknown keys of the file are problems.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import yaml

from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from dataclasses import Field
    from pathlib import Path
    from typing import Any

MAX_CONFIG_BYTES: Final = 65536
_T = TypeVar("_T")


@dataclass(slots=True)
class Problems:
    """What is wrong with the options, in the order found."""

    found: list[str] = field(default_factory=list)

    def gather(self, read: Callable[[], _T], otherwise: _T, *, place: str = "") -> _T:
        """What ``read`` gives; an ``EgressproxyError`` that it raises is noted with its place."""
        try:
            return read()
        except EgressproxyError as error:
            self.found.append(f"{place}: {error}" if place else str(error))
            return otherwise

    def raise_all(self) -> None:
        """Raise all of them as one.

        Raises:
            ServiceError: there was a problem.
        """
        if len(self.found) == 1:
            raise ServiceError(self.found[0])
        if self.found:
            lines = "".join(f"\n  {problem}" for problem in self.found)
            raise ServiceError(f"{len(self.found)} options are wrong:{lines}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Raw values by option name; ``flags`` has only what was given."""

    flags: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, str]
    file: Mapping[str, tuple[str, ...]]

    def many(self, name: str) -> tuple[str, ...]:
        """The values of an option that may be repeated."""
        return self._values(name)[0]

    def one(self, name: str, default: str = "") -> str:
        """The value of an option; the last one counts."""
        return (self._values(name, split=False)[0] or (default,))[-1]

    def place(self, name: str) -> str:
        """What a person calls the place a value came from: ``--name``, the variable, the key."""
        return self._values(name)[1]

    def _values(self, name: str, *, split: bool = True) -> tuple[tuple[str, ...], str]:
        if values := self.flags.get(name):
            return values, flag(name)
        variable = ENVIRONMENT_PREFIX + name.upper()
        if text := self.environment.get(variable):
            return tuple(text.split()) if split else (text,), variable
        return self.file.get(name, ()), f"{name} in the config file"


def flag(name: str) -> str:
    """The command line's spelling of an option."""
    return "--" + name.replace("_", "-")


def read_config(
    path: Path, known: Collection[str], problems: Problems
) -> dict[str, tuple[str, ...]]:
    """Read a config file.

    A key that is misspelt is noted and then read as what it was meant for, so that nothing is said
    to be missing that is there.

    Raises:
        ServiceError: it cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise ServiceError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        document = yaml.load(raw, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise ServiceError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ServiceError(f"{path}: cannot be read: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ServiceError(f"{path} is not a mapping", hint="idle_timeout_s: 600")
    values: dict[str, tuple[str, ...]] = {}
    for key, value in document.items():
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) or item is None for item in items):
            problems.found.append(f"{path}: {key} is neither a value nor a list of values")
            items = []
        meant = _meant(str(key), known)
        if meant != key:
            hint = f" (hint: {meant}?)" if meant else ""
            problems.found.append(f"{path}: unknown key {str(key)!r}{hint}")
        if meant == key or (meant and meant not in document):
            values[meant] = tuple(str(item) for item in items)
    return values


def read_settings(sources: Sources, problems: Problems) -> Settings:
    """Every limit from the first source that has it; for a bad one that is noted, its default."""
    values: dict[str, Any] = {}
    for limit in fields(Settings):
        text = sources.one(limit.name)
        if text:
            values[limit.name] = problems.gather(
                partial(_limit, limit, text), limit.default, place=sources.place(limit.name)
            )
    return Settings(**values)


def _limit(limit: Field[Any], text: str) -> float:
    hint = f"{limit.metadata['help']}; {limit.metadata['low']:g} to {limit.metadata['high']:g}"
    is_whole = isinstance(limit.default, int)
    try:
        value = int(text) if is_whole else float(text)
    except ValueError as error:
        kind = "a whole number" if is_whole else "a number"
        raise ServiceError(f"{text!r} is not {kind}", hint=hint) from error
    if not limit.metadata["low"] <= value <= limit.metadata["high"]:
        raise ServiceError(f"{text} is out of range", hint=hint)
    return value


def _meant(key: str, known: Collection[str]) -> str:
    """The option that a key is, or nearly is; an empty text where there is none."""
    if key in known:
        return key
    return next(iter(difflib.get_close_matches(key, known, n=1)), "")
