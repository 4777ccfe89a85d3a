"""Authorities and certificates for tests, made on the fly with the `openssl` program."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "rsa:2048", "-nodes")


def make_authority(directory: Path, name: str) -> Path:
    """A certificate authority: `<name>.pem`, which is returned, and its key beside it."""
    certificate = directory / f"{name}.pem"
    _openssl(
        "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", _key(certificate), "-out", certificate
    )
    return certificate


def make_server_certificate(
    directory: Path, authority: Path, address: str, name: str = "server", *, expired: bool = False
) -> Path:
    """Key, certificate and authority in one PEM file, for a server at an IP address or `localhost`."""
    request, signed, names = (directory / f"{name}.{ending}" for ending in ("csr", "crt", "ext"))
    names.write_text(f"subjectAltName=IP:{address},DNS:localhost\n", encoding="utf-8")
    _openssl("req", *_KEY, "-subj", f"/CN={address}", "-keyout", _key(request), "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", _key(authority)),
        *_validity(expired),
        *("-CAcreateserial", "-extfile", names, "-out", signed),
    )
    bundle = directory / f"{name}.pem"
    bundle.write_bytes(b"".join(part.read_bytes() for part in (_key(request), signed, authority)))
    return bundle


def make_client_certificate(
    directory: Path, authority: Path, name: str, password: str, *, expired: bool = False
) -> Path:
    """A client's certificate, `<name>.crt`, which is returned; its key beside it is encrypted with the password."""
    certificate, request = directory / f"{name}.crt", directory / f"{name}.csr"
    _openssl(
        *("req", "-newkey", "rsa:2048", "-passout", f"pass:{password}", "-subj", f"/CN={name}"),
        *("-keyout", _key(certificate), "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", _key(authority)),
        *_validity(expired),
        *("-CAcreateserial", "-out", certificate),
    )
    return certificate


def _validity(expired: bool) -> tuple[str, ...]:
    """Two days from now, or a day that is over. OpenSSL 3.4 and newer takes dates, and no negative number of days."""
    if not expired:
        return "-days", "2"
    help_text = subprocess.run(["openssl", "x509", "-help"], capture_output=True, text=True, check=False).stderr
    if "-not_after" in help_text:
        return "-not_before", "20240101000000Z", "-not_after", "20240102000000Z"
    return "-days", "-1"


def _key(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {arguments[0]} failed: {done.stderr}"
