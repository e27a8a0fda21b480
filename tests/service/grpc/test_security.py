"""TLS, tokens and roles on the wire: who is let in, and what changes while the service runs."""

import logging
import queue
import shutil
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.access.auth import new_token
from service.access.security import log_security, secure
from service.config import Config, ConfigInvalid
from tests.authority import Authority, key_pem
from tests.conftest import RunningService
from tests.service.oip.calls import ask, read
from unroll.inference import grpc_service_pb2, grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

SERVICES = (
    pb.DESCRIPTOR.services_by_name["UnrollService"],
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
METHODS = {method.name: method for service in SERVICES for method in service.methods}
OPEN = {"ServerLive", "ServerReady", "ModelReady"}
INFER_ONLY = {
    "Classify", "Tag", "StreamTag", "Fill", "Generate", "Forecast", "StreamStep", "Score", "Embed",
}  # fmt: skip
INFER_ONLY |= {"ModelInfer", "ModelStreamInfer", "CreateState", "ListStates", "DeleteState"}
ADMIN_ONLY = {"RepositoryModelLoad", "RepositoryModelUnload", "LogSettings", "TraceSetting"}
STATUS = grpc.StatusCode
UNKNOWN_TOKEN = "nobody-has-this-one"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def few_models(tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    for name in ("letters", "tags-online"):
        shutil.copytree(tiny_models / name, folder / name)
    return folder


@pytest.fixture(autouse=True)
def files_are_looked_at_whenever_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("service.access.file_reload.LOOK_SECONDS", 0.0)


def config_of(models, **settings):
    addresses = {"address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    return Config(models=models, device="cpu", grace_seconds=5.0, **addresses, **settings)


def channel_to(service, ca, pair=None):
    credentials = grpc.ssl_channel_credentials(
        ca, *((pair.key, pair.certificate) if pair else (None, None))
    )
    # Its own connection: channels with equal options would share one, and the certificate with it.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(service.target, credentials, options)


class Secured:
    """A service with TLS, and callers by name: ann and bob infer, adm administrates.

    again: ann's other token. secrets: all of them, by name.
    """

    def __init__(self, folder, models, authority):
        self.authority = authority
        certificate, key = authority.issue().write(folder)
        self.tokens = folder / "tokens"
        self.secrets = {}
        lines = []
        for name, caller, role in (
            ("ann", "ann", "infer"), ("again", "ann", "infer"), ("bob", "bob", "infer"),
            ("adm", "adm", "admin"),
        ):  # fmt: skip
            self.secrets[name], line = new_token(caller, [role])
            lines.append(line)
        self.tokens.write_text("\n".join(lines))
        self.lines = lines
        self.service = RunningService(
            config_of(models, tls_certificate=certificate, tls_key=key, auth_tokens=self.tokens)
        )
        self.channel = channel_to(self.service, authority.pem)
        self.stub = unroll_pb2_grpc.UnrollServiceStub(self.channel)
        self.inference = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def as_(self, name):
        """Keywords of a call by ``name``."""
        return {"timeout": 20, "metadata": bearer(self.secrets[name])}

    def statuses(self, secret, methods=METHODS):
        """Code and details of each method, called with an empty request; by name."""
        metadata = bearer(secret) if secret else ()
        return {name: attempt(self.channel, METHODS[name], metadata) for name in methods}

    def stop(self):
        self.channel.close()
        self.service.stop()


def bearer(secret):
    return [("authorization", f"Bearer {secret}")]


def attempt(channel, method, metadata):
    path = f"/{method.containing_service.full_name}/{method.name}"
    way = "_".join(
        "stream" if streams else "unary"
        for streams in (method.client_streaming, method.server_streaming)
    )
    request = iter([b""]) if method.client_streaming else b""
    try:
        answer = getattr(channel, way)(path)(request, timeout=20, metadata=metadata)
        list(answer) if method.server_streaming else None
    except grpc.RpcError as error:
        return error.code(), error.details()
    return STATUS.OK, ""


@pytest.fixture(scope="module")
def secured(tmp_path_factory, few_models, authority):
    secured = Secured(tmp_path_factory.mktemp("secured"), few_models, authority)
    yield secured
    secured.stop()


def named(statuses, code):
    return {name for name, (found, _) in statuses.items() if found is code}


# -- tokens and roles -------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, UNKNOWN_TOKEN, ""])
def test_without_a_known_token_only_probes_are_answered(secured, secret):
    statuses = secured.statuses(secret)
    assert named(statuses, STATUS.UNAUTHENTICATED) == METHODS.keys() - OPEN
    assert named(statuses, STATUS.PERMISSION_DENIED) == set()


@pytest.mark.parametrize(
    ("name", "denied", "role"), [("ann", ADMIN_ONLY, "admin"), ("adm", INFER_ONLY, "infer")]
)
def test_a_role_does_what_it_may_and_the_refusal_names_the_other(secured, name, denied, role):
    statuses = secured.statuses(secured.secrets[name])
    assert named(statuses, STATUS.PERMISSION_DENIED) == denied
    assert named(statuses, STATUS.UNAUTHENTICATED) == set()
    assert all(f"needs the role {role};" in statuses[method][1] for method in denied)


def test_health_and_reflection_need_no_token(secured):
    health = health_pb2_grpc.HealthStub(secured.channel)
    for name in ("", "letters", "unroll.v1.UnrollService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(secured.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection.ServerReflectionInfo(asked, timeout=20)
    assert "unroll.v1.UnrollService" in [s.name for s in answer.list_services_response.service]


def test_refused_calls_are_counted_and_never_begin(secured):
    def counted(code, method):
        labels = {"model": "", "method": method, "code": code}
        return secured.service.metric("unroll_requests_total", **labels)

    asked = {("UNAUTHENTICATED", None), ("PERMISSION_DENIED", secured.secrets["adm"])}
    for code, secret in asked:
        for method in ("Generate", "ModelStreamInfer"):
            before = counted(code, method)
            secured.statuses(secret, [method])
            assert counted(code, method) == before + 1
    assert secured.service.app.inflight.calls == 0


def test_no_token_is_ever_logged_or_sent(secured, caplog):
    caplog.set_level(logging.DEBUG)
    reported = [secured.statuses(secret) for secret in (UNKNOWN_TOKEN, *secured.secrets.values())]
    for secret in (UNKNOWN_TOKEN, *secured.secrets.values()):
        assert secret not in caplog.text
        assert secret not in repr(reported)


# -- callers and what is theirs ---------------------------------------------------------------


def generate(secured, name, **fields):
    request = pb.GenerateRequest(model="letters", resume_every=16, **fields)
    return secured.stub.Generate(request, **secured.as_(name))


def test_a_resume_token_is_good_for_its_caller_alone(secured):
    """Also when another one calls between two of its messages."""
    stream = generate(secured, "ann", prompt="abc", max_tokens=200, tokens_per_message=1)
    next(stream)
    list(generate(secured, "bob", prompt="abc", max_tokens=1))
    token = [point.token for response in stream for point in response.resume_points][-1]
    for name in ("ann", "again"):
        assert sum(len(r.tokens) for r in generate(secured, name, resume_token=token)) > 0
    with pytest.raises(grpc.RpcError, match="issued to another caller") as caught:
        list(generate(secured, "bob", resume_token=token))
    assert caught.value.code() is STATUS.FAILED_PRECONDITION


def tags(secured, name, **fields):
    start = pb.StreamTagStart(model="tags-online", resume_at_end=True, **fields)
    requests = [pb.StreamTagRequest(start=start), pb.StreamTagRequest(text="the food")]
    return secured.stub.StreamTag(iter(requests), **secured.as_(name))


def test_so_is_that_of_a_stream_of_tags(secured):
    token = list(tags(secured, "ann"))[-1].resume_points[0].token
    assert next(tags(secured, "again", resume_token=token)).tokens[0].position == 2
    with pytest.raises(grpc.RpcError, match="issued to another caller"):
        list(tags(secured, "bob", resume_token=token))


def test_a_sequence_is_reached_by_its_caller_alone(secured):
    def answer(name, text, number, **flags):
        parameters = {"sequence_id": number, **flags}
        request = ask("tags-online", {"text": [[text]]}, parameters=parameters)
        return read(secured.inference.ModelInfer(request, **secured.as_(name)))

    def last(number, between=lambda: None):
        answer("ann", "the food", number, sequence_start=True)
        between()
        return answer("again", "is not bad", number, sequence_end=True)["probabilities"].tolist()

    def others():
        with pytest.raises(grpc.RpcError, match="not under way"):
            answer("bob", "was", 2)
        answer("bob", "great", 2, sequence_start=True)

    assert last(2, others) == last(1)


# -- files that change ------------------------------------------------------------------------


class Talk:
    """A stream of tags that its caller holds open."""

    def __init__(self, channel, metadata=()):
        self._texts = queue.SimpleQueue()
        self._texts.put(pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online")))
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        self._answers = stub.StreamTag(iter(self._texts.get, None), timeout=60, metadata=metadata)

    def say(self, word):
        """The position of its label."""
        self._texts.put(pb.StreamTagRequest(text=word))
        return next(self._answers).tokens[0].position

    def end(self):
        self._texts.put(None)
        return list(self._answers)[-1].usage.input_tokens


def replace(file, data):
    other = file.with_name("new")
    other.write_bytes(data)
    other.rename(file)


def errors_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


def test_tokens_are_replaced_while_a_stream_runs(secured, caplog):
    talk = Talk(secured.channel, bearer(secured.secrets["bob"]))
    assert talk.say("the") == 0
    secret, line = new_token("bob", ["infer"])
    kept = [line for line in secured.lines if not line.startswith("bob ")]
    list_models = ["ListModels"]
    try:
        replace(secured.tokens, "\n".join([*kept, line]).encode())
        statuses = {
            name: secured.statuses(token, list_models)["ListModels"][0]
            for name, token in [("new", secret), *secured.secrets.items()]
        }
        assert statuses.pop("bob") is STATUS.UNAUTHENTICATED
        assert set(statuses.values()) == {STATUS.OK}
        failures = secured.service.metric("unroll_reload_failures_total", files="tokens")
        replace(secured.tokens, b"spoiled")
        for _ in range(3):
            assert secured.statuses(secret, list_models)["ListModels"][0] is STATUS.OK
    finally:
        replace(secured.tokens, "\n".join(secured.lines).encode())
    assert (talk.say("food"), talk.end()) == (1, 2)
    assert errors_in(caplog) == [
        f"auth_tokens: {secured.tokens}:1: it is not NAME ROLE[,ROLE] [weight=NUMBER] sha256:HEX; "
        "what was read before stays in use"
    ]
    after = secured.service.metric("unroll_reload_failures_total", files="tokens")
    assert after == failures + 1


class Mounted:
    """Certificates as a mounted secret holds them: links into a folder that is swapped."""

    def __init__(self, folder):
        self.folder, self.swaps = folder, 0
        folder.mkdir()

    def swap(self, pair, ca):
        self.swaps += 1
        version = self.folder / f"..{self.swaps}"
        pair.write(version)
        (version / "ca.crt").write_bytes(ca)
        new = self.folder / "..new"
        new.symlink_to(version.name)
        new.rename(self.folder / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")

    def settings(self):
        names = {"tls_certificate": "tls.crt", "tls_key": "tls.key", "tls_client_ca": "ca.crt"}
        return {setting: self.folder / name for setting, name in names.items()}


@pytest.fixture
def mounted(tmp_path):
    return Mounted(tmp_path / "mounted")


@pytest.fixture
def mutual(start_service, few_models, mounted, authority):
    """A service that asks its callers for a certificate of ``authority``, and has one of it."""
    mounted.swap(authority.issue(), authority.pem)
    return start_service(models=few_models, **mounted.settings())


def is_served(service, ca, pair=None):
    with channel_to(service, ca, pair) as channel:
        code, _ = attempt(channel, METHODS["ListModels"], ())
    assert code in (STATUS.OK, STATUS.UNAVAILABLE)
    return code is STATUS.OK


def soon(holds):
    """Whether ``holds`` comes true: Envoy is handed new files, and takes them, in its own time."""
    deadline = time.monotonic() + 10
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def test_mutual_tls_wants_a_certificate_of_the_authority(mutual, authority):
    stranger = Authority("stranger").issue("caller")
    assert is_served(mutual, authority.pem, authority.issue("caller"))
    assert not is_served(mutual, authority.pem)
    assert not is_served(mutual, authority.pem, stranger)


def test_new_connections_get_new_certificates_and_a_running_stream_goes_on(
    mutual, mounted, authority, caplog
):
    other = Authority("other")
    old, new = authority.issue("caller"), other.issue("caller")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    with channel_to(mutual, authority.pem, old) as channel:
        talk = Talk(channel)
        assert talk.say("the") == 0
        mounted.swap(other.issue(until=until), other.pem)
        assert soon(lambda: is_served(mutual, other.pem, new))
        assert not is_served(mutual, authority.pem, new), "the certificate is the new one"
        assert not is_served(mutual, other.pem, old), "so are the authorities of callers"
        assert (talk.say("food"), talk.end()) == (1, 2)
    expiry = "unroll_tls_certificate_expiry_timestamp_seconds"
    assert mutual.metric(expiry) == until.timestamp()
    assert errors_in(caplog) == []


def test_a_broken_certificate_leaves_the_one_before(mutual, mounted, authority, caplog):
    caller, good = authority.issue("caller"), authority.issue()
    key = mounted.folder / "tls.key"
    mounted.swap(type(good)(good.certificate, authority.issue().key), authority.pem)
    for _ in range(3):
        assert is_served(mutual, authority.pem, caller)
    assert soon(lambda: errors_in(caplog))
    assert is_served(mutual, authority.pem, caller)
    assert errors_in(caplog) == [
        f"tls_key: {key} is not the key of the first certificate in "
        f"{mounted.folder / 'tls.crt'}; what was read before stays in use"
    ]
    assert mutual.metric("unroll_reload_failures_total", files="tls") == 1
    mounted.swap(good, authority.pem)
    assert is_served(mutual, authority.pem, caller)
    assert mutual.metric("unroll_reload_failures_total", files="tls") == 1


def test_tls_alone_wants_the_right_authority_and_no_certificate(secured, authority):
    metadata = bearer(secured.secrets["ann"])
    other = channel_to(secured.service, Authority("other").pem)
    with grpc.insecure_channel(secured.service.target) as plain, other:
        for channel in (plain, other):
            assert attempt(channel, METHODS["ListModels"], metadata)[0] is STATUS.UNAVAILABLE
    assert attempt(secured.channel, METHODS["ListModels"], metadata)[0] is STATUS.OK


# -- the start --------------------------------------------------------------------------------


PAIR = ("tls_certificate", "tls_key")
SPOILED = {
    "no certificate file": ("tls_certificate", None, "tls_certificate: .*tls.crt cannot be read"),
    "no key file": ("tls_key", None, "tls_key: .*tls.key cannot be read"),
    "no authorities file": ("tls_client_ca", None, "tls_client_ca: .*ca.crt cannot be read"),
    "no certificate in it": ("tls_certificate", b"", "tls_certificate: .*holds no certificate"),
    "no key in it": ("tls_key", b"", "tls_key: .*holds no private key in PEM"),
    "no authority in it": ("tls_client_ca", b"x", "tls_client_ca: .*holds no certificate"),
    "an encrypted key": (
        "tls_key",
        key_pem(ec.generate_private_key(ec.SECP256R1()), b"hush-hush"),
        "tls_key: .*tls.key is encrypted; give a key without a password",
    ),
    "another key": ("tls_key", Authority().issue().key, "tls_key: .*is not the key of"),
    "no tokens file": ("auth_tokens", None, "auth_tokens: .*tokens cannot be read"),
    "no token in it": ("auth_tokens", b"#", "auth_tokens: .*holds no token"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_files_that_cannot_be_used_stop_the_start(tmp_path, mounted, authority, case):
    name, data, message = SPOILED[case]
    mounted.swap(authority.issue(), authority.pem)
    tokens = tmp_path / "tokens"
    tokens.write_text(new_token("ann", ["infer"])[1])
    settings = mounted.settings() | {"auth_tokens": tokens}
    secure(config_of(tmp_path, **settings), lambda _: None)  # as long as nothing is spoiled
    settings[name].unlink()
    if data is not None:
        settings[name].write_bytes(data)
    with pytest.raises(ConfigInvalid, match=message):
        RunningService(config_of(tmp_path, **settings))


@pytest.mark.parametrize(
    ("tls", "with_tokens", "address", "lines"),
    [
        ((), False, "localhost:0", ["gRPC has no TLS; nobody is asked for a token"]),
        (
            PAIR,
            True,
            "0.0.0.0:0",
            ["gRPC has TLS, certificate until 2099-01-31; callers need a token"],
        ),
        (
            (*PAIR, "tls_client_ca"),
            False,
            "0.0.0.0:0",
            ["gRPC has mutual TLS, certificate until 2099-01-31; nobody is asked for a token"],
        ),
        (
            (),
            True,
            "0.0.0.0:0",
            [
                "gRPC has no TLS; callers need a token",
                "gRPC at 0.0.0.0:0 has no TLS and others can reach it: they can read and change "
                "what is sent, tokens too",
            ],
        ),
    ],
)
def test_the_start_says_how_the_port_is_secured(
    tmp_path, mounted, authority, caplog, tls, with_tokens, address, lines
):
    caplog.set_level(logging.INFO)
    mounted.swap(authority.issue(until=datetime(2099, 1, 31, 12, tzinfo=UTC)), authority.pem)
    settings = {name: file for name, file in mounted.settings().items() if name in tls}
    if with_tokens:
        settings["auth_tokens"] = tmp_path / "tokens"
        settings["auth_tokens"].write_text(new_token("ann", ["infer"])[1])
    config = Config(address=address, allow_insecure=True, **settings)
    log_security(config, secure(config, lambda _: None))
    assert [record.getMessage() for record in caplog.records] == lines
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"][: len(lines)]
