"""Dates of certificates, against a library that reads all of them."""

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from service.access.certificates import first_to_end
from tests.authority import Authority

# Up to 2049 a date has two digits of the year, from 2050 on four.
ENDS = [datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC) for year in (1975, 2026, 2049, 2050, 2123)]


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.mark.parametrize("until", ENDS, ids=lambda until: str(until.year))
def test_the_end_is_the_librarys(authority, until):
    pem = authority.issue("a name", until).certificate
    known = x509.load_pem_x509_certificate(pem)
    assert first_to_end(pem) == known.not_valid_after_utc.timestamp() == until.timestamp()


def test_of_a_chain_the_first_to_end_counts(authority):
    late, early = (authority.issue("a name", ENDS[i]).certificate for i in (4, 1))
    assert first_to_end(late + b"a comment\n" + early + late) == ENDS[1].timestamp()


def test_what_is_no_certificate_is_refused(authority):
    pair = authority.issue()
    der = x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)
    for pem in (b"", pair.key, b"\xff\xfe"):
        with pytest.raises(ValueError, match="holds no certificate"):
            first_to_end(pem)
    with pytest.raises(ValueError, match="is broken"):
        first_to_end(pair.certificate.replace(b"\nM", b"\n*", 1))
    for length in range(len(der)):
        with pytest.raises(ValueError, match=r"holds no|is broken"):
            first_to_end(ssl.DER_cert_to_PEM_cert(der[:length]).encode())


def test_a_version_that_is_not_in_use_is_refused(authority):
    """X.509 version 2: an error of another kind in the library."""
    der = x509.load_pem_x509_certificate(authority.issue().certificate).public_bytes(Encoding.DER)
    second = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)
    assert second != der
    with pytest.raises(ValueError, match="is broken"):
        first_to_end(ssl.DER_cert_to_PEM_cert(second).encode())
