"""Server credentials of grpc from TLS files."""

from __future__ import annotations

from typing import Any

import grpc

from service.access.tls import Certificate, Credentials


def server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """Each new connection gets what ``credentials`` hold by then."""
    in_use = credentials.get()

    def renewed() -> Any:
        """None for as before. grpc asks at each handshake, one at a time, on its own threads."""
        nonlocal in_use
        found = credentials.get()
        if found is in_use:
            return None
        in_use = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(in_use), renewed, credentials.is_mutual
    )


def _configuration(certificate: Certificate) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.authorities
    )
