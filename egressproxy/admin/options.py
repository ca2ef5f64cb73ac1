"""Where the admin listener listens and who may ask it; a dangerous choice is refused here."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from egressproxy.errors import ServiceError
from egressproxy.service.options import Endpoint, parse_endpoint

MIN_TOKEN_CHARACTERS: Final = 16
MAX_TOKEN_CHARACTERS: Final = 4096
_ALPHABET: Final = frozenset(string.ascii_letters + string.digits + "-._~+/=")


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """The admin listener: a TCP endpoint, or the path of a unix socket (mode 0600).

    ``token`` is the bearer token that every page but the health pages wants, ``read_token`` one
    that changes nothing; empty for none.
    """

    place: Endpoint | Path
    token: str = ""
    read_token: str = ""

    @property
    def has_tokens(self) -> bool:
        """Whether a token is wanted at all; with a read token alone nobody changes anything."""
        return bool(self.token or self.read_token)

    @property
    def checks_host(self) -> bool:
        """Whether a request must name this machine (against DNS rebinding of browsers on it)."""
        return isinstance(self.place, Endpoint) and self.place.is_loopback

    def __str__(self) -> str:
        return f"unix:{self.place}" if isinstance(self.place, Path) else f"http://{self.place}"


def admin_options(place: str, token: str, read_token: str = "") -> AdminOptions | None:
    """Read ``--admin``: ADDR:PORT, ``unix:PATH`` or ``none``.

    Raises:
        ServiceError: not such a place, a public address without a token, or one token for both.
    """
    if place == "none":
        return None
    if token and token == read_token:
        raise ServiceError(
            "the token that reads is the one that may change everything",
            hint="another token in the file of --admin-read-token-file",
        )
    if place.startswith("unix:"):
        return AdminOptions(Path(place.removeprefix("unix:")), token, read_token)
    endpoint = parse_endpoint(place)
    if not endpoint.is_loopback and not token and not read_token:
        raise ServiceError(
            f"the admin listener on {endpoint} can be reached from outside without a token",
            hint="add --admin-token-file FILE, or listen on 127.0.0.1",
        )
    return AdminOptions(endpoint, token, read_token)


def read_token(path: Path) -> str:
    """The bearer token in a file: its one line (RFC 6750 section 2.1).

    Raises:
        ServiceError: no such file, or its line is no token worth the name.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_CHARACTERS + 2).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(
            f"the admin token cannot be read: {error}", hint="a file of one line, readable to us"
        ) from error
    if not MIN_TOKEN_CHARACTERS <= len(text) <= MAX_TOKEN_CHARACTERS or set(text) - _ALPHABET:
        raise ServiceError(
            f"{path} holds no token: one line of at least {MIN_TOKEN_CHARACTERS} characters",
            hint="head -c 32 /dev/urandom | base64 > FILE",
        )
    return text
