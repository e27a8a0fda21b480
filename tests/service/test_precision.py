"""A model served in int8: the same promise on the wire, and a card that says what it runs in."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.runtime.repository import NoModels
from tests.tiny import names_without
from unroll import Client, Sampling


def generate(target, number):
    with Client(target, timeout=30) as client:
        pieces = client.generate(
            "letters",
            prompt="abcdefgh"[: 1 + number % 8],
            max_tokens=20 + number,
            sampling=Sampling(temperature=0.9, top_p=0.95, seed=number),
            log_probabilities=True,
        )
        return [(t.id, t.log_probability) for piece in pieces for t in piece.tokens]


def test_same_request_same_tokens_alone_or_among_others_in_int8(start_service):
    int8, fp32 = start_service(precision="int8"), start_service()
    alone = [generate(int8.target, number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda number: generate(int8.target, number), range(12)))
    assert together == alone
    assert alone[0] != generate(fp32.target, 0), "int8 is what runs"


def test_a_card_says_what_a_model_runs_in_and_could_run_in(start_service, caplog):
    caplog.set_level("INFO", logger="service.serving.model_manager")
    registry = start_service(precision="int8").app.registry
    cards = {model.card.name: model.card for model in registry.models}
    assert (cards["letters"].precision, cards["letters"].precisions) == ("int8", ("fp32", "int8"))
    assert (cards["speller"].precision, cards["speller"].precisions) == ("fp32", ("fp32",))
    assert "model letters version 1 loaded in int8 on CPUExecutionProvider" in caplog.messages
    assert "model mood version 1 loaded in fp32 on CPUExecutionProvider" in caplog.messages


def test_a_model_that_lacks_its_named_precision_is_refused(start_service):
    registry = start_service(precision="speller=int8").app.registry
    assert [model.card.name for model in registry.models] == names_without("speller")
    assert [bundle.name for bundle in registry.refused] == ["speller"]


def test_a_name_that_no_bundle_has_stops_the_start(start_service):
    with pytest.raises(NoModels, match="names the model 'other'"):
        start_service(precision="other=int8")
