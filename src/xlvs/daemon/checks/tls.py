"""TLS for SSL_GET: one context for all checks, from the configuration's SSL block."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from xlvs.errors import XlvsError


@dataclass(frozen=True, slots=True)
class Credentials:
    """The SSL block: files, and the key's password. Empty: none given."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    password: str = ""


def context(credentials: Credentials) -> ssl.SSLContext:
    """A client's context. Raises XlvsError where a file is not what it should be.

    As in keepalived nothing is asked of a server's certificate, unless a CA is configured: then it
    must be signed by that, and valid now. Its name is not compared: a real server is an address.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.set_ciphers("DEFAULT")  # OpenSSL's, as keepalived asks with; some Pythons have fewer
    try:
        if credentials.ca:
            made.load_verify_locations(credentials.ca)
            made.verify_mode = ssl.CERT_REQUIRED
        else:
            made.verify_mode = ssl.CERT_NONE
        if credentials.certificate:
            made.load_cert_chain(
                credentials.certificate, credentials.key or None, credentials.password or None
            )
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (credentials.ca, credentials.certificate, credentials.key)))
        raise XlvsError(f"SSL: cannot use {files}: {error.strerror or error}") from None
    return made
