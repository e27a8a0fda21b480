"""One declaration a parameter of sampling: keywords, values, messages and options agree."""

from __future__ import annotations

import asyncio

import pytest

from tests.unroll.fakes import FakeServer
from unroll import AsyncClient, Client, OptionInvalid, Sampling
from unroll.cli import _parser
from unroll.sampling import FLAGS
from unroll.v1 import unroll_pb2 as pb

# The text of an option and its value, where it is no number alone.
OTHERS = {
    "seed": (str(2**64 - 1), 2**64 - 1),
    "logit_bias": ("3=1.5,4=-2", {3: 1.5, 4: -2.0}),
    "allowed_tokens": ("3,4", [3, 4]),
    "banned_tokens": ("5", [5]),
}
NUMBERS = {float: ("0.75", 0.75), int: ("3", 3)}


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    server.stop()


def as_dict(message):
    return {
        field.name: dict(value) if field.name == "logit_bias" else value
        for field, value in message.ListFields()
    }


def test_every_field_of_the_wire_is_declared():
    assert {field.name for field in pb.Sampling.DESCRIPTOR.fields} == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_a_parameter_reaches_the_wire_as_option_keyword_and_value(server, name):
    text, value = OTHERS.get(name) or NUMBERS[FLAGS[name].parse]
    option = f"--{name.replace('_', '-')}={text}"
    chosen = _parser({}).parse_args(["generate", "--model", "m", "--prompt", "a", option])
    assert getattr(chosen, name) == value
    options = {"prompt": "a", "max_tokens": 3, "failover": False}
    with Client(server.target, 20) as client:
        list(client.generate("m", **options, **{name: value}))
        list(client.generate("m", **options, sampling=Sampling(**{name: value})))
    by_keyword, by_value = (as_dict(request.sampling) for request in server.requests)
    assert by_keyword == by_value == {name: value}


def test_a_failover_keeps_the_keywords(server):
    with Client(server.target, 20) as client:
        list(client.generate("m", prompt="a", max_tokens=3, temperature=0.5))
    (request,) = server.requests
    assert request.sampling.temperature == 0.5
    assert request.sampling.HasField("seed")


@pytest.mark.parametrize("client_of", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sampling": Sampling(seed=1), "temperature": 0.5, "seed": 2},
            "sampling and temperature, seed exclude each other",
        ),
        ({"resume_token": b"t"}, "prompt and resume_token exclude each other"),
        ({"source": "b", "vector": [1.0]}, "prompt and source and vector exclude each other"),
    ],
)
def test_options_that_exclude_each_other_are_refused_at_once(client_of, options, message):
    """Before anything is sent: the oneof of the request would keep the last one alone."""

    async def generate():
        client_of("127.0.0.1:9").generate("m", prompt="a", **options)

    with pytest.raises(OptionInvalid, match=message):
        asyncio.run(generate())


def test_a_misspelt_option_is_refused_by_name():
    with (
        Client("127.0.0.1:9") as client,
        pytest.raises(TypeError, match="no option 'temprature'"),
    ):
        client.generate("m", prompt="a", temprature=0.5)


def test_a_value_compares_shows_and_replaces():
    sampling = Sampling(temperature=0.5, seed=3)
    assert sampling == Sampling(seed=3, temperature=0.5, top_k=None)
    assert repr(sampling) == "Sampling(temperature=0.5, seed=3)"
    assert sampling.replace(seed=4) == Sampling(temperature=0.5, seed=4)
    assert (sampling.seed, sampling.top_p) == (3, None)
    with pytest.raises(TypeError, match=r"no sampling parameter 'temprature'; there are tempera"):
        Sampling(temprature=1)
    with pytest.raises(AttributeError, match="replace"):
        sampling.seed = 5
