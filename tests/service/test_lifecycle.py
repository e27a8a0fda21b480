"""Models that are loaded, replaced and unloaded while calls are under way."""

import asyncio
import gc
import shutil
import threading
import urllib.error
import urllib.request
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import onnxruntime
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.engine.errors import (
    ControlDisabled,
    ModelNotFound,
    ModelRefused,
    Overloaded,
    QueueFull,
    ServiceStopping,
    WrongInput,
)
from service.runtime import repository
from service.runtime.repository import Repository
from service.serving import model_manager
from service.serving.control_types import VersionPolicy
from tests.reweighing import reweigh, spoil
from tests.service.grpc.test_service import wait_until
from tests.tiny import edit_manifest
from unroll import Client, RequestFailed, Sampling

TEXTS = ["the food is good", "not bad was great"]
LONG = 300  # tokens


@pytest.fixture(autouse=True)
def threads():
    """Names of the threads that were started since the test began."""
    others = set(threading.enumerate())
    return lambda: [t.name for t in threading.enumerate() if t not in others]


@pytest.fixture
def models(tiny_models, tmp_path):
    """Few models: a service over them starts soon."""
    for name in ("letters", "mood", "tags"):
        shutil.copytree(tiny_models / name, tmp_path / "models" / name)
    return tmp_path / "models"


@pytest.fixture
def service(start_service, models):
    return start_service(models=models)


@pytest.fixture
def client(service):
    with Client(service.target, timeout=30) as client:
        yield client


def begin(service, work):
    """``work`` on the service's loop; its future."""
    return asyncio.run_coroutine_threadsafe(work, service.loop)


def load(service, name, **policy):
    service.run(service.app.control.load(name, VersionPolicy(**policy) if policy else None))


def unload(service, name):
    service.run(service.app.control.unload(name))


async def _stopped(control):
    while control._tasks:
        await asyncio.wait(control._tasks)


def wait_until_replaced_ones_have_stopped(service):
    service.run(_stopped(service.app.control))


async def _index(control):
    return control.index()


def states(service, name):
    """By version, each with its reason."""
    entries = service.run(_index(service.app.control))
    return {e.version: (e.state, e.reason) for e in entries if e.name == name}


def health_of(service, name):
    with grpc.insecure_channel(service.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def is_ready(service):
    url = f"http://127.0.0.1:{service.app.http.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False


def reported(client, version="", tokens=LONG):
    """What letters generates with one seed, with the bits of each token's log-probability."""
    pieces = client.generate(
        "letters",
        version=version,
        prompt="abc",
        max_tokens=tokens,
        log_probabilities=True,
        sampling=Sampling(seed=7),
    )
    return [(token.id, token.log_probability) for piece in pieces for token in piece.tokens]


class Held:
    """An engine that does not step until it is released."""

    def __init__(self, engine):
        self.engine = engine
        self.begun, self._go_on = threading.Event(), threading.Event()
        self._step = engine.step
        engine.step = self._held_step

    def _held_step(self):
        self.begun.set()
        assert self._go_on.wait(30), "nobody released it"
        return self._step()

    def release(self):
        self._go_on.set()


def hold(service, name, part="thread"):
    return Held(getattr(service.app.registry.get(name), part).engine)


class InflightTracker:
    """Bundles that are not read until it is opened; ``reached`` once one is to be."""

    def __init__(self, monkeypatch):
        self.reached, self._open = threading.Event(), threading.Event()
        real = Repository.load

        def held(*arguments):
            self.reached.set()
            assert self._open.wait(30), "nobody opened it"
            return real(*arguments)

        monkeypatch.setattr(Repository, "load", held)

    def open(self):
        self._open.set()


@pytest.fixture
def gate(monkeypatch):
    gate = InflightTracker(monkeypatch)
    yield gate
    gate.open()


# -- taking over ----------------------------------------------------------------------------


def test_a_newer_version_takes_over_and_no_call_is_lost(service, client, models):
    """Callers who never pause see the old version's answers, then the new one's, and no error."""
    old = client.classify("mood", TEXTS)
    reweigh(models / "mood" / "1", models / "mood" / "2")
    have_called, has_loaded = threading.Barrier(5), threading.Event()

    def call():
        with Client(service.target, timeout=30) as caller:
            answers, after = [caller.classify("mood", TEXTS)], 0
            have_called.wait(20)
            while after < 5:
                after += has_loaded.is_set()
                answers.append(caller.classify("mood", TEXTS))
        return answers

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        have_called.wait(20)
        load(service, "mood")
        has_loaded.set()
        seen = [call.result() for call in calls]
    new = client.classify("mood", TEXTS)
    assert new != old
    for answers in seen:
        taken_over = answers.index(new)
        assert answers == [old] * taken_over + [new] * (len(answers) - taken_over)


def test_a_stream_finishes_bit_for_bit_on_the_version_it_began_with(service, client, models):
    expected = reported(client)
    held = hold(service, "letters")
    reweigh(models / "letters" / "1", models / "letters" / "2")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(reported, client)
        assert held.begun.wait(10)
        load(service, "letters")
        changed = reported(client)
        assert states(service, "letters") == {
            "1": ("UNLOADING", "calls that began on it are finishing"),
            "2": ("READY", ""),
        }
        held.release()
        assert stream.result() == expected
    assert changed != expected
    wait_until_replaced_ones_have_stopped(service)
    assert states(service, "letters")["1"] == (
        "UNAVAILABLE",
        "not chosen by the version policy, the latest 1",
    )


def test_two_versions_in_memory_take_room_from_callers_until_the_older_has_ended(
    service, client, models
):
    held = hold(service, "letters")
    budget = service.app.budget
    reweigh(models / "letters" / "1", models / "letters" / "2")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(reported, client)
        assert held.begun.wait(10)
        load(service, "letters")
        assert budget.used_of("models") > 0
        held.release()
        stream.result()
    wait_until_replaced_ones_have_stopped(service)
    load(service, "letters")
    assert budget.used_of("models") == 0, "nothing was replaced"


def test_a_load_without_room_is_refused_and_one_that_fails_gives_its_room_back(service, models):
    budget = service.app.budget
    taken = budget.reserve("answers", budget.limit)
    with pytest.raises(Overloaded, match="models would take"):
        load(service, "letters")
    taken.release()
    (models / "letters" / "1" / "manifest.json").write_text("{}")
    with pytest.raises(ModelRefused):
        load(service, "letters")
    assert budget.used == 0


def test_a_call_that_names_the_version_before_learns_which_are_served(service, client, models):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    load(service, "mood")
    assert client.classify("mood", TEXTS, version="2") == client.classify("mood", TEXTS)
    with pytest.raises(RequestFailed, match="served in version '2', not '1'") as caught:
        client.classify("mood", TEXTS, version="1")
    assert caught.value.code == "NOT_FOUND"


def test_versions_are_served_side_by_side_and_the_policy_is_remembered(service, client, models):
    first = client.classify("mood", TEXTS)
    for version, factor in (("2", -0.7), ("10", 0.3)):
        reweigh(models / "mood" / "1", models / "mood" / version, factor)
    load(service, "mood", specific=(1, 10))
    assert client.classify("mood", TEXTS, version="1") == first
    newest = client.classify("mood", TEXTS)
    assert newest == client.classify("mood", TEXTS, version="10") != first
    assert [m.version for m in client.list_models().models if m.name == "mood"] == ["1", "10"]
    load(service, "mood")
    assert service.app.registry.versions("mood") == ["1", "10"]
    load(service, "mood", all=True)
    assert service.app.registry.versions("mood") == ["1", "2", "10"]
    load(service, "mood", latest=2)
    assert service.app.registry.versions("mood") == ["2", "10"]
    wait_until_replaced_ones_have_stopped(service)
    assert states(service, "mood")["1"][1] == "not chosen by the version policy, the latest 2"


def test_what_is_served_as_it_lies_there_is_kept(service, models):
    before = service.app.registry.find("mood")
    load(service, "mood")
    assert service.app.registry.find("mood") is before
    outcomes = {
        outcome: service.metric("unroll_model_loads_total", model="mood", outcome=outcome)
        for outcome in ("loaded", "kept", "refused", "unloaded")
    }
    assert outcomes == {"loaded": 1, "kept": 1, "refused": 0, "unloaded": 0}


def test_a_bundle_that_was_exported_again_in_place_takes_over(service, client, models):
    before, served = client.classify("mood", TEXTS), service.app.registry.find("mood")
    reweigh(models / "mood" / "1", models / "mood" / "1")
    assert client.classify("mood", TEXTS) == before, "nothing happens by itself"
    load(service, "mood")
    assert client.classify("mood", TEXTS) != before
    assert (served.is_retired, service.app.registry.find("mood").version) == (True, "1")
    assert states(service, "mood") == {"1": ("READY", "")}


# -- what is refused ------------------------------------------------------------------------


def test_a_load_that_fails_changes_nothing_and_can_be_repeated(service, client, models):
    before, served = client.classify("mood", TEXTS), service.app.registry.find("mood")
    folder = reweigh(models / "mood" / "1", models / "mood" / "2")
    spoil(folder)
    with pytest.raises(
        ModelRefused, match=r"is not the file that was exported.*; what was served before still is"
    ):
        load(service, "mood")
    assert client.classify("mood", TEXTS) == before
    assert service.app.registry.find("mood") is served
    assert not served.is_retired
    state, reason = states(service, "mood")["2"]
    assert (state, "sha256 differs" in reason) == ("UNAVAILABLE", True)
    with pytest.raises(RequestFailed, match="version 2 of model 'mood' was not loaded") as caught:
        client.classify("mood", TEXTS, version="2")
    assert caught.value.code == "FAILED_PRECONDITION"
    assert service.metric("unroll_model_refused", model="mood", version="2") == 1
    assert health_of(service, "mood") == "SERVING"

    reweigh(models / "mood" / "1", folder)
    load(service, "mood")
    assert service.app.registry.versions("mood") == ["2"]
    assert client.list_models().refused_models == []
    refused = {"model": "mood", "version": "2"}
    registry = service.app.metrics.registry
    assert registry.get_sample_value("unroll_model_refused", refused) is None


def test_a_served_bundle_that_was_spoiled_in_place_goes_on_being_served(service, client, models):
    before = client.classify("mood", TEXTS)
    spoil(reweigh(models / "mood" / "1", models / "mood" / "1"))
    with pytest.raises(ModelRefused):
        load(service, "mood")
    assert client.classify("mood", TEXTS) == before
    state, reason = states(service, "mood")["1"]
    assert (state, reason.startswith("what lies there now was refused")) == ("READY", True)


def _fail(*_):
    raise RuntimeError("the kernel broke")


def test_a_version_whose_graphs_do_not_run_is_refused(service, client, models, monkeypatch):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    monkeypatch.setattr("service.serving.model_factory.probe", _fail)
    with pytest.raises(ModelRefused, match=r"do not run \(the kernel broke\)"):
        load(service, "mood")
    assert client.classify("mood", TEXTS, version="1")


def test_of_several_versions_all_or_none_take_over(service, models):
    for version in ("2", "3"):
        reweigh(models / "mood" / "1", models / "mood" / version)
    spoil(models / "mood" / "3")
    with pytest.raises(ModelRefused):
        load(service, "mood", all=True)
    assert service.app.registry.versions("mood") == ["1"]


def test_a_model_that_was_refused_at_the_start_can_be_mended(start_service, models):
    spoil(models / "mood" / "1")
    service = start_service(models=models)
    assert health_of(service, "mood") == "NOT_SERVING"
    (models / "mood" / "1").rename(models / "mood" / "broken")
    with pytest.raises(ModelNotFound, match="holds no model 'mood'"):
        load(service, "mood")
    with Client(service.target, timeout=30) as client:
        with pytest.raises(RequestFailed, match="was not loaded") as caught:
            client.classify("mood", TEXTS)
        assert caught.value.code == "FAILED_PRECONDITION"
        spoil(models / "mood" / "broken")  # the same byte: it is as it was
        (models / "mood" / "broken").rename(models / "mood" / "1")
        load(service, "mood")
        assert len(client.classify("mood", TEXTS)) == 2
    assert health_of(service, "mood") == "SERVING"


def test_no_name_leads_out_of_the_models_folder(service, models):
    shutil.copytree(models / "mood", models / ".hidden")
    for name in ("", ".", "..", "../models/mood", "mood/1", "/mood", ".hidden", "mood\0", "*"):
        for ask in (load, unload):
            with pytest.raises(ModelNotFound):
                ask(service, name)


def test_a_policy_that_chooses_what_is_not_there_is_refused(service):
    with pytest.raises(ModelNotFound, match="holds no version 3 of model 'mood'; it holds: 1"):
        load(service, "mood", specific=(1, 3))
    with pytest.raises(WrongInput, match="at least 1"):
        load(service, "mood", latest=0)


def test_without_model_control_nothing_is_loaded_or_unloaded(start_service, models):
    service = start_service(models=models, model_control="none")
    for ask in (load, unload):
        with pytest.raises(ControlDisabled, match="--model-control explicit"):
            ask(service, "mood")
    assert states(service, "mood") == {"1": ("READY", "")}


# -- unloading ------------------------------------------------------------------------------


def test_an_unload_lets_the_calls_under_way_finish_and_ends_when_they_have(
    service, client, threads
):
    expected = reported(client)
    held = hold(service, "letters")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(reported, client)
        assert held.begun.wait(10)
        served = service.app.registry.find("letters")
        unloading = begin(service, service.app.control.unload("letters"))
        assert service.run(_withdrawn(served))
        assert states(service, "letters")["1"][0] == "UNLOADING"
        with pytest.raises(RequestFailed, match="was unloaded; load it") as caught:
            reported(client)
        assert caught.value.code == "NOT_FOUND"
        assert not unloading.done()
        held.release()
        assert stream.result() == expected
        unloading.result(10)
    assert not [name for name in threads() if name.startswith("letters-")]
    assert states(service, "letters") == {"1": ("UNAVAILABLE", "unloaded")}
    assert health_of(service, "letters") == "NOT_SERVING"
    assert (health_of(service, ""), is_ready(service)) == ("SERVING", True)
    assert "letters" not in [model.name for model in client.list_models().models]
    assert service.metric("unroll_model_loads_total", model="letters", outcome="unloaded") == 1

    load(service, "letters")
    assert reported(client) == expected
    assert health_of(service, "letters") == "SERVING"


async def _withdrawn(served):
    recorded = asyncio.Event()
    served.when_withdrawn(recorded.set)
    await recorded.wait()
    return True


def test_a_model_that_is_being_unloaded_can_be_loaded_at_once(service, client):
    """The new one serves while the last calls finish on the old one."""
    expected = reported(client)
    held = hold(service, "letters")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(reported, client)
        assert held.begun.wait(10)
        unloading = begin(service, service.app.control.unload("letters"))
        load(service, "letters")
        assert reported(client) == expected
        assert states(service, "letters")["1"] == ("READY", "")
        held.release()
        assert stream.result() == expected
        unloading.result(10)
    assert reported(client) == expected


def test_what_is_not_served_cannot_be_unloaded(service):
    unload(service, "mood")
    with pytest.raises(ModelNotFound, match="no model 'mood' is served; served are: letters, tags"):
        unload(service, "mood")


# -- what is left of a version --------------------------------------------------------------


@pytest.fixture
def set_aside():
    """As a service does once it is ready: collections no longer look at what there is."""
    yield gc.freeze
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as tests/conftest.py does


@pytest.fixture
def opened(monkeypatch):
    """Weak references to every session that is opened, by model and version."""
    references = []
    real = repository.open_session

    def watched(bundle, *arguments):
        session = real(bundle, *arguments)
        place = (bundle.manifest.name, str(bundle.manifest.version))
        references.append((place, weakref.ref(session)))
        return session

    monkeypatch.setattr(repository, "open_session", watched)
    return references


def test_the_sessions_and_threads_of_a_replaced_version_are_freed(
    opened, set_aside, start_service, models_copy, threads
):
    """Of each kind of model, after it was used, and after all was set aside for good."""
    service = start_service(models=models_copy)
    set_aside()
    names = ("blank", "letters", "mood", "speller", "tags-online")
    with Client(service.target, timeout=30) as client:
        use = {
            "blank": lambda: client.fill("blank", ["the ___ was good"]),
            "letters": lambda: (reported(client), client.score("letters", ["abcabc"])),
            "mood": lambda: client.classify("mood", TEXTS),
            "speller": lambda: list(client.generate("speller", source="abc", max_tokens=30)),
            "tags-online": lambda: (
                client.tag("tags-online", TEXTS),
                list(client.stream_tag("tags-online", TEXTS)),
            ),
        }
        for name in names:
            reweigh(models_copy / name / "1", models_copy / name / "2")
            use[name]()
            load(service, name)
            use[name]()
    wait_until_replaced_ones_have_stopped(service)
    alive = {place for place, session in opened if session() is not None}
    assert {place for place in alive if place[0] in names} == {(name, "2") for name in names}
    assert isinstance(opened[0][1](), onnxruntime.InferenceSession)
    for name in names:
        of_model = [thread for thread in threads() if thread.rpartition("-")[0] == name]
        assert len(of_model) == len(set(of_model)) > 0
    assert _labels(service, "unroll_model_loaded", "letters") == ["2"]


def test_the_sessions_of_what_was_ready_when_another_version_was_refused_are_freed(
    opened, set_aside, service, models
):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    spoil(reweigh(models / "mood" / "1", models / "mood" / "3"))
    set_aside()
    with pytest.raises(ModelRefused):
        load(service, "mood", specific=(1, 2, 3))
    # The thread that read it lets go of it a moment after its answer.
    wait_until(lambda: not any(session() for place, session in opened if place == ("mood", "2")))
    assert [place for place, session in opened if place == ("mood", "1") and session()]


def test_the_sessions_of_a_version_that_is_refused_are_freed(
    opened, set_aside, service, models, monkeypatch
):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    monkeypatch.setattr("service.serving.model_loading.assemble", _fail)
    set_aside()
    with pytest.raises(ModelRefused):
        load(service, "mood")
    assert [session() for place, session in opened if place == ("mood", "2")] == [None]


def _labels(service, metric, name):
    return [
        sample.labels["version"]
        for family in service.app.metrics.registry.collect()
        for sample in family.samples
        if sample.name == metric and sample.labels["model"] == name
    ]


def test_metrics_report_what_is_served_now(service, models):
    card = service.app.registry.get("letters").card
    before = {"model": "letters", "fingerprint": card.fingerprint[:12]}
    assert service.metric("unroll_batch_invariant", **before) == 1
    reweigh(models / "letters" / "1", models / "letters" / "2")
    load(service, "letters", all=True)
    assert _labels(service, "unroll_model_loaded", "letters") == ["1", "2"]
    unload(service, "letters")
    assert _labels(service, "unroll_model_loaded", "letters") == []
    registry = service.app.metrics.registry
    assert registry.get_sample_value("unroll_batch_invariant", before) is None


# -- loads that meet something else ---------------------------------------------------------


def test_a_model_is_loading_until_it_is_ready(service, client, models, gate):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    loading = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    assert states(service, "mood") == {"1": ("READY", ""), "2": ("LOADING", "")}
    assert client.classify("mood", TEXTS, version="1")
    gate.open()
    loading.result(20)
    assert states(service, "mood")["2"] == ("READY", "")


def test_loads_of_one_model_take_turns(service, models, gate):
    """The second finds what the first one loaded, and keeps it."""
    reweigh(models / "mood" / "1", models / "mood" / "2")
    loads = [begin(service, service.app.control.load("mood")) for _ in range(2)]
    assert gate.reached.wait(10)
    gate.open()
    for loading in loads:
        loading.result(20)
    assert service.metric("unroll_model_loads_total", model="mood", outcome="loaded") == 2
    assert service.metric("unroll_model_loads_total", model="mood", outcome="kept") == 1


def test_a_caller_who_leaves_does_not_take_its_load_back(service, models, gate):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    loading = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    loading.cancel()
    gate.open()
    wait_until_replaced_ones_have_stopped(service)
    assert service.app.registry.versions("mood") == ["2"]


def test_a_stop_gives_up_the_load_under_way(service, models, gate, threads):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    loading = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    stopping = begin(service, service.app.control.stop())
    with pytest.raises(ServiceStopping, match="the server is stopping"):
        load(service, "tags")
    gate.open()
    stopping.result(20)
    with pytest.raises(ServiceStopping, match="load the model on another one"):
        loading.result(1)
    for thread in threading.enumerate():
        if thread.name.startswith("load-"):
            thread.join(10)  # it has given its outcome, and ends
    assert not [name for name in threads() if name.startswith(("mood-", "load"))]


async def _has_begun():
    """What was asked of the loop before is waiting by now."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_more_loads_than_may_wait_are_refused_with_the_delay(start_service, models, gate):
    service = start_service(models=models, max_waiting_loads=2)
    reweigh(models / "mood" / "1", models / "mood" / "2")
    loads = [begin(service, service.app.control.load("mood"))]
    assert gate.reached.wait(10)
    loads += [begin(service, service.app.control.load("mood")) for _ in range(2)]
    service.run(_has_begun())
    assert service.metric("unroll_waiting_loads") == 2
    with pytest.raises(QueueFull, match=r"as many as may \(max_waiting_loads\)") as caught:
        load(service, "mood")
    assert caught.value.retry_after_seconds >= 1
    gate.open()
    for loading in loads:
        loading.result(20)
    load(service, "mood")
    assert service.metric("unroll_waiting_loads") == 0


def test_a_load_whose_caller_leaves_before_it_began_is_dropped(service, models, gate):
    reweigh(models / "mood" / "1", models / "mood" / "2")
    first = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    gone = [begin(service, service.app.control.load("mood")) for _ in range(10)]
    service.run(_has_begun())
    for loading in gone:
        loading.cancel()
    gate.open()
    first.result(20)
    load(service, "mood")
    # The first loads version 2 and the last one finds it served; nothing of the others ran.
    assert service.metric("unroll_model_loads_total", model="mood", outcome="kept") == 1


def test_a_stop_drops_loads_that_have_not_begun(start_service, models, gate):
    """However many there are, none of them is run."""
    service = start_service(models=models, max_waiting_loads=2000)
    under_way = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    waiting = [begin(service, service.app.control.load("mood")) for _ in range(1500)]
    waiting.append(begin(service, service.app.control.unload("mood")))
    service.run(_has_begun())
    service.run(_drop_loads(service.app.control))
    for loading in waiting:
        with pytest.raises(ServiceStopping, match="the server is stopping"):
            loading.result(10)
    assert not under_way.done()
    gate.open()
    with pytest.raises(ServiceStopping):
        under_way.result(20)
    assert service.metric("unroll_model_loads_total", model="mood", outcome="kept") == 0


async def _drop_loads(control):
    control.drop_loads()


def test_an_app_that_stops_waits_for_no_load_that_has_not_begun(start_service, models, gate):
    """The grace is for calls; loads that wait are refused before it begins."""
    service = start_service(models=models)
    begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    waiting = begin(service, service.app.control.load("mood"))
    service.run(_has_begun())
    stopping = begin(service, service.app.stop())
    with pytest.raises(ServiceStopping):
        waiting.result(10)
    assert not stopping.done()
    gate.open()
    assert stopping.result(20)


def test_a_stop_leaves_an_engine_behind_that_hangs(service, client, monkeypatch):
    """It is logged, and the others have ended as they should."""
    monkeypatch.setattr(model_manager, "_STOP_SECONDS", 0.3)
    held = hold(service, "letters")
    mood = service.app.registry.find("mood")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(reported, client)
        assert held.begun.wait(10)
        try:
            assert service.run(service.app.control.stop()) == 1
            assert [thread.join(0) for thread in mood.threads] == [True]
            hanging, *others = service.app.registry.find("letters").threads
            assert not hanging.join(0)
            assert [thread.join(0) for thread in others] == [True, True]  # score and embed
        finally:
            held.release()
        with pytest.raises(RequestFailed):
            stream.result(20)
    service.app.control._live.clear()  # it was stopped, and what it held was reported


def test_a_stop_leaves_a_load_behind_that_hangs(service, models, gate, monkeypatch, caplog):
    monkeypatch.setattr(model_manager, "_STOP_SECONDS", 0.3)
    loading = begin(service, service.app.control.load("mood"))
    assert gate.reached.wait(10)
    assert service.run(service.app.control.stop()) == 0
    assert not loading.done()
    assert "1 loads or ends of versions hang" in caplog.text
    gate.open()
    with pytest.raises(ServiceStopping):
        loading.result(20)


def test_an_unload_ends_though_an_engine_hangs(service, client, monkeypatch, caplog):
    monkeypatch.setattr(model_manager, "_STOP_SECONDS", 0.3)
    held = hold(service, "letters")
    with Client(service.target, timeout=1) as caller, pytest.raises(RequestFailed):
        reported(caller)
    assert held.begun.is_set()
    try:
        unload(service, "letters")
    finally:
        held.release()
    assert "engine generate of model letters version 1 hangs in a step" in caplog.text
    assert states(service, "letters") == {"1": ("UNAVAILABLE", "unloaded")}


# -- how many versions there may be ---------------------------------------------------------


def test_no_more_versions_of_a_model_are_in_memory_than_may_be(start_service, models):
    """A load beyond them says what holds them; nothing of it is opened, and room helps."""
    service = start_service(models=models, max_live_versions=2)
    for version in ("2", "3"):
        reweigh(models / "letters" / "1", models / "letters" / version)
    with Client(service.target, timeout=30) as client, ThreadPoolExecutor(2) as pool:
        expected = reported(client)
        held, streams = [], []
        for version in (1, 2):
            load(service, "letters", specific=(version,))
            held.append(hold(service, "letters"))
            streams.append(pool.submit(reported, client))
            assert held[-1].begun.wait(10)
        try:
            assert service.metric("unroll_model_live_versions", model="letters") == 2
            with pytest.raises(
                Overloaded, match=r"may have 2 versions .* still use version 1 by 1, version 2 by 1"
            ) as caught:
                load(service, "letters", specific=(3,))
            assert caught.value.retry_after_seconds > 0
            assert service.app.registry.versions("letters") == ["2"]
            load(service, "letters", specific=(2,))  # brings nothing new: it is kept
            (models / "letters" / "3" / "manifest.json").unlink()
            with pytest.raises(ModelRefused, match="cannot be read"):
                load(service, "letters", specific=(3,))
        finally:
            for engine in held:
                engine.release()
        assert streams[0].result() == expected
        streams[1].result()
        wait_until_replaced_ones_have_stopped(service)
        reweigh(models / "letters" / "1", models / "letters" / "3")
        load(service, "letters", specific=(3,))
        wait_until_replaced_ones_have_stopped(service)
        assert service.app.registry.versions("letters") == ["3"]
        assert service.metric("unroll_model_live_versions", model="letters") == 1


def test_versions_that_nobody_uses_leave_room_for_their_successors(start_service, models):
    service = start_service(models=models, max_live_versions=1)
    for factor in (-0.7, 0.3):
        reweigh(models / "mood" / "1", models / "mood" / "1", factor)
        load(service, "mood")
    assert service.metric("unroll_model_loads_total", model="mood", outcome="loaded") == 3


def test_a_policy_of_more_versions_than_may_be_is_refused(start_service, models):
    service = start_service(models=models, max_live_versions=2)
    for version in ("2", "3"):
        reweigh(models / "mood" / "1", models / "mood" / version)
    with pytest.raises(WrongInput, match="all versions of model 'mood' are 3, and at most 2"):
        load(service, "mood", all=True)


def test_a_bundle_larger_than_the_setting_is_refused(start_service, models):
    service = start_service(models=models, max_bundle_bytes=200_000)
    reweigh(models / "mood" / "1", models / "mood" / "2")
    edit_manifest(
        models / "mood" / "2",
        lambda c: c["files"].update(weights={"sha256": "0", "bytes": 200_001}),
    )
    with pytest.raises(ModelRefused, match="at most 200000 are read"):
        load(service, "mood")


def test_a_model_whose_engine_failed_is_loaded_anew(service, client, threads):
    """Health recovers with it, and no other model was touched."""
    expected = client.classify("mood", TEXTS)
    service.app.registry.get("mood").thread.engine.runner.run = _fail
    with pytest.raises(RequestFailed) as caught:
        client.classify("mood", TEXTS)
    assert caught.value.code == "INTERNAL"
    assert states(service, "mood")["1"][1].startswith("its engine failed")
    assert not is_ready(service)
    load(service, "mood")
    assert client.classify("mood", TEXTS) == expected
    assert states(service, "mood") == {"1": ("READY", "")}
    assert is_ready(service)
    assert [health_of(service, name) for name in ("mood", "")] == ["SERVING", "SERVING"]
    wait_until_replaced_ones_have_stopped(service)
    assert threads().count("mood-predict") == 1
