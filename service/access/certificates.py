"""Certificates in PEM files, and when they expire."""

from __future__ import annotations


def first_to_end(pem: bytes) -> float:
    """When the first of the certificates in ``pem`` expires, in seconds since 1970.

    Raises ValueError for a text that holds none, or one that is broken.
    """
    # Here, not above: it takes 16 MB of memory, which a server without TLS does without.
    from cryptography import x509

    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("it holds no certificate in PEM")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise ValueError(f"a certificate in it is broken ({error})") from error
    return min(one.not_valid_after_utc.timestamp() for one in certificates)
