"""One name tried: resolved, guarded, connected, and spoken to, each step within its time.

It goes the way of a flow of the engine: our own resolver, the address guard with the deciding
rule's ``addresses``, the mark of upstream sockets. TLS is completed with SNI and a verified
certificate and then left; HTTP gets one HEAD; nothing else is said to a server.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from egressproxy.kernel.sockets import connecting
from egressproxy.policy.verdict import Reason
from egressproxy.ports import Protocol
from egressproxy.resolve.guard import choose
from egressproxy.resolve.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.policy.openings import Opening
    from egressproxy.resolve.guard import Guard
    from egressproxy.resolve.resolver import Resolver
    from egressproxy.settings import Settings

MAX_ADDRESSES: Final = 4
"""Tried for one name, one after the other."""
MAX_STATUS_BYTES: Final = 1024
_HTTP_PORT: Final = 80
_HEAD: Final = (
    "HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: egressproxy-probe\r\n"
    "Accept: */*\r\nConnection: close\r\n\r\n"
)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")
ALPN: Final = ("h2", "http/1.1")


class Step(StrEnum):
    """How far it came: the step that failed, or ``done``."""

    WAIT = "wait"
    """Not begun: the time for all names was over."""
    RESOLVE = "resolve"
    GUARD = "guard"
    """Every address is one that must not be dialled."""
    CONNECT = "connect"
    TLS = "tls"
    CERTIFICATE = "certificate"
    HTTP = "http"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one opening. ``seconds`` is the time of all steps together.

    ``verify_code`` is OpenSSL's (X509_V_ERR_…, openssl-verification-options(1)), 0 where none.
    ``not_after`` and ``issuer`` are the certificate's, as they stand there: a peer's words.
    """

    opening: Opening
    step: Step = Step.WAIT
    error: str = ""
    addresses: tuple[str, ...] = ()
    address: str = ""
    seconds: float = 0.0
    tls_version: str = ""
    alpn: str = ""
    issuer: str = ""
    not_after: str = ""
    verify_code: int = 0
    http_status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What an attempt is made with; ``mark`` is 0 where no mark may be set."""

    resolver: Resolver
    guard: Guard
    trust: ssl.SSLContext = field(repr=False)
    settings: Settings
    mark: int = 0


def trusting(ca_file: str | None = None) -> ssl.SSLContext:
    """Verifies as this machine's clients do, and trusts the CAs of a PEM file beside.

    Raises:
        OSError: the file cannot be read, or holds no certificate (``ssl.SSLError``).
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(list(ALPN))
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def attempt(opening: Opening, means: Means) -> Attempt:
    """Try one opening; whatever happens on the way is in the result."""
    started = time.monotonic()
    result = await _attempt(Attempt(opening=opening), means)
    return replace(result, seconds=time.monotonic() - started)


async def _attempt(result: Attempt, means: Means) -> Attempt:
    opening = result.opening
    answer = await look_up(means.resolver, opening.name)
    if answer.error:
        return replace(result, step=Step.RESOLVE, error=str(answer.error))
    rule = opening.rule
    choice = choose(
        answer.addresses, None, rule.destination, guard=means.guard, allowed=rule.addresses
    )
    result = replace(result, addresses=answer.addresses)
    if choice.reason is not None:
        return replace(result, step=Step.GUARD, error=str(Reason.FORBIDDEN_ADDRESS))
    if opening.protocol is Protocol.UDP:
        return replace(result, step=Step.DONE, address=choice.candidates[0])
    sock, address, error = await _connect(choice.candidates, opening.port, means)
    if sock is None:
        return replace(result, step=Step.CONNECT, address=address, error=error)
    result = replace(result, address=address)
    match opening.protocol:
        case Protocol.TLS:
            return await _handshake(sock, result, means)
        case Protocol.HTTP:
            return await _head(sock, result, means.settings.hello_timeout_s)
        case _:
            sock.close()
            return replace(result, step=Step.DONE)


async def _connect(
    candidates: Sequence[str], port: int, means: Means
) -> tuple[socket.socket | None, str, str]:
    """A connected socket, the address that was tried last, and why there is no socket."""
    loop = asyncio.get_running_loop()
    address = error = ""
    for address in candidates[:MAX_ADDRESSES]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(fileno=connecting(family, means.mark).detach())
        except OSError as problem:
            return None, address, _words(problem)
        try:
            async with asyncio.timeout(means.settings.dial_timeout_s):
                await loop.sock_connect(sock, (address, port))
        except TimeoutError:
            error = "timeout"
        except OSError as problem:
            error = _words(problem)
        except BaseException:
            sock.close()
            raise
        else:
            return sock, address, ""
        sock.close()
    return None, address, error


async def _handshake(sock: socket.socket, result: Attempt, means: Means) -> Attempt:
    try:
        _, writer = await asyncio.open_connection(
            sock=sock,
            ssl=means.trust,
            server_hostname=result.opening.name,
            ssl_handshake_timeout=means.settings.hello_timeout_s,
        )
    except ssl.SSLCertVerificationError as error:
        return replace(
            result,
            step=Step.CERTIFICATE,
            error=error.verify_message,
            verify_code=error.verify_code,
        )
    except (ConnectionAbortedError, TimeoutError):  # asyncio's word for a handshake that takes long
        return replace(result, step=Step.TLS, error="timeout")
    except OSError as error:  # ssl.SSLError is one
        return replace(result, step=Step.TLS, error=_words(error))
    try:
        return _verified(result, writer.get_extra_info("ssl_object"))
    finally:
        await _leave(writer)


def _verified(result: Attempt, session: ssl.SSLObject) -> Attempt:
    certificate: dict[str, Any] = session.getpeercert() or {}
    issuer = {key: value for rdn in certificate.get("issuer", ()) for key, value in rdn}
    return replace(
        result,
        step=Step.DONE,
        tls_version=session.version() or "",
        alpn=session.selected_alpn_protocol() or "",
        issuer=str(issuer.get("organizationName") or issuer.get("commonName") or ""),
        not_after=str(certificate.get("notAfter", "")),
    )


async def _head(sock: socket.socket, result: Attempt, timeout_s: float) -> Attempt:
    opening = result.opening
    host = opening.name if opening.port == _HTTP_PORT else f"{opening.name}:{opening.port}"
    reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_STATUS_BYTES)
    try:
        writer.write(_HEAD.format(host=host).encode())
        async with asyncio.timeout(timeout_s):
            line = await reader.readline()
    except TimeoutError:
        return replace(result, step=Step.HTTP, error="timeout")
    except OSError as error:
        return replace(result, step=Step.HTTP, error=_words(error))
    except ValueError:  # a line without end
        line = b""
    finally:
        await _leave(writer)
    found = _STATUS.match(line)
    if not found:
        return replace(result, step=Step.HTTP, error="no HTTP answer")
    return replace(result, step=Step.DONE, http_status=int(found[1]))


async def _leave(writer: asyncio.StreamWriter) -> None:
    """Close without a word; the transport lets go of its socket in the loop's next turn."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if error.errno is not None and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()  # asyncio adds the address to the error's own
    return (str(error) or type(error).__name__).lower()
