"""TLS for clients: the certificate that the settings name, and its replacement while the server runs.

Owns which versions of TLS are spoken. Must never write what is in a key file, nor ask for a password.
"""

from __future__ import annotations

import ssl

from models.errors import SettingError
from models.server_settings import ServerSettings

HANDSHAKE_TIMEOUT_S = 10.0
"""For a client's part of the handshake; meanwhile it takes one of `connections_max` places."""


def open_tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """What wraps accepted connections; None when TLS is not configured.

    Raises:
        SettingError: a file cannot be read, or the two do not belong together.
    """
    if not settings.tls_certificate_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def reload_certificate(context: ssl.SSLContext, settings: ServerSettings) -> None:
    """Read both files again; connections that are accepted from now on get what they hold.

    Raises:
        SettingError: as `open_tls`; the old certificate stays in use.
    """
    open_tls(settings)  # half a pair in the live context would be neither the old nor the new one
    _load(context, settings)


def _load(context: ssl.SSLContext, settings: ServerSettings) -> None:
    for key, path in (
        ("server.tls_certificate_file", settings.tls_certificate_file),
        ("server.tls_key_file", settings.tls_key_file),
    ):
        try:
            with open(path, "rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise SettingError(f"{key}: {path!r} cannot be read: {reason or 'not a path'}.") from error
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise SettingError(_explain(error)) from error


def _no_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    raise ValueError("the key is encrypted")


def _explain(error: ssl.SSLError | ValueError) -> str:
    if not isinstance(error, ssl.SSLError):
        return "server.tls_key_file: the key is encrypted; give it unencrypted, readable by this user only."
    if error.reason == "KEY_VALUES_MISMATCH":
        return "server.tls_key_file: the key does not belong to server.tls_certificate_file."
    return "server.tls_certificate_file and server.tls_key_file must hold a PEM certificate and its PEM key."
