"""Watching a stream's state, and going on from a changed one, over real channels."""

import json

import numpy as np
import pytest
import torch

from tests import tiny
from unroll import Beam, Client, RequestFailed, Sampling, StateChange, Watch

REQUEST = {"prompt": "abc", "max_tokens": 40, "sampling": Sampling(temperature=1.0, seed=5)}
EVERY = 16
HEAD = 17  # magic, origin, key and length of a resume token


@pytest.fixture
def client(standing_service):
    with Client(standing_service.target) as client:
        yield client


class Stream:
    def __init__(self, chunks):
        chunks = list(chunks)
        self.tokens = [token for chunk in chunks for token in chunk.tokens]
        self.points = [point for chunk in chunks for point in chunk.resume_points]
        self.ids = [token.id for token in self.tokens]
        self.reported = [(t.id, t.text, t.position, t.log_probability) for t in self.tokens]


@pytest.fixture
def ask(client):
    def ask(model="letters", **options):
        return Stream(client.generate(model, failover=False, **options))

    return ask


def state_of(point):
    """Of a resume token, which is signed and not encrypted."""
    token = point.token
    end = HEAD + int.from_bytes(token[HEAD - 4 : HEAD], "little")
    state, at = {}, end
    for name, dtype, shape in json.loads(token[HEAD:end])["state"]:
        count = int(np.prod(shape))
        state[name] = np.frombuffer(token, dtype, count, at).reshape(shape)
        at += state[name].nbytes
    return state


def watched(token):
    return np.frombuffer(token.state, "<f2")


def units_of(client, model="letters"):
    return {tensor.name: tensor.units for tensor in client.get_model(model).state}


def test_what_is_watched_is_the_state_that_drew_the_token(client, ask):
    """A resume point after a token holds the state that it was drawn from."""
    names = list(units_of(client))
    stream = ask(**REQUEST, resume_every=EVERY, watch=Watch(names))
    for point in stream.points:
        state = state_of(point)
        expected = np.concatenate([state[name] for name in names]).astype("<f2")
        assert stream.tokens[point.next_position - 1].state == expected.tobytes()
    assert len({token.state for token in stream.tokens}) == len(stream.tokens)


def test_units_come_in_the_order_that_was_asked_for(client, ask):
    units = units_of(client)
    (name, size), *_ = units.items()
    whole = ask(**REQUEST, watch=Watch([name]))
    some = ask(**REQUEST, watch=Watch([name], [size - 1, 0]))
    for all_units, two in zip(whole.tokens, some.tokens, strict=True):
        assert watched(all_units)[[size - 1, 0]].tobytes() == two.state


def test_hidden_states_are_watched_where_none_is_named(client, ask):
    hidden = [n for name, n in units_of(client).items() if name.startswith("hidden_")]
    assert len(watched(ask(**REQUEST, watch=Watch()).tokens[0])) == sum(hidden)


def test_watching_changes_no_token(ask):
    plain = ask(**REQUEST, log_probabilities=True)
    assert ask(**REQUEST, log_probabilities=True, watch=Watch()).reported == plain.reported
    assert all(token.state == b"" for token in plain.tokens)


def test_samples_are_watched_apart(ask):
    stream = ask(**REQUEST, samples=3, watch=Watch())
    firsts = [token.state for token in stream.tokens if token.position == 1]
    assert len(firsts) == 3
    alone = ask(**REQUEST, watch=Watch())
    assert [t.state for t in stream.tokens if t.sample == 0] == [t.state for t in alone.tokens]


def test_held_back_tokens_are_watched_once_they_come(ask):
    whole = ask(**REQUEST, watch=Watch())
    text = "".join(token.text for token in whole.tokens)
    held = ask(**REQUEST, stop=[text[4:7] + "never"], watch=Watch())
    assert [t.state for t in held.tokens] == [t.state for t in whole.tokens]


def test_a_stop_text_held_at_a_resume_point_goes_on(ask):
    text = "".join(token.text for token in ask(**REQUEST).tokens)
    stop = [text[EVERY - 2 : EVERY + 1] + "never"]
    stream = ask(**REQUEST, stop=stop, resume_every=EVERY, watch=Watch())
    rest = ask(resume_token=stream.points[0].token, watch=Watch())
    assert stream.ids[stream.points[0].next_position :] == rest.ids


def changed(ask, point, *changes, **options):
    return ask(resume_token=point.token, set_state=changes, resume_at_end=True, **options)


def test_a_changed_unit_gives_another_stream_and_the_same_one_twice(client, ask):
    (name, size), *_ = units_of(client).items()
    point = ask(**REQUEST, resume_every=EVERY).points[0]
    plain = ask(resume_token=point.token, resume_at_end=True, log_probabilities=True)
    change = StateChange(name, range(size), [0.9] * size)
    once = changed(ask, point, change, log_probabilities=True)
    assert once.reported != plain.reported
    assert changed(ask, point, change, log_probabilities=True).reported == once.reported


def test_nothing_else_is_changed(client, ask):
    (name, size), *_ = units_of(client).items()
    first = ask(**REQUEST, resume_every=EVERY).points[0]
    # To the value that it has.
    own = float(state_of(first)[name][size - 1])
    same = changed(ask, first, StateChange(name, [size - 1], [own]), log_probabilities=True)
    plain = ask(resume_token=first.token, log_probabilities=True)
    assert same.reported == plain.reported


def test_a_digest_tells_changed_streams_apart(client, ask):
    (one, _), (other, _), *_ = units_of(client).items()
    point = ask(**REQUEST, resume_every=EVERY).points[0]
    assert point.changed == ""

    def digest(*changes):
        return changed(ask, point, *changes).points[-1].changed

    both = [StateChange(one, [0, 1], [0.5, 0.25]), StateChange(other, [1], [1.0])]
    assert len(digest(*both)) == 64
    assert digest(*both) == digest(*reversed(both))
    assert digest(*both) != digest(both[0])
    assert digest(StateChange(one, [0], [0.5])) != digest(StateChange(one, [0], [-0.5]))


def test_a_stream_stays_another_one_once_it_was_changed(client, ask):
    (name, _), *_ = units_of(client).items()
    point = ask(**REQUEST, resume_every=EVERY).points[0]
    fork = ask(
        resume_token=point.token, set_state=[StateChange(name, [0], [1.0])], resume_every=EVERY
    )
    further = ask(resume_token=fork.points[0].token, resume_at_end=True)
    assert fork.points[0].changed == further.points[-1].changed != ""
    again = changed(ask, fork.points[0], StateChange(name, [0], [1.0]))
    assert again.points[-1].changed not in ("", fork.points[0].changed)


REFUSED = {
    "no such tensor": ({"watch": Watch(["gate"])}, "has no state 'gate'; it has hidden_0"),
    "a tensor twice": ({"watch": Watch(["hidden_0", "hidden_0"])}, "has a name twice"),
    "no such unit": ({"watch": Watch((), [4096])}, r"watch\.units has 4096; choose 0 to"),
    "a unit twice": ({"watch": Watch((), [1, 1])}, r"watch\.units has a unit twice"),
    "beams": ({"watch": Watch(), "beam": Beam(2), "sampling": None}, "goes without watch"),
    "nothing to change": (
        {"set_state": [StateChange("hidden_0", [0], [1.0])]},
        "set_state changes what a resume token holds",
    ),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_a_watch_of_what_there_is_not_is_refused(ask, options, says):
    with pytest.raises(RequestFailed, match=f"INVALID_ARGUMENT.*{says}"):
        ask(**{**REQUEST, **options})


NO_CHANGES = {
    "no such tensor": ([StateChange("gate", [0], [1.0])], "no state 'gate'"),
    "no such unit": ([StateChange("hidden_0", [4096], [1.0])], r"units has 4096; choose"),
    "no unit": ([StateChange("hidden_0", [], [])], "0 units and 0 values"),
    "a value too few": ([StateChange("hidden_0", [0, 1], [1.0])], "2 units and 1 values"),
    "not a number": ([StateChange("hidden_0", [0], [float("nan")])], "not finite"),
    "twice": ([StateChange("hidden_0", [0], [1.0])] * 2, "was set before"),
}


@pytest.mark.parametrize(("changes", "says"), NO_CHANGES.values(), ids=NO_CHANGES)
def test_a_change_of_what_there_is_not_is_refused(ask, changes, says):
    point = ask(**REQUEST, resume_every=EVERY).points[0]
    with pytest.raises(RequestFailed, match=f"INVALID_ARGUMENT.*{says}"):
        changed(ask, point, *changes)


def test_tags_come_with_the_state_after_their_token(client):
    def states(watch=None):
        chunks = client.stream_tag("tags-online", [["cat", "Dog", "cat"]], watch=watch)
        return [token.state for chunk in chunks for token in chunk.tokens]

    assert states() == [b""] * 3
    size = sum(n for name, n in units_of(client, "tags-online").items() if "hidden" in name)
    assert [len(state) for state in states(Watch())] == [2 * size] * 3
    assert len(set(states(Watch()))) == 3


WORDS = [["the"], ["food", "was"], ["not"], ["bad"], ["and"], ["not", "great"]]


class Tags:
    def __init__(self, chunks):
        chunks = list(chunks)
        tokens = [token for chunk in chunks for token in chunk.tokens]
        self.reported = [(token.label, token.probability, token.position) for token in tokens]
        self.states = [token.state for token in tokens]
        (self.point,) = [point for chunk in chunks for point in chunk.resume_points]


@pytest.fixture
def tag(client):
    def tag(parts, *changes, **options):
        chunks = client.stream_tag(
            "tags-online", parts, set_state=changes, resume_at_end=True, watch=Watch(), **options
        )
        return Tags(chunks)

    return tag


def test_tags_go_on_from_a_changed_state(client, tag):
    """Another stream, and the same one twice; its digest goes on with it."""
    units = units_of(client, "tags-online")
    change = StateChange("hidden_0", range(units["hidden_0"]), [0.9] * units["hidden_0"])
    begun = tag(WORDS[:3])
    token = {"resume_token": begun.point.token}
    plain = tag(WORDS[3:], **token)
    forked, again = (tag(WORDS[3:], change, **token) for _ in range(2))
    assert plain.reported == tag(WORDS).reported[4:]
    assert forked.reported == again.reported != plain.reported
    assert forked.states != plain.states
    assert (begun.point.changed, plain.point.changed) == ("", "")
    assert len(forked.point.changed) == 64
    further = tag(WORDS, resume_token=forked.point.token)
    assert further.point.changed == forked.point.changed


def test_a_change_of_tags_to_what_they_are_changes_nothing(client, tag):
    begun = tag(WORDS[:3])
    token = {"resume_token": begun.point.token}
    own = state_of(begun.point)["cell_0"].tolist()
    same = tag(WORDS[3:], StateChange("cell_0", range(len(own)), own), **token)
    assert same.reported == tag(WORDS[3:], **token).reported
    assert same.point.changed != ""


@pytest.mark.parametrize(("changes", "says"), NO_CHANGES.values(), ids=NO_CHANGES)
def test_a_change_of_tags_of_what_there_is_not_is_refused(tag, changes, says):
    point = tag(WORDS[:1]).point
    with pytest.raises(RequestFailed, match=f"INVALID_ARGUMENT.*{says}"):
        tag(WORDS, *changes, resume_token=point.token)


def test_tags_that_begin_have_nothing_to_change(tag):
    with pytest.raises(RequestFailed, match="set_state changes what a resume token holds"):
        tag(WORDS, StateChange("hidden_0", [0], [1.0]))


def test_a_model_that_carries_nothing_lists_no_state(client):
    assert not client.get_model("mood").state


SOURCE = "abcab"


def looked_at(stream):
    return [watched(token).astype(np.float64) for token in stream.tokens]


def attend(ask, source=SOURCE, units=(), **options):
    sampling = Sampling(temperature=1.0, seed=3)
    watch = Watch(["attention"], units)
    return ask("speller", source=source, max_tokens=12, sampling=sampling, watch=watch, **options)


def test_attention_is_a_share_of_each_place_of_the_source(client, ask):
    places = client.get_model("speller").attended
    stream = attend(ask)
    rows = looked_at(stream)
    assert len(rows) > 1
    for row in rows:
        assert len(row) == places > len(SOURCE)
        assert row[: len(SOURCE)].sum() == pytest.approx(1, abs=0.01)
        assert (row[: len(SOURCE)] > 0).all()
        assert not row[len(SOURCE) :].any()
    assert len({token.state for token in stream.tokens}) > 1
    few = attend(ask, units=range(len(SOURCE)))
    assert [row[: len(SOURCE)].tolist() for row in rows] == [r.tolist() for r in looked_at(few)]


def test_attention_is_that_of_the_trained_model(client, ask):
    """Beside the model's own alignment of the same tokens."""
    trained = tiny.seq2seq()
    model = trained.build()
    stream = attend(ask)
    source = trained.tokenizers["input"].encode(SOURCE).ids
    begin = trained.tokenizers["output"].vocabulary.begin_id
    with torch.no_grad():
        state = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
        tokens = torch.tensor([[begin, *stream.ids[:-1]]])
        expected = model.align(tokens, state)[0].numpy()
    assert np.array(looked_at(stream)) == pytest.approx(expected, abs=1e-3)


def test_attention_has_the_same_bits_beside_others(client, ask):
    alone = attend(ask)
    many = attend(ask, samples=4)
    first = [token for token in many.tokens if token.sample == 0]
    assert [token.state for token in first] == [token.state for token in alone.tokens]
    plain = ask("speller", source=SOURCE, max_tokens=12, sampling=Sampling(temperature=1.0, seed=3))
    assert plain.ids == alone.ids
    assert all(not token.state for token in plain.tokens)


def test_attention_is_no_state(client, ask):
    assert "attention" not in units_of(client, "speller")
    point = ask("speller", source=SOURCE, max_tokens=1, resume_at_end=True).points[-1]
    change = StateChange("attention", [0], [1.0])
    with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*no state 'attention'"):
        ask("speller", resume_token=point.token, set_state=[change], max_tokens=2)
    with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*no state 'attention'"):
        client.embed("speller", [SOURCE], tensors=["attention"])
    assert client.get_model("letters").attended == 0
    with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*no state 'attention'"):
        ask(**REQUEST, watch=Watch(["attention"]))
