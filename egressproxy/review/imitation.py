"""Names that imitate those of the catalog: ``mcr.rnicrosoft.com``, ``microsoft.com.evil.example``.

Whoever may send traffic chooses what is denied, and what is denied becomes suggestions. A name that
a tired reader takes for one of Microsoft's is none to suggest, whether the policy has that one or
not. There are three ways: a documented domain in front of another one, a domain that reads like a
documented one (``policy.lookalike``; hyphens count as dots), and one letter wrong, missing or too
many.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.catalog.loader import load_catalog
from egressproxy.patterns import is_public_suffix
from egressproxy.policy.lookalike import skeleton

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MIN_SPELT: Final = 6
"""Characters of a domain's own label; one wrong letter in fewer is another domain."""


class _Documented(NamedTuple):
    """Domains of all rows; and each by what it reads like, and by what it is spelt like."""

    domains: frozenset[str]
    alike: Mapping[str, str]
    spelt: Mapping[str, str]


def imitated(name: str) -> str:
    """The documented domain that a name passes itself off as, or an empty text.

    ``name`` is in normal form; below a documented domain, of whichever cloud, nothing imitates.
    """
    found = _documented()
    domain = _domain(name)
    if not domain or domain in found.domains:
        return ""
    inside = f".{name}"
    for each in found.domains:
        if f".{each}." in inside:
            return each
    for text in (domain, domain.replace("-", ".")):
        if read := found.alike.get(skeleton(_domain(text))):
            return read
    if len(domain.partition(".")[0]) < _MIN_SPELT:
        return ""
    return next((found.spelt[text] for text in _spellings(domain) if text in found.spelt), "")


@cache
def _documented() -> _Documented:
    names = (
        name
        for requirement in load_catalog().requirements
        for row in requirement.rows
        for name in row.names
    )
    found = {_domain(name) for name in names}
    # Anybody has a name below github.io: what is in front of it there is no claim.
    domains = sorted(each for each in found if each and not is_public_suffix(each, private=True))
    spelt = (each for each in domains if len(each.partition(".")[0]) >= _MIN_SPELT)
    return _Documented(
        domains=frozenset(domains),
        alike={skeleton(each): each for each in domains},
        spelt={text: each for each in spelt for text in _spellings(each)},
    )


def _domain(name: str) -> str:
    """The last two labels, which is what somebody registers below the catalog's own suffixes."""
    return ".".join(name.split(".")[-2:]) if "." in name else ""


def _spellings(domain: str) -> Iterator[str]:
    """Texts that two domains share where one letter is all that they differ in."""
    yield domain
    for place in range(len(domain)):
        yield domain[:place] + domain[place + 1 :]
