"""The tour's own judgement: right answers pass, wrong ones and missing models are told."""

from types import SimpleNamespace

import pytest

from examples import tour
from examples.tour import TourFailed
from unroll.tag_streams import TagChunk
from unroll.types import (
    Answer,
    Chunk,
    Classification,
    FilledBlank,
    TaggedText,
    TaggedToken,
    Token,
)

NEW = ("nationality", "pos", "pos-online", "cloze", "food")


class RightClient:
    """Answers every new kind of call as a good model would."""

    served = NEW
    refused = ()

    def __init__(self):
        self.vectors = []

    def list_models(self):
        named = ([SimpleNamespace(name=n) for n in names] for names in (self.served, self.refused))
        return SimpleNamespace(**dict(zip(("models", "refused_models"), named, strict=True)))

    def classify(self, model, texts):
        labels = dict(tour.NAMES)
        return [Classification([(labels[text], 0.9)], 5, 0) for text in texts]

    def tag(self, model, texts):
        words, labels = tour.SENTENCE
        tokens = [
            TaggedToken(word, label, 0.9, number)
            for number, (word, label) in enumerate(zip(words.split(), labels, strict=True))
        ]
        return [TaggedText(tokens, 0)]

    def stream_tag(self, model, parts):
        labels = tour.SENTENCE[1]
        for number, (words, label) in enumerate(zip(parts, labels, strict=True)):
            yield TagChunk([TaggedToken(*words, label, 0.9, number)], [], None)

    def fill(self, model, texts, top):
        return [FilledBlank([("way", 0.5), (words[0], 0.2)], 9, 0) for _, words in tour.BLANKS]

    def get_model(self, model):
        return SimpleNamespace(vector_fields=["Protein (g)", "Energy (kcal)", "Sugar (g)"])

    def generate(self, model, **options):
        self.vectors.append(options["vector"])
        yield Chunk([Token(1, "Cheese", 0, None)], 1, Answer("end", 3, 1, 0, 0.0, 0.0))


def test_right_answers_pass_and_what_is_not_there_is_named(capsys):
    client = RightClient()
    tour.tour(client)
    printed = capsys.readouterr().out
    assert printed.count("python -m unroll ") == len(NEW)
    assert "The/at man/nn went/vbd" in printed
    assert client.vectors == [[22.87, 404, 0.0]]
    assert "Not here, so not shown: sentiment, g2p, translate, prose." in printed


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        ("classify", [Classification([("Dutch", 0.9)], 5, 0)] * 2, "nationality calls"),
        ("tag", [TaggedText([TaggedToken("The", "nn", 0.9, 0)], 0)], "pos tags .* nn, not at nn"),
        ("stream_tag", [], "pos-online answered 0 of 6 words"),
        ("fill", [FilledBlank([("way", 0.9)], 9, 0)] * 2, "cloze fills .* none of town"),
        ("generate", [Chunk([], 1, Answer("length", 3, 1, 0, 0.0, 0.0))], "end of a name"),
    ],
)
def test_a_wrong_answer_fails_the_tour(monkeypatch, name, answers, message):
    monkeypatch.setattr(RightClient, name, lambda *arguments, **options: iter(answers))
    with pytest.raises(TourFailed, match=message):
        tour.tour(RightClient())


def test_a_refused_model_is_not_left_out(monkeypatch):
    """Its call fails, and with it the tour."""
    monkeypatch.setattr(RightClient, "served", ())
    monkeypatch.setattr(RightClient, "refused", ("cloze",))
    monkeypatch.setattr(RightClient, "fill", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tour.tour(RightClient())


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({}, "127.0.0.1:50051"),
        ({"UNROLL_ADDRESS": ""}, "127.0.0.1:50051"),
        ({"UNROLL_ADDRESS": "0.0.0.0:6000"}, "127.0.0.1:6000"),
        ({"UNROLL_ADDRESS": "[::]:6000"}, "[::1]:6000"),
        ({"UNROLL_ADDRESS": "localhost:6000"}, "localhost:6000"),
    ],
)
def test_a_server_of_its_own_is_called_where_the_environment_has_it_listen(environment, target):
    assert tour.target_of(tour.own_address(environment)) == target


@pytest.mark.parametrize("address", ["127.0.0.1:0", "6000", "host:name"])
def test_an_address_without_a_port_is_refused_by_the_name_of_its_variable(address):
    with pytest.raises(TourFailed, match="UNROLL_ADDRESS"):
        tour.own_address({"UNROLL_ADDRESS": address})
