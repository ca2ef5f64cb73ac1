"""What a name pattern means; every reader (matcher, explain, lint, importers, nft, DNS) asks here.

Three forms:

- ``mcr.microsoft.com``: that name;
- ``*.data.mcr.microsoft.com``: every name below it at any depth, never the apex itself;
- ``md-*.blob.storage.azure.net``: every name that starts with ``md-``, then one or more characters,
  dots included, then ``.blob.storage.azure.net``.

``*`` stands for one or more characters, dots included: Azure Firewall's meaning (firewall-faq, "How
do wildcards work in target FQDNs"). ``*microsoft.com`` is refused because it would also be
``evilmicrosoft.com``; a wildcard directly under an ICANN public suffix is refused because it would
be everybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egressproxy.errors import InvalidNameError, PatternError
from egressproxy.names import DnsName

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_PREFIX = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,62})", re.ASCII)
_FORMS: Final = "an exact name, *.suffix, or prefix*.suffix"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern in normal form.

    ``suffix`` is the exact name, or what follows the wildcard's dot. ``prefix`` is what stands
    before the ``*`` (empty for ``*.suffix``), and ``None`` where the pattern is an exact name.
    """

    suffix: DnsName
    prefix: str | None = None

    @property
    def is_exact(self) -> bool:
        """Whether this is a plain name."""
        return self.prefix is None

    def matches(self, name: str) -> bool:
        """Whether a normal-form name is meant; the reference that the fast matcher is held to."""
        if self.prefix is None:
            return name == self.suffix
        tail = "." + self.suffix
        return (
            name.endswith(tail)
            and name.startswith(self.prefix)
            and len(name) > len(self.prefix) + len(tail)
        )

    def __str__(self) -> str:
        return self.suffix if self.prefix is None else f"{self.prefix}*.{self.suffix}"


def parse_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises:
        PatternError: with a hint that says what to write instead.
    """
    if "*" not in text:
        return Pattern(_name(text, text))
    head, _, tail = text.partition("*")
    if "*" in tail or not tail.startswith(".") or "." in head:
        raise PatternError(f"{text!r} is not one of the three forms", hint=_repair(head, tail))
    suffix = _name(tail[1:], text)
    prefix = head.lower()
    if prefix and not _PREFIX.fullmatch(prefix):
        raise PatternError(f"{text!r}: {head!r} cannot start a host name", hint=f"write {_FORMS}")
    if is_public_suffix(suffix):
        raise PatternError(
            f"{text!r} is a wildcard directly under the public suffix {suffix!r}",
            hint=f"name the organisation: *.example.{suffix}",
        )
    return Pattern(suffix, prefix)


def is_public_suffix(name: str, *, private: bool = False) -> bool:
    """Whether anyone can register names directly below this one (publicsuffix.org).

    Only the ICANN section counts unless ``private`` (which has ``azurewebsites.net``,
    ``blob.core.windows.net`` and other multi-tenant suffixes). An unknown top-level domain, such as
    ``internal``, is nobody's public suffix.
    """
    return _suffix_list(private).publicsuffix(name) == name


def may_be_public_suffix(name: str) -> bool:
    """A quick look that never misses: false only where ``is_public_suffix`` is false.

    It asks whether a rule ends here, has its ``*`` here, or leaves its ``*`` for the first label.
    ``name`` is in normal form and has no A-label: rules of other scripts are not looked at.
    """
    rules = _written_rules()
    parent = name.partition(".")[2]
    return name in rules or f"*.{name}" in rules or f"*.{parent}" in rules


@lru_cache(maxsize=1)
def _written_rules() -> frozenset[str]:
    from publicsuffixlist import PSLFILE

    lines = Path(PSLFILE).read_text("utf-8").split("\n")  # a comment's "//" is no name's harm
    return frozenset(line.split(maxsplit=1)[0] for line in lines if line.strip())


@lru_cache(maxsize=2)
def _suffix_list(private: bool) -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # 10,000 rules, wanted by wildcards only

    return PublicSuffixList(accept_unknown=False, only_icann=not private)


def _name(text: str, whole: str) -> DnsName:
    try:
        return DnsName(text)
    except InvalidNameError as error:
        raise PatternError(f"{whole!r}: {error.message}", hint=error.hint or _FORMS) from error


def _repair(head: str, tail: str) -> str:
    rest = tail.lstrip(".")
    if not rest or "*" in rest:
        return f"write {_FORMS}"
    if head == "" and not tail.startswith("."):
        return f"write *.{rest} (and {rest} for the apex): *{rest} would also match evil{rest}"
    return f"the * stands in the left-most label before a dot: write *.{rest}"
