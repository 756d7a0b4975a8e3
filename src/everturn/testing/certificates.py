"""TLS on loopback: an authority that nobody trusts yet, and a certificate that it has signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM.

    Attributes:
        authority: The certificate of the authority to trust.
        server: The server's certificate.
        key: The server's key.
    """

    authority: Path
    server: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, hosts: Sequence[str]) -> Self:
        """Make an authority, and a certificate by it that lasts for a day.

        Args:
            folder: Where the files go.
            hosts: The server's names, which may have a `*`, or its addresses.
        """
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        made = cls(folder / "authority.pem", folder / "server.pem", folder / "key.pem")
        keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in (made.authority, made.server)}
        names = {
            who: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"loopback {who.stem}")]) for who in keys
        }
        day = timedelta(days=1)
        for who, key in keys.items():
            builder = (
                x509.CertificateBuilder()
                .subject_name(names[who])
                .issuer_name(names[made.authority])
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(datetime.now(UTC) - day)
                .not_valid_after(datetime.now(UTC) + day)
                .add_extension(x509.BasicConstraints(ca=who == made.authority, path_length=None), critical=True)
                .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            )
            certificate = builder.sign(keys[made.authority], hashes.SHA256())
            who.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        unencrypted = serialization.NoEncryption()
        made.key.write_bytes(
            keys[made.server].private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=unencrypted
            )
        )
        return made


def _general_name(host: str) -> Any:
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
