"""TLS by option: a certificate and its key, read before anything listens, and again by every worker that starts.

So a renewed certificate is taken up by a rolling restart (SIGHUP), with no request dropped.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from sqlml.errors import ServingError

HANDSHAKE_SECONDS = 20.0
"""How long a caller may take to agree on TLS."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What connections are wrapped in: TLS 1.2 and newer.  ``ServingError`` where the two files do not make a server."""
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        _check_readable(option, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise _fault(certificate, key, error) from error
    return context


def _check_readable(option: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ServingError(
            f"{option}: cannot read {path}: {error.strerror or error}", hint="give a PEM file that this user may read"
        ) from error


def _no_password() -> str:
    raise ServingError(
        "--tls-key: the key is encrypted, and a server has nobody to ask for its password",
        hint="give a key without one, readable by this user only: openssl pkey -in key.pem -out server-key.pem",
    )


def _fault(certificate: Path, key: Path, error: ssl.SSLError) -> ServingError:
    if error.reason == "KEY_VALUES_MISMATCH":
        message = f"the key {key} does not belong to the certificate {certificate}"
        return ServingError(message, hint="give the key that the certificate was made for, and the server's certificate first")
    message = f"no TLS with {certificate} and {key}: {error.reason or error}"
    return ServingError(
        message, hint="both must be PEM: --tls-cert the certificate, then those that signed it; --tls-key its private key"
    )
