"""Real TLS clients with one face: ``fetch`` a URL over a chosen family and say what came of it."""

from __future__ import annotations

import base64
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lab import sites
from lab.namespaces import run
from lab.programs import Finished, client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.network import Network

CHROMIUM: Final = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


_BUILD_TIMEOUT_S: Final = 240.0
"""Go compiles its standard library when it is asked for the first time."""


class Kind(StrEnum):
    """A client program."""

    CURL = "curl"
    OPENSSL = "openssl"
    GNUTLS = "gnutls-cli"
    GO = "go"
    JAVA = "java"
    NODE = "node"
    CHROMIUM = "chromium"


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one lab; ``built`` holds the compiled ones."""

    lab: Network
    sources: Path
    built: Path

    def fetch(
        self,
        kind: Kind,
        url: str,
        *,
        family: int = 4,
        environment: Mapping[str, str] | None = None,
    ) -> Finished:
        """GET a URL from the spoke with one of the clients; ``environment`` is for Go.

        The output holds the page where all went well, and the client's own words where not.
        """
        match kind:
            case Kind.CURL:
                return self._run("curl", "-sS", "--max-time", "15", f"-{family}", url)
            case Kind.OPENSSL:
                return self._openssl(url, family)
            case Kind.GNUTLS:
                return self._gnutls(url, family)
            case Kind.GO:
                return self._run(str(self._go()), f"-{family}", url, environment=environment)
            case Kind.JAVA:
                return self._java(url, family)
            case Kind.NODE:
                return self._run("node", str(self.sources / "fetch.mjs"), str(family), url)
            case Kind.CHROMIUM:
                return self._chromium(url, family)

    def go_version(self) -> tuple[int, int]:
        """The Go toolchain's version; from 1.24 on its hello carries X25519MLKEM768."""
        number = run("go", "env", "GOVERSION").strip().removeprefix("go").split(".")
        return int(number[0]), int(number[1])

    def _run(
        self,
        *argv: str,
        stdin: str = "",
        timeout_s: float = 25.0,
        environment: Mapping[str, str] | None = None,
    ) -> Finished:
        return client(
            self.lab.net.spoke,
            *argv,
            stdin=stdin,
            environment={**self.lab.trust, **(environment or {})},
            timeout_s=timeout_s,
        )

    def _openssl(self, url: str, family: int) -> Finished:
        host, port, request = _plain(url)
        connect = ("-connect", f"{host}:{port}", "-servername", host, f"-{family}")
        check = ("-CAfile", str(self.lab.authority.ca_file), "-verify_return_error")
        return self._run("openssl", "s_client", "-ign_eof", *connect, *check, stdin=request)

    def _gnutls(self, url: str, family: int) -> Finished:
        host, port, request = _plain(url)
        address = sites.addresses_of(host)[0 if family == 4 else 1]
        names = ("--sni-hostname", host, "--verify-hostname", host)
        trust = ("--x509cafile", str(self.lab.authority.ca_file))
        return self._run("gnutls-cli", *trust, *names, "-p", str(port), address, stdin=request)

    def _go(self) -> Path:
        program = self.built / "fetch"
        if not program.exists():
            build = ("go", "build", "-o", str(program), str(self.sources / "fetch.go"))
            run(*build, timeout_s=_BUILD_TIMEOUT_S)
        return program

    def _java(self, url: str, family: int) -> Finished:
        if not (self.built / "Fetch.class").exists():
            build = ("javac", "-d", str(self.built), str(self.sources / "Fetch.java"))
            run(*build, timeout_s=_BUILD_TIMEOUT_S)
        stack = "preferIPv4Stack" if family == 4 else "preferIPv6Addresses"
        options = (f"-Djava.net.{stack}=true", "-cp", str(self.built))
        return self._run("java", *options, "Fetch", str(self.lab.authority.ca_file), url)

    def _chromium(self, url: str, family: int) -> Finished:
        host = urlsplit(url).hostname or ""
        address = sites.addresses_of(host)[0 if family == 4 else 1]
        mapped = f"MAP {host} {f'[{address}]' if ':' in address else address}"
        profile = tempfile.mkdtemp(dir=self.built)
        try:
            return self._run(
                *CHROMIUM,
                f"--user-data-dir={profile}",
                f"--ignore-certificate-errors-spki-list={self._ca_key_hash()}",
                f"--host-resolver-rules={mapped}",
                "--dump-dom",
                url,
                timeout_s=40.0,
            )
        finally:
            shutil.rmtree(profile, ignore_errors=True)

    def _ca_key_hash(self) -> str:
        ca = x509.load_pem_x509_certificate(self.lab.authority.ca_file.read_bytes())
        key = ca.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(key)
        return base64.b64encode(digest.finalize()).decode()


def _plain(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    return host, parts.port or 443, request
