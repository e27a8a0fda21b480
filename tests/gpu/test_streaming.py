"""The service on CUDA as its callers see it, against the same service on the CPU."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bench.servers import start_service
from tests.gpu.cuda import MODELS
from unroll import Beam, Client, RequestFailed, Sampling

pytestmark = pytest.mark.gpu

# Of a log-probability after as many steps as a stream here has.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def caller():
    with start_service(MODELS, device="cuda") as server, Client(server.target, 120) as client:
        yield client


@pytest.fixture(scope="module")
def on_cpu():
    with start_service(MODELS, device="cpu") as server, Client(server.target, 120) as client:
        yield client


def tokens(caller, model, **options):
    """The stream's tokens with their log-probabilities."""
    pieces = caller.generate(model, log_probabilities=True, **options)
    return [token for piece in pieces for token in piece.tokens]


def test_every_generator_is_served_on_cuda(caller):
    served = {model.name: model.provider for model in caller.list_models().models}
    assert set(served.values()) == {"CUDAExecutionProvider"}
    assert served.keys() == {folder.parent.name for folder in MODELS.glob("*/1")}


def test_streams_that_come_and_go_get_their_own_texts(caller, on_cpu):
    """Thirty at once, of many lengths: the CPU finds each text as likely as CUDA said it is.

    A row that was moved wrongly would go on from another stream's state.
    """

    def one(seed):
        return tokens(
            caller, "prose", prompt="The", max_tokens=5 + 7 * (seed % 9),
            sampling=Sampling(temperature=0.8, seed=seed),
        )  # fmt: skip

    with ThreadPoolExecutor(30) as pool:
        streams = list(pool.map(one, range(60)))
    for stream in streams:
        text = "The" + "".join(token.text for token in stream)
        (scored,) = on_cpu.score("prose", [text])
        reported = np.array([token.log_probability for token in stream])
        found = np.array([token.log_probability for token in scored.tokens[-len(stream) :]])
        np.testing.assert_allclose(reported, found, atol=TOLERANCE)


def test_a_cancelled_stream_leaves_the_others_alone(caller, on_cpu):
    def leave(seed):
        stream = caller.generate("prose", prompt="A", sampling=Sampling(seed=seed), max_tokens=400)
        next(stream)
        stream.close()

    with ThreadPoolExecutor(9) as pool:
        running = pool.submit(tokens, caller, "prose", prompt="The king", max_tokens=200)
        list(pool.map(leave, range(40)))
    text = "The king" + "".join(token.text for token in running.result())
    (scored,) = on_cpu.score("prose", [text])
    total = sum(token.log_probability for token in scored.tokens[-200:])
    assert sum(token.log_probability for token in running.result()) == pytest.approx(
        total, abs=0.05
    )


@pytest.mark.parametrize("beam", [None, Beam(width=4)])
def test_words_are_spelled_as_on_the_cpu(caller, on_cpu, beam):
    """Greedy and by beam: the gathers within a beam's rows, and a memory that stays with it."""
    words = ["night", "question", "through", "apple", "rhythm", "sister"]
    options = {"sampling": Sampling(temperature=0)} if beam is None else {"beam": beam}
    spelled = [
        ["".join(t.text for t in tokens(who, "g2p", source=word, **options)) for word in words]
        for who in (caller, on_cpu)
    ]
    assert spelled[0] == spelled[1]


def test_a_paused_stream_goes_on_where_it_was(caller):
    """A reader that waits until the server pauses it gets what one that reads at once gets."""
    options = {"prompt": "To be", "max_tokens": 400, "sampling": Sampling(temperature=0)}
    slow = caller.generate("prose", **options)
    first = next(slow)
    at_once = tokens(caller, "prose", **options)
    late = [*first.tokens, *(token for piece in slow for token in piece.tokens)]
    assert [token.id for token in late][:50] == [token.id for token in at_once][:50]


def test_classes_are_the_cpus(caller, on_cpu):
    texts = ["a wonderful film", "dull and far too long", "fine, I suppose"]
    for ours, theirs in zip(*(who.classify("sentiment", texts) for who in (caller, on_cpu)),
                            strict=True):  # fmt: skip
        assert dict(ours.labels) == pytest.approx(dict(theirs.labels), abs=1e-4)


def test_refusals_are_the_same(caller):
    with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
        list(caller.generate("prose", max_tokens=3))
