"""``DnsName``: the one normal form of a host name, and its only constructor.

A ``DnsName`` is what policy, wire and resolver compare: lower-case A-labels (RFC 5890), no trailing
dot. Text with other than ASCII letters is converted by IDNA 2008 (RFC 5891), so that a homoglyph is
an ``xn--`` label to everyone and never equals the name it imitates.

Deviations, each on purpose: underscores are allowed anywhere (``_dmarc``, names in the wild);
``--`` in positions three and four is allowed (``r3---sn-x.example``); an ``xn--`` label that
arrives from the wire must decode to something that needs it, but is not held to IDNA 2008's code
point tables, because names are compared as A-labels and never shown decoded.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import idna

from egressproxy.errors import InvalidNameError

MAX_NAME_OCTETS: Final = 253  # RFC 1035 section 2.3.4: 255 on the wire, less length and root octets
MAX_LABEL_OCTETS: Final = 63

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\Z", re.ASCII)


class DnsName(str):
    """A valid host name in normal form; ``DnsName(text)`` normalises or raises.

    Args:
        text: a name as a person, a file or the wire gives it. Bytes must be ASCII.

    Raises:
        InvalidNameError: not a host name; ``code == "ip_literal"`` where it is an address, or ends
            in a number and so would be read as one (WHATWG URL, "ends in a number").
    """

    __slots__ = ()

    def __new__(cls, text: str | bytes) -> DnsName:
        """Normalise or raise; a ``DnsName`` is returned as it is."""
        if type(text) is cls:
            return text
        return str.__new__(cls, _normal_form(text))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels from left to right; at least one."""
        return tuple(self.split("."))


def is_ip_literal(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address, brackets and zone allowed."""
    try:
        ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def _normal_form(text: str | bytes) -> str:
    if isinstance(text, bytes):
        try:
            text = text.decode("ascii")
        except UnicodeDecodeError as error:
            raise InvalidNameError(
                "a name on the wire has bytes outside ASCII",
                hint="clients send A-labels (xn--…), RFC 6066 section 3",
            ) from error
    if len(text) > 4 * MAX_NAME_OCTETS:
        raise InvalidNameError(f"a name of {len(text)} characters, {MAX_NAME_OCTETS} are allowed")
    name = text.lower() if text.isascii() else _to_ascii(text)
    if name.endswith("."):
        name = name[:-1]
    if len(name) > MAX_NAME_OCTETS or not _NAME.fullmatch(name):
        raise _explain(text, name)
    if _ENDS_IN_NUMBER.search(name):
        raise _ip_literal(text)
    if "xn--" in name:
        _check_a_labels(name)
    return name


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, std3_rules=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidNameError(
            f"{text!r} is not a name by IDNA 2008: {error}", hint="write the A-label (xn--…)"
        ) from error


def _check_a_labels(name: str) -> None:
    for label in name.split("."):
        if not label.startswith("xn--"):
            continue
        try:
            decoded = label[4:].encode("ascii").decode("punycode")
        except (UnicodeError, IndexError) as error:
            raise InvalidNameError(f"{label!r} is not punycode (RFC 3492)") from error
        if not decoded or decoded.isascii():
            raise InvalidNameError(
                f"{label!r} is a fake A-label: it decodes to plain ASCII", hint="write it plainly"
            )


def _ip_literal(text: str) -> InvalidNameError:
    return InvalidNameError(
        f"{text!r} is an address, not a name", hint="give a host name", code="ip_literal"
    )


def _explain(text: str, name: str) -> InvalidNameError:
    if is_ip_literal(text):
        return _ip_literal(text)
    if len(name) > MAX_NAME_OCTETS:
        return InvalidNameError(f"a name of {len(name)} octets, {MAX_NAME_OCTETS} are allowed")
    if not name:
        return InvalidNameError("an empty name")
    for label in name.split("."):
        if not label:
            return InvalidNameError(f"{text!r} has an empty label")
        if len(label) > MAX_LABEL_OCTETS:
            return InvalidNameError(
                f"a label of {len(label)} octets, {MAX_LABEL_OCTETS} are allowed"
            )
    return InvalidNameError(
        f"{text!r} is not a host name",
        hint="letters, digits, hyphens inside a label, underscores, and dots between labels",
    )
