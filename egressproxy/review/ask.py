"""Filters as people write them, the same on a command line and in a URL: texts in, texts out.

``since=24h``, ``from=10.240.0.0/16``, ``name=*.azure.com``, ``reason=no_sni``, ``class=near-miss``
and so on, each as often as wanted; commas part several in one text, except in rules. Times are
spans back from now (``15m``, ``24h``, ``7d``), UTC days or moments in ISO 8601. Texts come from
URLs: lengths and counts are bounded, and what cannot be read is a ``FilterProblem``, never an
exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

from egressproxy.errors import AddressError, InvalidNameError, nearest
from egressproxy.names import DnsName, is_ip_literal
from egressproxy.observe.record import Plane
from egressproxy.policy.networks import looks_like_address, parse_network
from egressproxy.policy.verdict import Reason
from egressproxy.ports import MAX_PORT
from egressproxy.review.model import Class, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from enum import StrEnum

    from egressproxy.policy.networks import Network

KEYS: Final = (
    "since",
    "until",
    "action",
    "from",
    "name",
    "reason",
    "rule",
    "port",
    "plane",
    "class",
    "gateway",
)
"""What a filter is made of, in the order of ``query_of``; other keys are not ours."""
DEFAULT_SINCE: Final = "24h"
"""What a question without a time means, on a command line and on a page."""
MAX_TEXTS: Final = 64
"""Conditions of one kind; more would be a statement that no database likes."""
MAX_TEXT: Final = 256
"""Characters of one condition: what a record keeps of a name."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_WRITTEN: Final = (("d", 1440), ("h", 60), ("m", 1))
_SPAN: Final = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_GROUP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_ACTIONS: Final[dict[str, bool | None]] = {"deny": True, "allow": False, "any": None}
_TIME_HINT: Final = "15m, 24h, 7d, today, 2026-12-31 or 2026-12-31T08:00Z"
_SLACK_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class FilterProblem:
    """One condition that cannot be read; ``key`` is one of ``KEYS``, ``text`` as it was given."""

    key: str
    text: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.what}" + (f" (hint: {self.hint})" if self.hint else "")


class _RefusedError(Exception):
    """A condition that cannot be read: what is wrong, and what to write."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def read_filter(
    texts: Mapping[str, Sequence[str]], now: float
) -> tuple[Filter, tuple[FilterProblem, ...]]:
    """The filter that texts mean, and every problem; what cannot be read is no condition.

    Args:
        texts: by key, as ``urllib.parse.parse_qs`` gives them; blank texts count as absent, unknown
            keys are left alone.
        now: POSIX seconds, from which spans count back.
    """
    reading = _Reading(texts)
    sources = reading.all("from", _source)
    where = Filter(
        since=reading.one("since", lambda text: _moment(text, now), None),
        until=reading.one("until", lambda text: _moment(text, now, is_end=True), None),
        is_denied=reading.one("action", _action, _ACTIONS["deny"]),
        sources=tuple(one for one in sources if not isinstance(one, str)),
        source_groups=tuple(one for one in sources if isinstance(one, str)),
        names=reading.all("name", _name),
        reasons=reading.all("reason", lambda text: _of(text, Reason, "reason")),
        rules=reading.all("rule", str, has_commas=True),
        ports=reading.all("port", _port),
        planes=reading.all("plane", lambda text: _of(text, Plane, "plane")),
        gateways=reading.all("gateway", str),
        classes=reading.all("class", _class),
    )
    problem = _wrong_order(where, texts, now)
    if problem is not None:
        reading.problems.append(problem)
        where = replace(where, since=None, until=None)
    return where, tuple(reading.problems)


def query_of(where: Filter, *, now: float | None = None) -> str:
    """A filter as the query of a URL, without ``?``; what is not asked for is left out.

    With ``now``, a ``since`` or ``until`` that is whole minutes back is written as a span
    (``since=24h``), so that the link means the same tomorrow.
    """
    return urlencode([(key, text) for key, texts in texts_of(where, now=now) for text in texts])


def texts_of(where: Filter, *, now: float | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each key of a filter that says something, with its texts; the inverse of ``read_filter``."""
    action = next(word for word, is_denied in _ACTIONS.items() if is_denied is where.is_denied)
    pairs: tuple[tuple[str, Iterable[str]], ...] = (
        ("since", () if where.since is None else [_time_text(where.since, now)]),
        ("until", () if where.until is None else [_time_text(where.until, now)]),
        ("action", () if action == "deny" else [action]),
        ("from", (*map(_network_text, where.sources), *where.source_groups)),
        ("name", where.names),
        ("reason", where.reasons),
        ("rule", where.rules),
        ("port", map(str, where.ports)),
        ("plane", where.planes),
        ("class", map(class_text, where.classes)),
        ("gateway", where.gateways),
    )
    for key, texts in pairs:
        if found := tuple(texts):
            yield key, found


def describe(where: Filter, now: float) -> str:
    """A filter in words, for a heading: ``last 24 h, from 10.240.0.0/16, name *.azure.com``."""
    said = [_span_in_words(where, now)]
    for key, texts in texts_of(where):
        if key not in ("since", "until", "action"):
            said.append(f"{key} {' or '.join(texts)}")
    return ", ".join(said)


def class_text(kind: Class) -> str:
    """A class in one word, as in URLs and options: ``missing-requirement``."""
    return kind.replace(" ", "-")


# Reading

T = TypeVar("T")


@dataclass(slots=True)
class _Reading:
    """Texts being read; ``problems`` grows with what cannot be."""

    texts: Mapping[str, Sequence[str]]
    problems: list[FilterProblem] = field(default_factory=list)

    def all(self, key: str, read: Callable[[str], T], *, has_commas: bool = False) -> tuple[T, ...]:
        """Each condition of a key, once, in order."""
        found: dict[T, None] = {}
        for text in self._conditions(key, has_commas=has_commas):
            try:
                found[read(_bounded(text))] = None
            except _RefusedError as refused:
                self.problems.append(FilterProblem(key, _shown(text), refused.what, refused.hint))
        return tuple(found)

    def one(self, key: str, read: Callable[[str], T], default: T) -> T:
        """The condition of a key that can be given once: of several the last, as in a command."""
        found = self.all(key, read, has_commas=True)
        return found[-1] if found else default

    def _conditions(self, key: str, *, has_commas: bool) -> list[str]:
        given = self.texts.get(key, ())
        parts = [part for text in given for part in ([text] if has_commas else text.split(","))]
        conditions = [part.strip() for part in parts if part.strip()]
        if len(conditions) > MAX_TEXTS:
            what = f"{len(conditions):,} conditions, {MAX_TEXTS} are allowed"
            self.problems.append(FilterProblem(key, "", what, "use * or a range"))
        return conditions[:MAX_TEXTS]


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise _RefusedError(f"{len(text):,} characters, {MAX_TEXT} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _RefusedError(f"{text!r} is not Unicode text") from None
    if "\0" in text:  # PostgreSQL has no such text
        raise _RefusedError(f"{text!r} has a NUL")
    return text


def _shown(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _moment(text: str, now: float, *, is_end: bool = False) -> float:
    """POSIX seconds to the millisecond; a day as an end is over when the day is."""
    if span := _SPAN.fullmatch(text):
        return max(round(now - int(span[1]) * _UNITS[span[2]], 3), 0.0)
    if text == "now":
        return round(now, 3)
    today = datetime.fromtimestamp(now, UTC).date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        if text in days or _DAY.fullmatch(text):
            day = days.get(text) or date.fromisoformat(text)
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=is_end)
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(round(moment.timestamp(), 3), 0.0)
    except (ValueError, OverflowError):
        raise _RefusedError(f"{text!r} is no time", f"write {_TIME_HINT}") from None


def _action(text: str) -> bool | None:
    if text not in _ACTIONS:
        raise _RefusedError(f"{text!r} is no action", f"one of {', '.join(_ACTIONS)}")
    return _ACTIONS[text]


def _source(text: str) -> Network | str:
    """An address, a range, or the name of a source group."""
    if not looks_like_address(text) and _GROUP.fullmatch(text):
        return text
    try:
        return parse_network(text.strip("[]"))
    except AddressError as error:
        raise _RefusedError(error.message, error.hint) from None


def _name(text: str) -> str:
    """A name in normal form, an address, a text with ``*``, or what a client gave for a name."""
    if "://" in text:
        raise _RefusedError(f"{text!r} is not a name", "the host alone, without scheme and path")
    if is_ip_literal(text):
        return str(ip_address(text.strip("[]").partition("%")[0]))
    if "*" in text:
        return text.lower()
    try:
        return str(DnsName(text))
    except InvalidNameError:
        return text


def _of(text: str, words: type[StrEnum], what: str) -> str:
    known = [str(word) for word in words]
    if text.lower() in known:
        return text.lower()
    near = nearest(text, known) or (f"one of {', '.join(known)}" if len(known) < 10 else "")
    raise _RefusedError(f"{text!r} is no {what}", near)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT:
        return int(text)
    raise _RefusedError(f"{text!r} is no port", f"a number from 0 to {MAX_PORT}")


def _class(text: str) -> Class:
    wanted = text.lower().replace("-", " ").replace("_", " ")
    if wanted in set(Class):
        return Class(wanted)
    known = [class_text(kind) for kind in Class]
    raise _RefusedError(
        f"{text!r} is no class", nearest(text, known) or f"one of {', '.join(known)}"
    )


def _wrong_order(
    where: Filter, texts: Mapping[str, Sequence[str]], now: float
) -> FilterProblem | None:
    """A span that holds no moment."""
    if where.since is None:
        return None
    text = _shown(texts["since"][-1])
    if where.since > now:
        return FilterProblem("since", text, f"{text!r} has not come yet", "times are UTC")
    if where.until is not None and where.since >= where.until:
        return FilterProblem("since", text, f"{text!r} is not before until", f"write {_TIME_HINT}")
    return None


# Writing


def _network_text(network: Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def _time_text(moment: float, now: float | None) -> str:
    """A span back from now where it is whole minutes, else ISO 8601 in UTC."""
    if now is not None:
        back = now - moment
        minutes = round(back / 60)
        if minutes > 0 and abs(back - minutes * 60) < _SLACK_S:
            for unit, length in _WRITTEN:
                number, rest = divmod(minutes, length)
                if not rest and number > (unit == "d"):  # 24h, not 1d
                    return f"{number}{unit}"
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00").removesuffix(".000000").removesuffix(":00") + "Z"


def _span_in_words(where: Filter, now: float) -> str:
    since, until = where.since, where.until
    if since is None and until is None:
        return "all that is kept"
    if since is None:
        return f"until {_day_and_time(until or 0.0)}"
    if until is not None:
        return f"{_day_and_time(since)} to {_day_and_time(until)}"
    text = _time_text(since, now)
    span = _SPAN.fullmatch(text)
    if span is None:
        return f"since {_day_and_time(since)}"
    words = {"m": "min", "h": "h", "d": "days"}
    return f"last {span[1]} {words[span[2]]}"


def _day_and_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
