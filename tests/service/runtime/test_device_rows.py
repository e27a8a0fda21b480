"""State on a device, tested with the CPU as the device: the same bits as in host memory."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import unroll
from bundle.manifest import GENERATE
from bundle.store import read_bundle
from service.engine.decode import GenerateEngine
from service.engine.requests import Beam, GenerateRequest, ResumePolicy, Sampling
from service.engine.slots import Slots
from service.runtime import repository
from service.runtime.device_rows import DeviceRows
from service.runtime.device_runner import DeviceRunner, StateOnHost, buckets_of
from service.runtime.devices import CUDA_PROVIDER, DEVICES
from service.runtime.repository import LoadedModel, load_models
from service.runtime.runners import GenerateRunner, Prefiller
from service.runtime.sessions import SessionSettings, open_session
from service.serving.model_metadata import generation_model
from tests.service.engine.fakes import Clock, Reader, Recorder
from tests.tiny import edit_manifest, names_without

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)
CAPACITY = 11  # no power of two: the last bucket is the capacity itself


class Counting:
    """A session that counts its runs and remembers what each was bound to."""

    def __init__(self, session):
        self.session = session
        self.runs = 0
        self.bound = {}

    def __getattr__(self, name):
        return getattr(self.session, name)

    def io_binding(self):
        binding = self.session.io_binding()
        ranges = self.bound[id(binding)] = {"in": {}, "out": {}}
        self.bindings = [*getattr(self, "bindings", []), binding]  # or ids would come again

        def spying(bind, where):
            def call(name, device, number, dtype, shape, pointer):
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                ranges[where][name] = (pointer, pointer + size)
                bind(name, device, number, dtype, shape, pointer)

            return call

        binding.bind_input = spying(binding.bind_input, "in")
        binding.bind_output = spying(binding.bind_output, "out")
        return binding

    def run_with_iobinding(self, binding):
        self.runs += 1
        ranges = self.bound[id(binding)]
        for read, written in itertools.product(ranges["in"].values(), ranges["out"].values()):
            assert read[1] <= written[0] or written[1] <= read[0]
        self.session.run_with_iobinding(binding)


@pytest.fixture(params=["letters", "speller"])
def graphs(tiny_models, request):
    """What a model runs on, its sessions counted."""
    bundle = read_bundle(tiny_models / request.param / "1")
    step, rows = (Counting(open_session(bundle, name, CPU)) for name in ("step", "rows"))
    prefiller = Prefiller(open_session(bundle, "prime", CPU), bundle.manifest.state)
    return SimpleNamespace(bundle=bundle, prefiller=prefiller, step=step, rows=rows)


def device_rows(graphs, capacity=CAPACITY):
    return DeviceRows(graphs.rows, graphs.bundle.manifest.state, capacity, "cpu")


def arenas(graphs):
    """(slots, runner) with state in host memory, and with state on a device."""
    state = graphs.bundle.manifest.state
    vocabulary = len(graphs.bundle.tokenizers["output"].vocabulary)
    rows = device_rows(graphs)
    pairs = [
        (Slots(state, CAPACITY, vocabulary), GenerateRunner(graphs.prefiller, graphs.step.session)),
        (
            Slots(state, CAPACITY, vocabulary, rows),
            DeviceRunner(graphs.prefiller, graphs.step, rows),
        ),
    ]
    for slots, runner in pairs:
        runner.attach(slots.sides())
    return pairs


def same(first, second):
    assert first.keys() == second.keys()
    for name, rows in first.items():
        assert rows.tobytes() == second[name].tobytes(), name


def prefilled(graphs, random, count):
    prompts = [random.integers(1, 15, 1 + n % 9).tolist() for n in range(count)]
    return graphs.prefiller.prefill(prompts, [None] * count)


def step_both(pairs, live, random):
    uniforms = random.random(live, dtype=np.float32)
    for slots, runner in pairs:
        slots.controls["uniform"][:live] = uniforms
        runner.step(slots.side, live)
        slots.swap()
        slots.controls["token"][:live] = slots.next_token[:live]
    host, device = (slots for slots, _ in pairs)
    for name in ("next_token", "log_probability", "log_probabilities"):
        assert getattr(host, name)[:live].tobytes() == getattr(device, name)[:live].tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_any_moves_give_the_bits_of_host_memory(graphs, seed):
    """Rows taken, left, saved, gathered and stepped at random: both kinds of rows agree."""
    random = np.random.default_rng(seed)
    pairs, states, live = arenas(graphs), [None, *prefilled(graphs, random, 6)], 0
    for _ in range(300):
        move = random.choice(["take", "give", "save", "gather", "step", "step"])
        if move == "take" and live < CAPACITY:
            state = states[random.integers(len(states))]
            for slots, _ in pairs:
                slots.take(live, state)
                slots.control(live, token=1, temperature=0.9, top_p=0.95)
            live += 1
        elif live and move == "give":
            row = int(random.integers(live))
            live -= 1
            for slots, _ in pairs:
                slots.give(row, live)
        elif live and move == "save":
            row = int(random.integers(live))
            (host, _), (device, _) = pairs
            same(host.save(row), device.save(row))
            same(host.save_carried(row), device.save_carried(row))
            states.append(device.save(row))
        elif live and move == "gather":
            rows = random.permutation(live)[: random.integers(1, live + 1)].tolist()
            parents = random.choice(rows, len(rows)).tolist()
            for slots, _ in pairs:
                slots.gather(rows, parents)
        elif live and move == "step":
            step_both(pairs, live, random)
            (host, _), (device, _) = pairs
            host_rows, device_rows = host.current(), device.current()
            same({name: rows[:live] for name, rows in host_rows.items()},
                 {name: rows[:live] for name, rows in device_rows.items()})  # fmt: skip


def test_all_moves_between_two_steps_are_one_run(graphs):
    random = np.random.default_rng(0)
    (_, (slots, runner)), states = arenas(graphs), prefilled(graphs, random, 9)
    for row, state in enumerate(states):
        slots.take(row, state)
    slots.give(2, 8)
    slots.give(0, 7)
    slots.gather([1, 3], [3, 1])
    assert graphs.rows.runs == 0
    runner.step(slots.side, 7)
    assert graphs.rows.runs == 1
    for _ in range(5):
        slots.swap()
        runner.step(slots.side, 7)
    assert (graphs.rows.runs, graphs.step.runs) == (1, 6)


def test_bindings_are_made_once_for_each_bucket_and_direction(graphs):
    """Whatever the rows, and no step or move reads a buffer that it writes (see Counting)."""
    random = np.random.default_rng(1)
    (_, (slots, runner)), states = arenas(graphs), prefilled(graphs, random, CAPACITY)
    for _ in range(6):
        for row, state in enumerate(states):
            slots.take(row, state)
            runner.step(slots.side, row + 1)
            slots.swap()
        for row in reversed(range(CAPACITY)):
            slots.give(row, row)
    assert len(graphs.step.bound) <= 4 * len(runner.buckets)
    shapes = {ranges["out"]["next_token"] for ranges in graphs.step.bound.values()}
    assert len(shapes) == len(runner.buckets)


def test_unused_rows_are_never_read(graphs):
    """NaN in every row that belongs to nobody, on both sides, before each run."""
    random = np.random.default_rng(2)
    pairs, states = arenas(graphs), prefilled(graphs, random, CAPACITY)
    rows = pairs[1][0].rows
    lives = [1, 2, 5, 9, 11, 6, 3, 10, 4]
    live = 0
    for wanted in lives:
        for slots, _ in pairs:
            for row in range(live, wanted):
                slots.take(row, states[row])
                slots.control(row, token=1, temperature=1.0)
            for row in reversed(range(wanted, live)):
                slots.give(0, row)
        for side, buffers in enumerate(rows._sets):
            for buffer in buffers.values():
                current = rows.side if buffer.tensor.carried else rows.fixed_side
                buffer._value.numpy()[live if side == current else 0 :] = np.nan
        live = wanted
        for _ in range(3):
            step_both(pairs, live, random)
            assert np.isfinite(pairs[1][0].log_probability[:live]).all()
        assert all(np.isfinite(part[:live]).all() for part in rows.current().values())


def test_rows_that_belong_to_nobody_read_as_zeros(graphs):
    random = np.random.default_rng(3)
    (_, (slots, runner)), states = arenas(graphs), prefilled(graphs, random, 3)
    for row, state in enumerate(states):
        slots.take(row, state)
    runner.step(slots.side, 3)
    slots.swap()
    slots.give(0, 2)
    assert all(not rows[2:].any() for rows in slots.current().values())
    slots.clear(slots.capacity)
    assert not any(rows.any() for rows in slots.current().values())


@pytest.mark.parametrize(
    ("capacity", "buckets"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))],
)
def test_buckets_double_up_to_the_capacity(capacity, buckets):
    assert buckets_of(capacity) == buckets


def test_state_that_a_step_wants_on_the_host_is_refused(graphs):
    """Bound once, it would be copied once: every step would read the first state."""
    rows = SimpleNamespace(capacity=4, device="cuda", state=graphs.bundle.manifest.state)
    with pytest.raises(StateOnHost, match="hidden_0"):
        DeviceRunner(graphs.prefiller, graphs.step.session, rows)


# -- the engine on a device -------------------------------------------------------------------


def engines(graphs):
    is_conditioned = graphs.bundle.manifest.task != GENERATE
    model = generation_model(graphs.bundle, is_conditioned)
    rows = device_rows(graphs)
    on_host = GenerateRunner(graphs.prefiller, graphs.step.session)
    on_device = DeviceRunner(graphs.prefiller, graphs.step, rows)
    return (
        GenerateEngine(model, on_host, CAPACITY, Clock(), Recorder()),
        GenerateEngine(model, on_device, CAPACITY, Clock(), Recorder(), rows=rows),
    )


def some_request(random, seed):
    tokens = tuple(random.integers(1, 15, random.integers(1, 10)).tolist())
    count = int(random.integers(1, 40))
    if seed % 5 == 4:
        beam = Beam(width=3, best=2)
        return GenerateRequest(
            tokens, Sampling.of(seed, temperature=0.0), count, (), 100.0, beam=beam
        )
    sampling = Sampling.of(
        seed,
        temperature=float(random.choice([0, 0.7, 1.3])),
        top_k=int(random.choice([0, 4])),
        top_p=0.9,
    )
    return GenerateRequest(
        tokens, sampling, count, (), 100.0,
        samples=int(random.integers(1, 4)), checkpoints=ResumePolicy(every=7, at_end=True),
    )  # fmt: skip


def play(engine, seed):
    """Requests that arrive, pause for their readers, are cancelled or end, by a fixed script."""
    random = np.random.default_rng(seed)
    readers, running = [], []
    engine.warm((1, 2, 4, 8))
    for number in range(40):
        reader = Reader(room=int(random.choice([3, 9, 10**9])))
        progress = engine.open(some_request(random, number), reader)
        readers.append(reader)
        running.append((progress, reader))
        engine.arrive(progress)
        for _ in range(int(random.integers(0, 6))):
            engine.step()
        if random.random() < 0.2:
            engine.cancel(running.pop(int(random.integers(len(running))))[0])
        for progress, reader in running:
            if random.random() < 0.3:
                reader.room = len(reader.events) + int(random.integers(1, 20))
                engine.resume(progress)
    for progress, reader in running:
        reader.room = 10**9
        engine.resume(progress)
    while not engine.is_idle:
        engine.step()
    assert engine.scheduler.free_rows == CAPACITY
    return readers


def plain(event):
    """An event as text, a checkpoint's arrays by their bytes."""
    snapshot = getattr(event, "snapshot", None)
    if snapshot is None:
        return repr(event)
    return repr({name: part.tobytes() for name, part in snapshot.state.items()})


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_gives_the_same_events_from_a_device(graphs, seed):
    """Beams, pauses, cancels, samples and checkpoints, bit for bit, at any padding."""
    on_host, on_device = (play(engine, seed) for engine in engines(graphs))
    reported = [[plain(event) for event in reader.events] for reader in on_host]
    assert sum(map(len, reported)) > 400
    assert reported == [[plain(event) for event in reader.events] for reader in on_device]


# -- bundles and the service ------------------------------------------------------------------


@pytest.fixture
def pretended_cuda(monkeypatch):
    """Sessions say they are CUDA's; its memory is the host's."""
    monkeypatch.setattr(LoadedModel, "provider", CUDA_PROVIDER)
    monkeypatch.setitem(DEVICES, CUDA_PROVIDER, "cpu")


def without_rows(folder):
    edit_manifest(folder, lambda c: c["graphs"].pop("rows"))


def test_a_bundle_without_the_graph_rows_is_served_from_host_memory(models_copy):
    without_rows(models_copy / "letters" / "1")
    loaded, refused = load_models(models_copy, CPU)
    assert not refused
    assert all(model.rows is None for model in loaded)


@pytest.mark.usefixtures("pretended_cuda")
def test_a_bundle_without_the_graph_rows_is_refused_on_a_device(models_copy):
    without_rows(models_copy / "letters" / "1")
    loaded, refused = load_models(models_copy, CPU)
    assert sorted(model.bundle.manifest.name for model in loaded) == names_without("letters")
    assert "no graph 'rows'" in refused[0].reason
    assert "use --device cpu" in refused[0].reason


def test_the_graph_rows_must_move_the_whole_state(models_copy):
    edit_manifest(models_copy / "letters" / "1", lambda c: c["graphs"]["rows"]["outputs"].pop())
    _, refused = repository.load_models(models_copy, CPU)
    assert "outputs of 'rows'" in refused[0].reason


def test_the_service_streams_the_same_from_a_device(start_service, request):
    def asked(seed):
        sampling = unroll.Sampling(seed=seed)
        return {"max_tokens": 20, "sampling": sampling, "log_probabilities": True}

    def texts(service):
        with unroll.Client(service.target, timeout=30) as caller:
            return [
                [token for piece in pieces for token in piece.tokens]
                for seed in range(4)
                for pieces in (
                    caller.generate("letters", prompt="abc", **asked(seed)),
                    caller.generate("speller", source="abc", **asked(seed)),
                )
            ]

    on_host = texts(start_service())
    request.getfixturevalue("pretended_cuda")
    service = start_service()
    thread = service.app.registry.get("letters").thread
    assert isinstance(thread.engine.runner, DeviceRunner)
    assert texts(service) == on_host
