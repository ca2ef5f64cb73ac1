"""Who is logged in: sessions on the server's side, and the tokens that forms carry (CSRF).

A session is a random id in a cookie; all it stands for is kept here, so that a restart or a logout
ends it for good. Ids are kept as digests. A form carries a token that is made of the cookie and a
key of this process: a page of another origin knows neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SESSIONS: Final = 64
MAX_AGE_S: Final = 12 * 3600
MAX_IDLE_S: Final = 3600
ID_BYTES: Final = 32
ID_CHARACTERS: Final = 43
"""Of ``ID_BYTES`` in base64 without padding."""


class Right(IntEnum):
    """What somebody may do; each includes those before it."""

    NONE = 0
    READ = 1
    CHANGE = 2


@dataclass(slots=True)
class Session:
    """Somebody who has shown a token; times are the clock's seconds."""

    right: Right
    began_at: float
    seen_at: float


@dataclass(slots=True)
class Sessions:
    """All sessions of this process, at most ``MAX_SESSIONS``: the longest unseen makes room."""

    clock: Callable[[], float] = time.monotonic
    _held: OrderedDict[bytes, Session] = field(default_factory=OrderedDict)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def begin(self, right: Right) -> str:
        """A new session; the answer is the cookie's value."""
        now = self.clock()
        self._drop_old(now)
        while len(self._held) >= MAX_SESSIONS:
            self._held.popitem(last=False)
        id_ = new_id()
        self._held[_digest(id_)] = Session(right, now, now)
        return id_

    def find(self, id_: str) -> Session | None:
        """The session of a cookie, if it is one of ours and not over; it has been seen now."""
        if len(id_) != ID_CHARACTERS:
            return None
        now = self.clock()
        self._drop_old(now)
        key = _digest(id_)
        session = self._held.get(key)
        if session is not None:
            session.seen_at = now
            self._held.move_to_end(key)
        return session

    def end(self, id_: str) -> None:
        """Forget a session; of one that is none, nothing."""
        self._held.pop(_digest(id_), None)

    def form_token(self, id_: str) -> str:
        """What a form of this cookie's owner carries."""
        return hmac.new(self._key, id_.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def is_form_token(self, text: str, id_: str) -> bool:
        """Whether a form that came with this cookie is one of ours, in constant time."""
        expected = self.form_token(id_).encode()
        return bool(id_) and hmac.compare_digest(text.encode("utf-8", "replace"), expected)

    def __len__(self) -> int:
        return len(self._held)

    def _drop_old(self, now: float) -> None:
        over = [
            key
            for key, session in self._held.items()
            if now - session.began_at > MAX_AGE_S or now - session.seen_at > MAX_IDLE_S
        ]
        for key in over:
            del self._held[key]


def new_id() -> str:
    """A random value for a cookie."""
    return secrets.token_urlsafe(ID_BYTES)


def _digest(id_: str) -> bytes:
    return hashlib.sha256(id_.encode("utf-8", "replace")).digest()
