"""Who is known by a token, what each role may, and which files of tokens are read."""

import hashlib
import hmac

import pytest

from service.__main__ import main
from service.access.auth import BearerToken, BearerTokens, new_token, read_tokens
from service.access.file_reload import FileUnusable
from service.access.identity import ANYONE, Caller
from service.access.roles import ADMIN, INFER, NEEDED
from service.engine.errors import PermissionDenied, Unauthenticated
from unroll.inference import grpc_service_pb2
from unroll.v1 import unroll_pb2

SERVICES = (
    unroll_pb2.DESCRIPTOR.services_by_name["UnrollService"],
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)


def known(name, secret, *roles):
    return BearerToken(Caller(name), frozenset(roles), hashlib.sha256(secret.encode()).digest())


ANN, BOB, EVE = known("ann", "A", INFER), known("bob", "B", ADMIN), known("eve", "E", INFER, ADMIN)


@pytest.fixture
def guard():
    return BearerTokens(lambda: [ANN, BOB, EVE])


def bearer(secret):
    return [("user-agent", "x"), ("authorization", f"Bearer {secret}")]


# -- calls ------------------------------------------------------------------------------------


def test_every_method_of_both_services_is_in_the_table_and_nothing_else():
    """Methods are known by their names alone, so that no name may be in both services."""
    names = [method.name for service in SERVICES for method in service.methods]
    assert sorted(names) == sorted(NEEDED)


def test_a_method_that_is_not_in_the_table_is_refused(guard):
    with pytest.raises(PermissionDenied, match="Shutdown is open to no role"):
        guard.caller("Shutdown", bearer("E"))


def test_a_caller_is_known_by_its_token(guard):
    assert guard.caller("Generate", bearer("A")) == Caller("ann")
    assert guard.caller("LogSettings", bearer("B")) == Caller("bob")
    for method in ("Generate", "LogSettings", "ListModels"):
        assert guard.caller(method, bearer("E")) == Caller("eve")


def test_neither_role_holds_the_other(guard):
    with pytest.raises(
        PermissionDenied, match=r"RepositoryModelLoad needs the role admin; .* of ann has infer"
    ):
        guard.caller("RepositoryModelLoad", bearer("A"))
    with pytest.raises(PermissionDenied, match="ModelInfer needs the role infer"):
        guard.caller("ModelInfer", bearer("B"))


def test_probes_need_no_token(guard):
    for method in ("ServerLive", "ServerReady", "ModelReady"):
        assert guard.caller(method, []) == ANYONE


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([], "has no token; send authorization: Bearer TOKEN"),
        ([("token", "A")], "has no token"),
        (bearer("A") + bearer("A"), "has more than one token"),
        ([("authorization", "A")], "none of ours"),
        ([("authorization", "Basic A")], "none of ours"),
        ([("authorization", "Bearer")], "none of ours"),
        ([("authorization", "Bearer  ")], "none of ours"),
        (bearer("a"), "not known here"),
        (bearer("A A"), "not known here"),
        (bearer("é\U0001f600"), "not known here"),
        (bearer(ANN.digest.hex()), "not known here"),
        (bearer(f"sha256:{ANN.digest.hex()}"), "not known here"),
        ([("authorization", b"Bearer \xff")], "not known here"),
    ],
)
def test_whoever_sends_no_known_token_is_refused(guard, metadata, message):
    with pytest.raises(Unauthenticated, match=message):
        guard.caller("Generate", metadata)


def test_the_scheme_is_read_in_any_case(guard):
    for scheme in ("bearer", "BEARER"):
        assert guard.caller("Generate", [("authorization", f"{scheme} A")]) == Caller("ann")


@pytest.mark.parametrize("secret", ["A", "B", "E", "none"])
def test_a_token_is_compared_with_every_one_that_is_known(guard, monkeypatch, secret):
    """Where a token stands, and whether it does, shall not show in the time it takes."""
    compared, real = [], hmac.compare_digest

    def compare(known, sent):
        compared.append((known, sent))
        return real(known, sent)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    try:
        guard.caller("ServerMetadata", bearer(secret))
    except Unauthenticated:
        assert secret == "none"
    digest = hashlib.sha256(secret.encode()).digest()
    assert compared == [(token.digest, digest) for token in (ANN, BOB, EVE)]


# -- the file ---------------------------------------------------------------------------------


def written(folder, text):
    file = folder / "tokens"
    file.write_text(text)
    return file


def test_a_file_of_tokens_is_read(tmp_path):
    lines = [
        "# who may call",
        "",
        f"ann infer sha256:{ANN.digest.hex()}  # since spring",
        f"  eve\tadmin,infer   sha256:{EVE.digest.hex()}\r",
        f"ann admin sha256:{BOB.digest.hex()}",
    ]
    again = BearerToken(Caller("ann"), BOB.roles, BOB.digest)
    assert read_tokens(written(tmp_path, "\n".join(lines))) == [ANN, EVE, again]


GOOD = f"ann infer sha256:{ANN.digest.hex()}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nobody yet\n", "holds no token"),
        (f"{GOOD}\n{GOOD.replace('ann', 'bob')}", ":2: the token is listed before"),
        (f"{GOOD} infer", ":1: it is not NAME"),
        ("ann infer hush-hush", ":1: it is not NAME"),
        ("ann infer sha256:hush-hush", ":1: it is not NAME"),
        (GOOD.upper(), ":1: it is not NAME"),
        (GOOD.replace(" infer", ""), ":1: it is not NAME"),
        (GOOD.replace("infer", "hush-hush"), ":1: its roles are not among infer, admin"),
        (GOOD.replace("infer", "infer,"), ":1: its roles are not among"),
        (GOOD.replace("ann", "hush-hush!"), ":1: its name is not"),
        (GOOD.replace("ann", "a" * 65), ":1: its name is not"),
        ("\x00\xff", "it is not NAME"),
    ],
)
def test_a_file_that_is_no_list_of_tokens_is_refused_without_a_word_of_it(tmp_path, text, message):
    with pytest.raises(FileUnusable, match=message) as caught:
        read_tokens(written(tmp_path, text))
    assert str(caught.value).startswith("auth_tokens: ")
    assert "hush" not in str(caught.value)


def test_a_new_token_is_known_by_its_line(tmp_path):
    secret, line = new_token("ann", ["infer"])
    assert (len(secret), secret in line) == (43, False)
    guard = BearerTokens(lambda: read_tokens(written(tmp_path, line)))
    assert guard.caller("Generate", bearer(secret)) == Caller("ann")
    assert new_token("ann", ["infer"])[0] != secret


def test_the_command_prints_a_token_and_its_line(tmp_path, capsys):
    assert main(["token", "ci@example.org", "--roles", "admin,infer"]) == 0
    secret, line = capsys.readouterr().out.splitlines()
    (token,) = read_tokens(written(tmp_path, line))
    assert token == known("ci@example.org", secret, INFER, ADMIN)


@pytest.mark.parametrize("arguments", [("a b",), ("ann", "--roles", "root"), ("",)])
def test_the_command_makes_no_token_that_would_be_refused(arguments, capsys):
    assert main(["token", *arguments]) == 2
    assert "no token: its" in capsys.readouterr().err
