"""The lab's certificate authority: a throw-away CA that certifies any name it is asked for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CA_FILE: Final = "ca.pem"
_CA_KEY_FILE: Final = "ca-key.pem"
_LIFETIME: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA in a folder: ``ca.pem`` for the clients to trust, its key, and what it issued."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def ca_file(self) -> Path:
        """The PEM file that clients trust."""
        return self.directory / CA_FILE

    def issue(self, names: Sequence[str], *, stem: str, client: bool = False) -> Path:
        """Certify host names and addresses; returns the PEM file with key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = _builder(names[0][:64], self.certificate.subject, key.public_key())
        certificate = (
            builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        path = self.directory / f"{stem}.pem"
        # The CA goes along in the chain: Chromium is told to trust it by its key.
        chain = [certificate, self.certificate]
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
        path.write_bytes(_key_pem(key) + pem)
        return path


def create_authority(directory: Path) -> Authority:
    """Make a new CA in an existing folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("egressproxy lab CA")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder("egressproxy lab CA", subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / CA_FILE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / _CA_KEY_FILE).write_bytes(_key_pem(key))
    return Authority(directory, certificate, key)


def load_authority(directory: Path) -> Authority:
    """The CA that ``create_authority`` made there."""
    certificate = x509.load_pem_x509_certificate((directory / CA_FILE).read_bytes())
    key = serialization.load_pem_private_key((directory / _CA_KEY_FILE).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - our own file
    return Authority(directory, certificate, key)


def _builder(
    common_name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
