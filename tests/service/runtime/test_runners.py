"""The promise: on the CPU a row gets the same bits alone and in any batch."""

from dataclasses import dataclass

import numpy as np
import pytest

from bundle.store import read_bundle
from service.engine.slots import Slots
from service.runtime.probe import computes_alike
from service.runtime.runners import (
    WIDE_PROMPTS,
    FillRunner,
    GenerateRunner,
    PredictRunner,
    Prefiller,
    ScoreRunner,
    SteppedPrefiller,
    TagRunner,
    UnreadPrompts,
    generate_runner,
    prompt_reader,
)
from service.runtime.session_pair import SessionPair
from service.runtime.sessions import SessionSettings, open_session, open_state_path
from service.runtime.state_runner import StateRunner


@dataclass(frozen=True)
class Item:
    tokens: tuple[int, ...]
    targets: tuple[int, ...] = ()
    source: tuple[float, ...] = ()
    right: tuple[int, ...] = ()
    state: object = None
    keeps_state: bool = False


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def settings(request):
    return SessionSettings("cpu", "CPUExecutionProvider", request.param)


@pytest.fixture
def random():
    return np.random.default_rng(7)


def run_all(runner, items):
    """The results, whatever pieces they came in."""
    return list(runner.run(items))[-1]


def ids(random, count, top=15):
    return tuple(random.integers(1, top, count).tolist())


def test_predict_gives_a_text_the_same_bits_in_any_batch(tiny_models, settings, random):
    bundle = read_bundle(tiny_models / "mood" / "1")
    runner = PredictRunner(open_session(bundle, "predict", settings))
    items = [Item(ids(random, length, 9)) for length in (1, 40, 3, 17, 2, 64, 5)]
    together = run_all(runner, items)
    assert together == [run_all(runner, [item])[0] for item in items]
    assert together[1:3] == run_all(runner, items[1:3])


@pytest.mark.parametrize("name", ["tags", "tags-online"])
def test_tags_of_a_text_have_the_same_bits_in_any_batch(tiny_models, settings, random, name):
    """And end where the text does, whatever is longer beside it."""
    bundle = read_bundle(tiny_models / name / "1")
    runner = TagRunner(open_session(bundle, "predict", settings))
    items = [Item(ids(random, length, 9)) for length in (1, 40, 3, 17, 2, 64, 5)]
    together = run_all(runner, items)
    labels = len(bundle.manifest.labels)
    assert [rows.shape for rows in together] == [(len(i.tokens), labels) for i in items]
    for item, rows in zip(items, together, strict=True):
        (alone,) = run_all(runner, [item])
        assert alone.tobytes() == rows.tobytes()


def test_a_blank_has_the_same_bits_in_any_batch(tiny_models, settings, random):
    """Both sides are padded, each to the longest of its own."""
    bundle = read_bundle(tiny_models / "blank" / "1")
    runner = FillRunner(open_session(bundle, "predict", settings))
    lengths = ((1, 1), (40, 1), (1, 33), (7, 5), (5, 7), (30, 30))
    items = [Item(ids(random, n, 9), right=ids(random, m, 9)) for n, m in lengths]
    together = run_all(runner, items)
    assert len({rows.tobytes() for rows in together}) == len(items)
    for item, rows in zip(items, together, strict=True):
        (alone,) = run_all(runner, [item])
        assert alone.tobytes() == rows.tobytes()


def test_a_vector_prefills_the_same_bits_in_any_batch(tiny_models, settings, random):
    bundle = read_bundle(tiny_models / "foods" / "1")
    prefiller = Prefiller(open_session(bundle, "prime", settings), bundle.manifest.state)
    vectors = [tuple(row) for row in (1000 * random.random((9, 3))).tolist()]
    together = prefiller.prefill(vectors, [None] * 9)
    assert together[0].keys() == {tensor.name for tensor in bundle.manifest.state}
    for vector, state in zip(vectors, together, strict=True):
        (alone,) = prefiller.prefill([vector], [None])
        for name, part in state.items():
            assert alone[name].tobytes() == part.tobytes(), name


def test_a_model_without_a_state_leaves_prompts_unread(tiny_models, settings):
    bundle = read_bundle(tiny_models / "bigrams" / "1")
    sessions = {graph: open_session(bundle, graph, settings) for graph in ("step", "score")}
    runner = generate_runner(sessions, bundle.manifest.state)
    assert isinstance(runner.prefiller, UnreadPrompts)
    assert runner.prefill([(1, 2, 3), (4,)], [None, {}]) == [{}, {}]


@pytest.mark.parametrize("name", ["letters", "speller"])
def test_score_gives_a_text_the_same_bits_in_any_batch(tiny_models, settings, random, name):
    bundle = read_bundle(tiny_models / name / "1")
    manifest = bundle.manifest
    prefiller = Prefiller(open_session(bundle, "prime", settings), manifest.state)
    needs_source = name == "speller"
    session = open_session(bundle, "score", settings)
    runner = ScoreRunner(session, manifest.state, prefiller if needs_source else None)
    items = [
        Item(ids(random, n, 8), ids(random, n, 8), ids(random, s) if needs_source else ())
        for n, s in ((1, 1), (30, 10), (7, 4), (2, 9))
    ]
    together = run_all(runner, items)
    assert [len(row) for row in together] == [1, 30, 7, 2]
    assert together == [run_all(runner, [item])[0] for item in items]


def test_scoring_in_chunks_is_scoring_at_once(tiny_models, settings, random, monkeypatch):
    """Cuts change no bit, and rows that end early leave before the next chunk."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    runner = ScoreRunner(open_session(bundle, "score", settings), bundle.manifest.state, None)
    items = [Item(ids(random, n), ids(random, n)) for n in (5, 33, 16, 1)]
    whole = run_all(runner, items)
    monkeypatch.setattr("service.runtime.runners._SCORE_PIECE", 16)
    pieces = list(runner.run(items))
    assert pieces[-1] == whole
    assert pieces[:-1] == [None] * (len(pieces) - 1)
    assert len(pieces) == 4


@pytest.mark.parametrize("name", ["letters", "speller"])
def test_a_score_goes_on_from_a_state_that_another_kept(tiny_models, settings, random, name):
    """With the bits of the whole, beside items that begin and an item without a token to read."""
    bundle = read_bundle(tiny_models / name / "1")
    state = bundle.manifest.state
    prefiller = Prefiller(open_session(bundle, "prime", settings), state)
    needs_source = name == "speller"
    session = open_session(bundle, "score", settings)
    runner = ScoreRunner(session, state, prefiller if needs_source else None)
    tokens, targets = ids(random, 9, 8), ids(random, 9, 8)
    source = ids(random, 5) if needs_source else ()
    whole = Item(tokens, targets, source)
    kept = Item(tokens[:4], targets[:4], source, keeps_state=True)
    unread = Item((), (), source, keeps_state=True)
    alone, after, before = run_all(runner, [whole, kept, unread])
    rest = Item(tokens[4:], targets[4:], state=after)
    again = Item(tokens, targets, state=before or None)
    assert run_all(runner, [rest, whole, again]) == [alone[4:], alone, alone]


def test_a_kept_state_of_nan_is_none(tiny_models, settings, random):
    bundle = read_bundle(tiny_models / "letters" / "1")
    session = open_session(bundle, "score", settings)
    items = [Item(ids(random, 5), ids(random, 5), keeps_state=True) for _ in range(2)]
    broken = Broken(session, "next_hidden_0", 1, np.nan)
    first, second = run_all(ScoreRunner(broken, bundle.manifest.state, None), items)
    assert (set(first), second) == ({tensor.name for tensor in bundle.manifest.state}, None)


@pytest.mark.parametrize("name", ["letters", "tags-online", "speller", "int8"])
def test_a_text_leaves_the_same_state_in_any_batch(
    tiny_models, settings, random, monkeypatch, name
):
    """Whole or in pieces, and it is the one that streams begin with."""
    bundle = read_bundle(tiny_models / ("letters" if name == "int8" else name) / "1")
    state = bundle.manifest.state
    roles = {"tags-online": {"step": "step"}, "int8": {"step": "step_int8"}}.get(
        name, {"prime": "prime", "step": "step"}
    )
    sessions = {role: open_session(bundle, graph, settings) for role, graph in roles.items()}
    names = [tensor.name for tensor in state if tensor.dtype == "float32" and tensor.carried]
    items = [Item(ids(random, length, 9)) for length in (3, 10, 1, 7)]
    runner = StateRunner(prompt_reader(sessions, state), names, whole=name == "speller")
    together = run_all(runner, items)
    monkeypatch.setattr("service.runtime.state_runner._PIECE", 5)
    expected = generate_runner(sessions, state).prefill([i.tokens for i in items], [None] * 4)
    for item, found, begun in zip(items, together, expected, strict=True):
        (alone,) = run_all(runner, [item])
        assert list(found) == names
        for part in names:
            assert found[part].tobytes() == alone[part].tobytes() == begun[part].tobytes(), part


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_prefill_in_chunks_is_as_at_once(tiny_models, settings, random, chunk):
    bundle = read_bundle(tiny_models / "letters" / "1")
    prefiller = Prefiller(open_session(bundle, "prime", settings), bundle.manifest.state)
    prompts = [ids(random, 41), ids(random, 60), ids(random, 7)]
    whole = prefiller.prefill(prompts, [None] * 3)
    for prompt, expected in zip(prompts, whole, strict=True):
        state = None
        for start in range(0, len(prompt), chunk):
            (state,) = prefiller.prefill([prompt[start : start + chunk]], [state])
        for name, part in expected.items():
            assert np.array_equal(state[name], part), name


def arena_of(bundle, capacity):
    return Slots(bundle.manifest.state, capacity, len(bundle.tokenizers["output"].vocabulary))


@pytest.mark.parametrize(
    ("name", "step"), [("letters", "step"), ("letters", "step_int8"), ("speller", "step")]
)
def test_steps_give_a_row_the_same_bits_in_any_batch(tiny_models, settings, random, name, step):
    """Thirty steps of nine rows, together and each alone: same tokens, same log-probabilities."""
    bundle = read_bundle(tiny_models / name / "1")
    prefiller = Prefiller(open_session(bundle, "prime", settings), bundle.manifest.state)
    runner = GenerateRunner(prefiller, open_session(bundle, step, settings))
    states = prefiller.prefill([ids(random, n) for n in (1, 9, 3, 10, 2, 7, 5, 6, 8)], [None] * 9)
    uniforms = random.random((30, 9), dtype=np.float32)

    def run(rows):
        slots = arena_of(bundle, capacity=16)
        runner.attach(slots.sides())
        for row, which in enumerate(rows):
            slots.take(row, states[which])
            slots.control(row, token=1, temperature=0.9, top_p=0.95)
        made = []
        for uniform in uniforms:
            slots.controls["uniform"][: len(rows)] = uniform[list(rows)]
            runner.step(slots.side, len(rows))
            slots.swap()
            slots.controls["token"][: len(rows)] = slots.next_token[: len(rows)]
            made.append(
                (slots.next_token[: len(rows)].copy(), slots.log_probability[: len(rows)].copy())
            )
        tokens, log_probabilities = (np.stack(part, axis=1) for part in zip(*made, strict=True))
        return tokens, log_probabilities

    tokens, log_probabilities = run(range(9))
    assert len(np.unique(tokens)) > 3
    for row in range(9):
        alone, alone_log_probabilities = run([row])
        assert np.array_equal(alone[0], tokens[row])
        assert np.array_equal(alone_log_probabilities[0], log_probabilities[row])


def test_a_step_leaves_the_other_rows_alone(tiny_models, settings):
    """Rows beyond the batch hold NaN before and after; none of it is read or written."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    prefiller = Prefiller(open_session(bundle, "prime", settings), bundle.manifest.state)
    runner = GenerateRunner(prefiller, open_session(bundle, "step", settings))
    slots = arena_of(bundle, capacity=4)
    runner.attach(slots.sides())
    for side in slots.sides():
        for array in (*side.inputs.values(), *side.outputs.values()):
            if array.dtype == np.float32:
                array[2:] = np.nan
    for row in range(2):
        slots.control(row, temperature=1.0)
    for _ in range(2):
        runner.step(slots.side, 2)
        slots.swap()
    assert np.isfinite(slots.log_probability[:2]).all()
    for rows in slots.current().values():
        assert np.isfinite(rows[:2]).all()
        assert np.isnan(rows[2:]).all()


class Counted:
    """A session that counts its runs."""

    def __init__(self, session):
        self._session, self.runs = session, 0

    def run(self, *given):
        self.runs += 1
        return self._session.run(*given)

    def __getattr__(self, name):
        return getattr(self._session, name)


def test_what_is_left_of_a_few_long_prompts_is_read_on_one_thread(tiny_models, settings, random):
    """Newcomers, and many that go on, on whichever number is faster."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    prime = open_session(bundle, "prime", settings)
    wide = Counted(prime)
    pair = SessionPair(Counted(prime), lambda: wide)
    prefiller = Prefiller(pair, bundle.manifest.state)
    states = [None] * WIDE_PROMPTS
    for _ in range(3):
        states = prefiller.prefill([ids(random, 5) for _ in states], states)
    before = wide.runs
    assert before
    for count in range(1, WIDE_PROMPTS):
        prefiller.prefill([ids(random, 5)] * count, states[:count])
    assert wide.runs == before
    for _ in range(2):
        prefiller.prefill([ids(random, 5)], [None])
    assert wide.runs == before + 1


@pytest.mark.parametrize("graph", ["step", "step_int8"])
def test_a_stepped_prompt_is_what_steps_make_of_it(tiny_models, settings, random, graph):
    """Together, alone, in chunks and in more rows than fit: one state, to the bit."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    prefiller = SteppedPrefiller(
        open_session(bundle, graph, settings), bundle.manifest.state, rows=4
    )
    prompts = [ids(random, n) for n in (3, 9, 1, 5, 5, 2)]
    together = prefiller.prefill(prompts, [None] * 6)
    for prompt, state in zip(prompts, together, strict=True):
        (alone,) = prefiller.prefill([prompt], [None])
        cut = None
        for start in range(0, len(prompt), 2):
            (cut,) = prefiller.prefill([prompt[start : start + 2]], [cut])
        for name, part in state.items():
            assert part.tobytes() == alone[name].tobytes() == cut[name].tobytes()


@pytest.mark.parametrize("graph", ["step", "step_int8"])
def test_the_state_path_reads_prompts_as_whole_steps_do(tiny_models, settings, random, graph):
    """To the bit, alone and together, where many prompts are read by whole steps, too."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    state, step = bundle.manifest.state, open_session(bundle, graph, settings)
    path = open_state_path(bundle, graph, settings)
    assert computes_alike(path, step, 9)
    read = {port.name for part in path for port in part.get_inputs()}
    assert {"token", *(t.name for t in state)} <= read
    whole = SteppedPrefiller(step, state)
    by_path = SteppedPrefiller(SessionPair(step, lambda: step), state, state_path=path)
    prompts = [ids(random, length) for length in (3, 9, 1, *[5] * 40)]
    expected = whole.prefill(prompts, [None] * len(prompts))
    together = by_path.prefill(prompts, [None] * len(prompts))
    for prompt, one, other in zip(prompts, expected, together, strict=True):
        (alone,) = by_path.prefill([prompt], [None])
        for name, part in one.items():
            assert part.tobytes() == other[name].tobytes() == alone[name].tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_a_prompt_read_layer_by_layer_is_what_whole_steps_make_of_it(tiny_models, settings, seed):
    """Any number of prompts of any lengths, longer than a piece, from any state; and whoever is
    read next starts from nothing of them."""
    bundle, random = read_bundle(tiny_models / "letters" / "1"), np.random.default_rng(seed)
    state, step = bundle.manifest.state, open_session(bundle, "step_int8", settings)
    path = open_state_path(bundle, "step_int8", settings)
    assert len(path) == 2, "a part for each layer"
    whole, by_layer = SteppedPrefiller(step, state), SteppedPrefiller(step, state, state_path=path)
    for _ in range(4):
        lengths = random.choice([1, 2, 7, 63, 64, 65, 130], random.integers(1, 9))
        prompts = [ids(random, int(length)) for length in lengths]
        states = [
            {t.name: random.uniform(-1, 1, t.shape).astype(t.dtype) for t in state}
            if random.random() < 0.5
            else None
            for _ in prompts
        ]
        expected = whole.prefill(prompts, states)
        found = by_layer.prefill(prompts, states)
        for one, other in zip(expected, found, strict=True):
            assert one.keys() == other.keys()
            assert all(part.tobytes() == other[name].tobytes() for name, part in one.items())


def test_a_part_that_rounds_otherwise_is_found_out(tiny_models, settings):
    bundle = read_bundle(tiny_models / "letters" / "1")
    path = open_state_path(bundle, "step_int8", settings)
    assert not computes_alike(path, open_session(bundle, "step", settings), 9)


def test_a_stepped_prompt_is_near_the_sequence_operators(tiny_models, settings, random):
    """The same model, read token by token."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    state = bundle.manifest.state
    prompts = [ids(random, n) for n in (3, 9, 1)]
    stepped = SteppedPrefiller(open_session(bundle, "step", settings), state)
    whole = Prefiller(open_session(bundle, "prime", settings), state)
    for one, other in zip(
        stepped.prefill(prompts, [None] * 3), whole.prefill(prompts, [None] * 3), strict=True
    ):
        for name, part in one.items():
            np.testing.assert_allclose(part, other[name], atol=1e-5)


class Broken:
    """A session whose output is NaN or infinite in row ``row``, in its first column."""

    def __init__(self, session, output, row, value):
        self.session, self.output, self.row, self.value = session, output, row, value

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, names, feed):
        outputs = self.session.run(names, feed)
        outputs[names.index(self.output)][self.row].flat[0] = self.value
        return outputs


def two_sided(random, length):
    return Item(ids(random, length, 9), right=ids(random, length, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "graph", "runner", "make"),
    [
        ("mood", "predict", PredictRunner, lambda r, n: Item(ids(r, n, 9))),
        ("tags", "predict", TagRunner, lambda r, n: Item(ids(r, n, 9))),
        ("blank", "predict", FillRunner, two_sided),
    ],
    ids=["predict", "tag", "fill"],
)
def test_a_row_of_nan_is_none_and_the_others_are_as_they_were(
    tiny_models, settings, random, name, graph, runner, make, value
):
    session = open_session(read_bundle(tiny_models / name / "1"), graph, settings)
    items = [make(random, length) for length in (3, 5, 2)]
    expected = run_all(runner(session), items)
    found = run_all(runner(Broken(session, "probabilities", 1, value)), items)
    assert found[1] is None
    for place in (0, 2):
        assert np.array_equal(found[place], expected[place])


def test_a_score_of_nan_is_none_and_one_of_what_cannot_be_is_not(tiny_models, settings, random):
    bundle = read_bundle(tiny_models / "letters" / "1")
    session = open_session(bundle, "score", settings)
    items = [Item(ids(random, 5), ids(random, 5)) for _ in range(3)]

    def scores(value):
        broken = Broken(session, "log_probabilities", 1, value)
        return run_all(ScoreRunner(broken, bundle.manifest.state, None), items)

    expected = run_all(ScoreRunner(session, bundle.manifest.state, None), items)
    for value in (np.nan, np.inf):
        assert scores(value) == [expected[0], None, expected[2]]
    assert scores(-np.inf)[1] == [-np.inf, *expected[1][1:]]
