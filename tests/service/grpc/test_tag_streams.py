"""StreamTag over real channels: words in as they come, the same labels whatever else runs."""

import queue
import random
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import grpc
import pytest

from bench.servers import Server
from service.config import Config
from tests import tiny
from tests.conftest import RunningService
from training.models.options import RecurrentOptions
from unroll import Client, RequestFailed, Sampling
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

MODEL = "varied"
WORDS = random.Random(3).choices((*tiny.WORDS, "cat", "Dog"), k=60)
# A caller that takes little ahead of its reads, on a connection of its own.
SMALL_WINDOW = (
    ("grpc.http2.lookahead_bytes", 4096),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
ADDRESSES = {"device": "cpu", "address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def models(tiny_models, tmp_path_factory):
    """A tagger whose labels vary and that feeds them back, one that reads both sides."""
    root = tmp_path_factory.mktemp("tagging")
    for name in ("letters", "tags"):
        shutil.copytree(tiny_models / name, root / name)
    options = RecurrentOptions("lstm", 9, recurrence="hidden_and_output")
    tiny.export(tiny.tagger(MODEL, options, seed=43), root / MODEL / "1")
    return root


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("00112233445566778899aabbccddeeff\n")
    return path


@pytest.fixture(scope="module")
def shared(models, keys):
    service = RunningService(Config(models=models, resume_keys=keys, **ADDRESSES))
    yield service
    service.stop()


@pytest.fixture
def client(shared):
    with Client(shared.target, timeout=30) as client:
        yield client


@pytest.fixture
def start(models, start_service):
    return partial(start_service, models=models)


def streams_of(service):
    return service.app.registry.get(MODEL).stream


def requests(service, code):
    labels = {"model": MODEL, "method": "StreamTag", "code": code}
    return service.metric("unroll_requests_total", **labels)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def nothing_is_left(service):
    streams = streams_of(service)
    wait_until(lambda: service.app.inflight.calls == 0 and streams.thread.open_work == 0)
    wait_until(lambda: not streams.engine.scheduler.everyone())
    assert streams.engine.scheduler.free_rows == streams.engine.scheduler.capacity


class Reported:
    """All messages of a stream, gathered."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.tokens = [token for piece in self.pieces for token in piece.tokens]
        self.points = [point for piece in self.pieces for point in piece.resume_points]
        self.end = self.pieces[-1].end if self.pieces else None


class Conversation:
    """A call whose parts are sent one at a time."""

    def __init__(self, client, **options):
        self.parts = queue.Queue()
        self.pieces = client.stream_tag(MODEL, iter(self.parts.get, None), **options)

    def ask(self, *words):
        """The labels of ``words``, which are sent together."""
        self.parts.put(list(words))
        tokens = []
        while len(tokens) < len(words):
            tokens += next(self.pieces).tokens
        return tokens

    def end(self):
        self.parts.put(None)
        return Reported(self.pieces)


@contextmanager
def conversation(client, **options):
    talk = Conversation(client, **options)
    try:
        yield talk
    finally:
        talk.parts.put(None)
        talk.pieces.close()


# -- labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_per_message", [0, 1, 4, 1024])
def test_each_token_is_answered_before_the_next_one_is_known(client, tokens_per_message):
    """Whatever a message should hold: what is answered does not wait for what is not sent."""
    with conversation(client, tokens_per_message=tokens_per_message) as talk:
        asked = [talk.ask(*words) for words in (WORDS[:1], WORDS[1:4], WORDS[4:5], WORDS[5:20])]
        end = talk.end().end
    assert [token.text for tokens in asked for token in tokens] == WORDS[:20]
    assert [token.position for tokens in asked for token in tokens] == list(range(20))
    assert end.tokens == 20
    assert end.unknown_symbols == sum(word.lower() not in tiny.WORDS for word in WORDS[:20])


def test_labels_are_those_of_tag(client):
    """Its graph reads the whole text with the same step."""
    (whole,) = client.tag(MODEL, [WORDS])
    reported = Reported(client.stream_tag(MODEL, [WORDS], top=3)).tokens
    assert len({token.label for token in reported}) > 2, "labels vary"
    assert [(t.text, t.label, t.position) for t in reported] == [
        (t.text, t.label, t.position) for t in whole.tokens
    ]
    for token, same in zip(reported, whole.tokens, strict=True):
        assert token.probability == pytest.approx(same.probability, abs=1e-6)
        assert token.top[0] == (token.label, token.probability)
        assert len(token.top) == 3


def test_texts_are_split_and_words_are_not(client):
    reported = Reported(
        client.stream_tag(MODEL, ["The food isn't", "", [], " bad!", ["not good", "x"]])
    )
    assert [token.text for token in reported.tokens] == [
        "The", "food", "isn't", "bad", "!", "not good", "x",
    ]  # fmt: skip
    assert [token.position for token in reported.tokens] == list(range(7))


def in_pieces(words, choose):
    words = list(words)
    while words:
        count = choose.randint(1, 12)
        yield words[:count]
        del words[:count]


def test_a_stream_is_the_same_bits_alone_and_beside_others_in_pieces_of_any_size(start, client):
    """Twelve at once on four rows, each cut at random, against each alone and in one piece."""
    choose = random.Random(11)
    inputs = [[choose.choice(WORDS) for _ in range(choose.randint(1, 700))] for _ in range(12)]
    alone = [Reported(client.stream_tag(MODEL, [words])).tokens for words in inputs]
    crowded = start(max_streams=4)
    found = [None] * len(inputs)

    def read(number):
        pieces = in_pieces(inputs[number], random.Random(number))
        with Client(crowded.target, timeout=60) as caller:
            found[number] = Reported(caller.stream_tag(MODEL, pieces)).tokens

    threads = [threading.Thread(target=read, args=(n,)) for n in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == alone
    nothing_is_left(crowded)


# -- resume tokens --------------------------------------------------------------------------


def test_a_stream_goes_on_elsewhere_from_each_resume_point(client, models, keys):
    whole = Reported(client.stream_tag(MODEL, [WORDS], resume_every=16, resume_at_end=True))
    assert [point.next_position for point in whole.points] == [16, 32, 48, 60]
    elsewhere = RunningService(Config(models=models, resume_keys=keys, **ADDRESSES))
    try:
        with Client(elsewhere.target, timeout=30) as other:
            for point in whole.points:
                rest = [WORDS[point.next_position :], WORDS[:5]]
                resumed = Reported(other.stream_tag(MODEL, rest, resume_token=point.token))
                straight = Reported(client.stream_tag(MODEL, [WORDS, WORDS[:5]]))
                assert resumed.tokens == straight.tokens[point.next_position :]
                assert resumed.end.tokens == len(resumed.tokens)
    finally:
        elsewhere.stop()


def test_resume_tokens_of_other_calls_are_refused_and_say_where_to_send_them(client):
    tag = Reported(client.stream_tag(MODEL, [WORDS[:2]], resume_at_end=True)).points[0].token
    pieces = client.generate("letters", prompt="a", max_tokens=2, resume_at_end=True)
    (made,) = [point.token for piece in pieces for point in piece.resume_points]
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*send it to Generate"):
        Reported(client.stream_tag(MODEL, [WORDS], resume_token=made))
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*send it to StreamTag"):
        list(client.generate("letters", resume_token=tag, sampling=Sampling(seed=1)))


# -- refusals -------------------------------------------------------------------------------


def start_part(**fields):
    return pb.StreamTagRequest(start=pb.StreamTagStart(**{"model": MODEL, **fields}))


def words_part(*words):
    return pb.StreamTagRequest(words=pb.Words(words=words))


# What is sent, how many tokens are answered, the status and what it says.
REFUSALS = {
    "nothing": ([], 0, "INVALID_ARGUMENT", "the first request has no start"),
    "no start": ([words_part("a")], 0, "INVALID_ARGUMENT", "the first request has no start"),
    "an unknown model": ([start_part(model="x")], 0, "NOT_FOUND", "no model 'x'"),
    "an unknown version": ([start_part(model_version="7")], 0, "NOT_FOUND", "not '7'"),
    "another task": (
        [start_part(model="letters")], 0, "INVALID_ARGUMENT", "call Generate, Score or Embed",
    ),
    "both sides": (
        [start_part(model="tags")], 0, "INVALID_ARGUMENT",
        "model 'tags' needs the tokens to the right of each, too; call Tag",
    ),
    "too many labels": (
        [start_part(top_labels=21)], 0, "INVALID_ARGUMENT", "top_labels is 21; choose up to 20",
    ),
    "too many checkpoints": (
        [start_part(resume_every=3)], 0, "INVALID_ARGUMENT", "resume_every is 3",
    ),
    "too long messages": (
        [start_part(tokens_per_message=1025)], 0, "INVALID_ARGUMENT", "tokens_per_message is 1025",
    ),
    "no resume token": (
        [start_part(resume_token=b"x")], 0, "INVALID_ARGUMENT", "no resume token of this release",
    ),
    "another start": (
        [start_part(), words_part("a"), start_part()], 1, "INVALID_ARGUMENT", "another start",
    ),
    "neither text nor words": (
        [start_part(), words_part("a"), pb.StreamTagRequest()], 1, "INVALID_ARGUMENT",
        "neither text nor words",
    ),
    "an empty word": (
        [start_part(), words_part(*["good"] * 500), words_part("a", ""), words_part("b")], 500,
        "INVALID_ARGUMENT", r"words\[1\] is empty",
    ),
    "too long a text": (
        [start_part(), words_part("a", "b"), pb.StreamTagRequest(text="x" * 131_073)], 2,
        "INVALID_ARGUMENT", "text has 131073 characters; send at most 131072",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_ends_the_call_after_the_answers_owed(shared, case):
    parts, answered, code, message = REFUSALS[case]
    responses = []
    with grpc.insecure_channel(shared.target) as channel:
        call = unroll_pb2_grpc.UnrollServiceStub(channel).StreamTag(iter(parts), timeout=20)
        with pytest.raises(grpc.RpcError, match=message) as caught:
            responses.extend(call)
    assert caught.value.code().name == code
    tokens = [token for response in responses for token in response.tokens]
    assert [token.position for token in tokens] == list(range(answered))
    nothing_is_left(shared)


def test_a_full_queue_refuses(start):
    service = start(max_streams=1, max_queue=1)
    with (
        Client(service.target, timeout=30) as client,
        conversation(client) as one,
        conversation(client) as other,
    ):
        assert one.ask("good")
        assert other.ask("good")
        with pytest.raises(RequestFailed, match="RESOURCE_EXHAUSTED") as caught:
            Reported(client.stream_tag(MODEL, ["good"]))
        assert caught.value.retry_after_seconds


# -- waiting and leaving --------------------------------------------------------------------


def test_streams_that_wait_for_their_callers_hold_no_row(start):
    """On one row four callers take turns, word by word."""
    service = start(max_streams=1)
    with Client(service.target, timeout=30) as client:
        talks = [Conversation(client) for _ in range(4)]
        found = [[talk.ask(word)[0].label for talk in talks] for word in WORDS[:6]]
        assert service.metric("unroll_paused_streams", model=MODEL) == 4
        assert [talk.end().end.tokens for talk in talks] == [6] * 4
    assert all(len(set(labels)) == 1 for labels in found)
    nothing_is_left(service)
    assert service.metric("unroll_paused_streams", model=MODEL) == 0
    closed = {"model": MODEL, "reason": "closed"}
    assert service.metric("unroll_streams_finished_total", **closed) == 4
    assert service.metric("unroll_tokens_total", model=MODEL, direction="out") == 24
    assert requests(service, "OK") == 4


def endless(start):
    """Requests that never stop coming, with much to send for each token."""
    yield start
    while True:
        yield words_part(*["good"] * 100)


@contextmanager
def reading_slowly(service):
    """A call that sends without end and reads its first message only."""
    with grpc.insecure_channel(service.target, SMALL_WINDOW) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        call = stub.StreamTag(endless(start_part(top_labels=5)), timeout=120)
        try:
            yield next(call), call
        finally:
            call.cancel()


def test_a_reader_that_stalls_is_given_up(start):
    service = start(stall_seconds=0.2)
    with reading_slowly(service) as (_, call):
        wait_until(lambda: requests(service, "ABORTED") == 1)
        nothing_is_left(service)
        with pytest.raises(grpc.RpcError, match=r"nothing was read for 0.2 s"):
            list(call)


def test_a_caller_that_sends_and_does_not_read_is_read_no_further(start, monkeypatch):
    """Of what it sends, so much waits and no more; others are answered meanwhile."""
    from service.serving import online_tagger

    waiting = []
    watch = online_tagger.TagStream._watch_room

    def watched(stream):
        waiting.append(stream.waiting)
        watch(stream)

    monkeypatch.setattr(online_tagger.TagStream, "_watch_room", watched)
    service = start()
    with reading_slowly(service), Client(service.target, timeout=30) as client:
        wait_until(lambda: max(waiting, default=0) >= online_tagger.MOST_WAITING)
        wait_until(lambda: service.metric("unroll_paused_streams", model=MODEL) == 1)
        assert len(Reported(client.stream_tag(MODEL, [WORDS])).tokens) == len(WORDS)
    assert max(waiting) < online_tagger.MOST_WAITING + 100
    nothing_is_left(service)


@pytest.mark.parametrize("state", ["silent", "running"])
@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
def test_whoever_leaves_frees_everything(start, state, how):
    service = start()
    parts = queue.Queue()
    channel = grpc.insecure_channel(service.target)
    stub = unroll_pb2_grpc.UnrollServiceStub(channel)
    feed = iter(parts.get, None) if state == "silent" else endless(start_part())
    parts.put(start_part())
    parts.put(words_part("good"))
    call = stub.StreamTag(feed, timeout=0.5 if how == "deadline" else 60)
    assert next(call).tokens
    if how == "cancel":
        call.cancel()
    elif how == "disconnect":
        channel.close()
    else:
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(call)
    nothing_is_left(service)
    # A client that has waited long enough resets the call, as the server comes to end it.
    codes = ("DEADLINE_EXCEEDED", "CANCELLED") if how == "deadline" else ("CANCELLED",)
    wait_until(lambda: sum(requests(service, code) for code in codes) == 1)
    parts.put(None)
    channel.close()


def test_a_stop_lets_callers_finish_within_the_grace(start):
    service = start()
    with Client(service.target, timeout=30) as client, conversation(client) as talk:
        assert talk.ask("good")
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        wait_until(lambda: service.app.inflight.is_closed)
        assert talk.ask("bad", "food")
        assert talk.end().end.tokens == 3
        stopping.join(20)


def test_a_stop_hands_over_callers_that_are_silent(start):
    service = start(grace_seconds=0.2)
    with (
        Client(service.target, timeout=30) as client,
        conversation(client, failover=False) as talk,
    ):
        assert talk.ask("good")
        assert service.stop() is True
        last = talk.end()
    assert [point.next_position for point in last.points] == [1]
    assert (last.end.handed_over, last.end.requests_read) == (True, 1)


def test_a_broken_engine_fails_its_streams_and_no_whole_texts(start, monkeypatch, caplog):
    service = start()

    def broken(side, rows):
        raise RuntimeError("the kernel broke")

    with Client(service.target, timeout=30) as client, conversation(client) as silent:
        assert silent.ask("good")
        monkeypatch.setattr(streams_of(service).engine.runner, "step", broken)
        with pytest.raises(RequestFailed, match=r"INTERNAL.*engine of model 'varied' failed"):
            Reported(client.stream_tag(MODEL, ["good"]))
        with pytest.raises(RequestFailed, match="INTERNAL"):
            silent.end()
        assert client.tag(MODEL, ["good"])


def test_what_the_callers_own_words_raise_is_raised_again(client):
    def words():
        yield "good food"
        raise OSError("the disk is gone")

    pieces = []
    with pytest.raises(OSError, match="the disk is gone"):
        pieces.extend(client.stream_tag(MODEL, words()))
    assert [token.text for piece in pieces for token in piece.tokens] == ["good", "food"]


def test_a_stream_may_be_left_without_a_word(shared):
    with grpc.insecure_channel(shared.target) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        (only,) = stub.StreamTag(iter([start_part(resume_at_end=True)]), timeout=20)
    assert not only.tokens
    assert only.usage.time_to_first_token_seconds == 0
    assert [point.next_position for point in only.resume_points] == [0]
    nothing_is_left(shared)


# -- a long life ----------------------------------------------------------------------------

# What a process may grow by: pages of its allocators, none of them a token's.
_MOST_GROWTH = 8 * 2**20
_WORDS_A_MESSAGE = 100


def test_a_soaked_stream_costs_a_token_the_same_from_first_to_last(models, soak):
    """Fed as fast as it takes, read as fast as it comes: nothing of a token stays behind."""
    command = ["service", "serve", "--models", str(models), "--device", "cpu"]
    command += ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--threads", "1"]
    command += ["--propagation-seconds", "0"]
    words = random.Random(1).choices(tiny.WORDS, k=_WORDS_A_MESSAGE)
    quarter, reported, places = soak.tokens // 4, 0, []
    with Server("soaked", command) as server, Client(server.target, timeout=280) as client:
        Reported(client.stream_tag(MODEL, [WORDS] * 20))  # what first runs allocate
        parts = (words for _ in range(soak.tokens // _WORDS_A_MESSAGE))
        places.append(Place.of(server))
        for piece in client.stream_tag(MODEL, parts):
            for token in piece.tokens:
                assert (token.position, token.text) == (
                    reported,
                    words[reported % _WORDS_A_MESSAGE],
                )
                reported += 1
                if reported % quarter == 0:
                    places.append(Place.of(server))
    assert reported == soak.tokens
    middle, end = places[2].rss_bytes, places[4].rss_bytes
    assert end - places[1].rss_bytes < _MOST_GROWTH
    soak.report(
        f"{reported} tokens through one stream of tags: {_mib(places[0].rss_bytes)} at its start, "
        f"{_mib(middle)} in its middle, {_mib(end)} at its end; server CPU a token "
        f"{_each(places[:2], quarter):.0f} µs in the first quarter, "
        f"{_each(places[3:], quarter):.0f} µs in the last; {_rate(places, reported):.0f} tokens/s"
    )


@dataclass(frozen=True)
class Place:
    """Of the server, at one point of the stream. seconds: on the caller's clock."""

    rss_bytes: int
    cpu_seconds: float
    seconds: float

    @classmethod
    def of(cls, server):
        return cls(server.memory_bytes()[0], server.cpu_seconds(), time.perf_counter())


def _mib(size):
    return f"{size / 2**20:.1f} MiB"


def _each(places, tokens):
    """Microseconds of processor time a token."""
    return 1e6 * (places[-1].cpu_seconds - places[0].cpu_seconds) / tokens


def _rate(places, tokens):
    return tokens / (places[-1].seconds - places[0].seconds)
