"""Templates to pages: jinja2 with everything escaped, and how pages write what they show.

Names, ALPN and addresses were chosen by clients: ``peer`` shows characters that do not show
themselves (controls, direction marks, line ends) as escapes (``u202e``), and keeps right-to-left
text from turning what stands around it.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from egressproxy.admin.static_files import address_of
from egressproxy.review.ask import class_text
from egressproxy.review.model import Class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_SHOWN: Final = 256
"""Characters of a peer's text that are shown; what is longer ends in ``…``."""
MAX_UNBROKEN: Final = 20
"""Characters that stay on one line; every IPv4 address is shorter."""
_BREAKABLE: Final = re.compile(r"[^.]{0,23}\.|[^.]{1,24}")
_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"))
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def render(template: str, context: Mapping[str, object]) -> str:
    """A page's text; reads files the first time, so call it in a thread.

    Raises:
        UndefinedError: the template wants what the context lacks.
    """
    return _ENVIRONMENT.get_template(template).render(context)


def visible(text: object, limit: int = MAX_SHOWN) -> str:
    """A text with every character that does not show itself written as an escape."""
    whole = str(text)
    shown = whole[:limit] + ("…" if len(whole) > limit else "")
    if shown.isprintable():
        return shown
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown
    )


def peer(text: object, *, empty: str = "none") -> Markup:
    """A peer's text, told apart from our own and kept from turning the line's direction.

    A long one may break after dots, and where it goes on without any.
    """
    if text is None or text == "":
        return Markup('<span class="none">{}</span>').format(empty)
    shown = visible(text)
    pieces = [shown] if len(shown) <= MAX_UNBROKEN else _BREAKABLE.findall(shown)
    return Markup('<bdi class="peer">{}</bdi>').format(Markup("<wbr>").join(pieces))


def number(value: float) -> str:
    """Whole numbers with thousands parted: ``1,204``."""
    return f"{value:,.0f}"


def short_number(value: float) -> str:
    """For tight places: ``999``, ``1.2k``, ``34k``, ``5.6M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            part = value / size
            return f"{part:.1f}{unit}" if part < 10 else f"{part:.0f}{unit}"
    return f"{value:.0f}"


def octets(value: float) -> str:
    """Bytes as people read them: ``17.4 MiB``."""
    step = 0
    while value >= 1024 and step < len(_BINARY) - 1:
        value /= 1024
        step += 1
    return (
        f"{value:.0f} {_BINARY[step]}"
        if step == 0 or value >= 100
        else (f"{value:.1f} {_BINARY[step]}")
    )


def span(seconds: float) -> str:
    """A length of time in its two largest units: ``3 d 4 h``, ``12 min``, ``7 s``."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    parts = []
    for size, unit in _STEPS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2])


def clock(seconds: float) -> Markup:
    """A moment in UTC: ``2026-11-22 08:15:02``, where there is little room ``08:15:02``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return Markup(
        '<time datetime="{}" title="{} UTC"><span class="wide">{} </span>{}</time>'
    ).format(
        moment.isoformat(timespec="seconds"),
        moment_text(seconds),
        f"{moment:%Y-%m-%d}",
        f"{moment:%H:%M:%S}",
    )


def moment_text(seconds: float) -> str:
    """A moment in UTC as plain text: ``2026-11-22 08:15:02``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def short_clock(seconds: float) -> str:
    """A moment in UTC to the minute, as plain text: ``22 Nov 08:15``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %H:%M}"


def iso(seconds: float) -> str:
    """A moment in UTC as filters take it: ``2026-11-22T08:15Z``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%MZ}"


def ago(seconds: float) -> Markup:
    """A moment as its distance from now, the moment itself on pointing at it."""
    distance = time.time() - seconds
    text = "now" if distance < 1 else f"{span(distance)} ago"
    moment = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment_text(seconds), text
    )


def link(path: str, **query: object) -> str:
    """A path with its query, properly quoted; ``None`` is left out, a sequence is repeated."""
    given = {key.rstrip("_"): value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("egressproxy.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Callable[..., Any]] = {
        "ago": ago,
        "class_text": class_text,
        "clock": clock,
        "iso": iso,
        "moment": moment_text,
        "number": number,
        "octets": octets,
        "peer": peer,
        "short_clock": short_clock,
        "short_number": short_number,
        "span": span,
        "visible": visible,
    }
    made.filters.update(filters)
    made.globals.update(
        link=link,
        static=address_of,
        kind_names={class_text(kind): str(kind) for kind in Class},
    )
    return made


_ENVIRONMENT: Final = _environment()
