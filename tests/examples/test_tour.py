"""What the tour checks: right answers pass, wrong ones fail, missing models are named."""

import shlex
from array import array
from types import SimpleNamespace
from typing import ClassVar

import pytest

from examples import demonstrations, tour
from examples.demonstrations import TourFailed
from unroll.forecasts import ForecastChunk, ForecastStep
from unroll.tag_streams import TagChunk
from unroll.types import (
    Answer,
    Chunk,
    Classification,
    Embedding,
    FilledBlank,
    NamedState,
    NextToken,
    ScoredChoice,
    ScoredText,
    TaggedText,
    TaggedToken,
    Token,
)
from unroll.v1 import unroll_pb2 as pb

NEW = {
    "nationality": pb.TASK_CLASSIFY,
    "pos": pb.TASK_TAG,
    "pos-online": pb.TASK_TAG,
    "cloze": pb.TASK_FILL,
    "food": pb.TASK_VECTOR_TO_SEQUENCE,
}
LOOKING_AHEAD = {"prose": pb.TASK_GENERATE, "translate": pb.TASK_SEQ2SEQ}
SAMPLES = tour.SAMPLES["models"]
HELD = "My lord, I love and need thee."


class RightClient:
    """Answers every new kind of call as a good model would."""

    served = NEW
    refused = ()
    presets = ("careful",)

    def __init__(self):
        self.vectors = []
        self.states = set()

    def list_models(self):
        return SimpleNamespace(
            models=[
                pb.Model(name=name, task=task, streams_tags=name == "pos-online")
                for name, task in self.served.items()
            ],
            refused_models=[pb.RefusedModel(name=n, reason="no weights") for n in self.refused],
        )

    def classify(self, model, texts):
        sample = SAMPLES["nationality"]
        labels = dict(zip(sample["texts"], sample["labels"], strict=True))
        return [Classification([(labels.get(text, "Dutch"), 0.9)], 5, 0) for text in texts]

    def tag(self, model, texts):
        words, labels = SAMPLES["pos"]["text"], SAMPLES["pos"]["labels"]
        tokens = [
            TaggedToken(word, label, 0.9, number)
            for number, (word, label) in enumerate(zip(words.split(), labels, strict=True))
        ]
        return [TaggedText(tokens, 0)]

    def stream_tag(self, model, parts):
        labels = SAMPLES["pos"]["labels"]
        for number, (words, label) in enumerate(zip(parts, labels, strict=True)):
            yield TagChunk([TaggedToken(*words, label, 0.9, number)], [], None)

    def fill(self, model, texts, top):
        expected = SAMPLES["cloze"]["words"]
        return [FilledBlank([("way", 0.5), (words[0], 0.2)], 9, 0) for words in expected]

    def forecast(self, model, series, *, horizon, **options):
        steps = [ForecastStep(0, n, "", 9.0, (8.0, 9.0, 10.0), ()) for n in range(horizon)]
        yield ForecastChunk(steps, 7, None)

    def score(self, model, texts, *, choices):
        scored = [ScoredChoice([], -n - 1.0, -1.0, 1 / (n + 2)) for n, _ in enumerate(choices)]
        return [ScoredText([], 0.0, 0, scored)]

    def next_tokens(self, model, texts):
        return [[NextToken(2, "e", -0.5)]]

    def embed(self, model, texts):
        return [Embedding(values, 4, 0) for values in ([0.6, 0.8], [0.8, 0.6], [1.0, 0.0])]

    def create_state(self, name, model, *, prompt, replace):
        self.states.add(name)
        return NamedState(name, model, "Generate", len(prompt), 2048, 0.0, 9.0, "d", "fp32", "f")

    def delete_state(self, name):
        self.states.remove(name)

    def get_model(self, model):
        fields = ["Protein (g)", "Energy (kcal)", "Sugar (g)"]
        return SimpleNamespace(
            vector_fields=fields,
            limits={"unknown_values": 2},
            batch_invariant=True,
            presets={name: pb.Sampling(temperature=0.5) for name in self.presets},
        )

    def generate(self, model, **options):
        self.vectors.append(options.get("vector"))
        yield Chunk([Token(1, "Cheese", 0, None)], 1, Answer("end", 3, 1, 0, 0.0, 0.0))


def test_right_answers_pass_and_what_is_not_there_is_named(capsys):
    client = RightClient()
    tour.tour(client)
    printed = capsys.readouterr().out
    assert printed.count("python -m unroll ") == len(NEW)
    assert "The/at man/nn went/vbd" in printed
    assert client.vectors == [[22.87, 404, None]]
    assert (
        "Not here, so not shown: sentiment, g2p, translate, prose, vowels, vowels-online, monthly."
        in printed
    )


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        ("classify", [Classification([("Dutch", 0.9)], 5, 0)] * 2, "nationality calls"),
        ("tag", [TaggedText([TaggedToken("The", "nn", 0.9, 0)], 0)], "pos tags .* nn, not at nn"),
        ("stream_tag", [], "pos-online answered 0 of 6 words"),
        ("fill", [FilledBlank([("way", 0.9)], 9, 0)] * 2, "cloze fills .* none of bank"),
        ("generate", [Chunk([], 1, Answer("length", 3, 1, 0, 0.0, 0.0))], "end of its answer"),
    ],
)
def test_a_wrong_answer_fails_the_tour(monkeypatch, name, answers, message):
    monkeypatch.setattr(RightClient, name, lambda *arguments, **options: iter(answers))
    with pytest.raises(TourFailed, match=message):
        tour.tour(RightClient())


class FollowingClient(RightClient):
    """Of the two models whose samples look ahead. held: the text that is held to an expression.
    cached: tokens of each prompt. preset: the text by one."""

    served = LOOKING_AHEAD
    held, cached, preset = HELD, 2, "Dios"

    def generate(self, model, **options):
        text = self.held if "regex" in options else "Dios"
        text = self.preset if "preset" in options else text
        answer = Answer("end", 3, 1, 0, 0.0, 0.0, cached_tokens=self.cached)
        yield Chunk([Token(1, text, 0, None)], 1, answer)


def test_what_follows_and_what_is_near_is_shown(capsys):
    tour.tour(FollowingClient())
    printed = capsys.readouterr().out
    assert "score --model prose 'To be, or not to ' --choice be --choice die" in printed
    assert "next --model prose 'To be, or not to b'\n  0.607  -0.5000  'e'" in printed
    assert "cosine 0.960  'The king is dead.', 'The king has died.'" in printed
    assert f"--regex {shlex.quote(SAMPLES['prose']['regex'])}" in printed
    assert HELD in printed


def test_a_beginning_that_was_read_and_a_preset_are_shown(capsys):
    tour.tour(FollowingClient())
    printed = capsys.readouterr().out
    assert "through yonder window breaks?\\nIt is the east" in printed
    assert "3 tokens in (2 cached)" in printed
    assert "--preset careful --max-tokens 200 --seed 7" in printed


def test_a_preset_that_the_server_lacks_is_not_shown(monkeypatch, capsys):
    monkeypatch.setattr(FollowingClient, "presets", ())
    tour.tour(FollowingClient())
    assert "--preset" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cached", 0, "prose read a prompt from its beginning, which it had read before"),
        ("preset", "Dias", "prose writes otherwise by the preset 'careful'"),
    ],
)
def test_what_a_server_does_not_keep_fails_the_tour(monkeypatch, name, value, message):
    monkeypatch.setattr(FollowingClient, name, value)
    with pytest.raises(TourFailed, match=message):
        tour.tour(FollowingClient())


def test_a_text_that_strays_from_its_expression_fails_the_tour(monkeypatch):
    monkeypatch.setattr(FollowingClient, "held", HELD.removesuffix("thee."))
    with pytest.raises(TourFailed, match=r"prose wrote .* which does not match"):
        tour.tour(FollowingClient())


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        (
            "score",
            [ScoredText([], 0.0, 0, [ScoredChoice([], -n, -n, 0.3) for n in (3, 1, 2)])],
            "prose takes 'die' after 'To be, or not to '",
        ),
        (
            "embed",
            [Embedding(values, 4, 0) for values in ([1.0, 0.0], [0.0, 1.0], [1.0, 0.0])],
            "translate puts 'The king is dead.' nearer to 'He went into the city.' than",
        ),
    ],
)
def test_another_choice_or_a_far_vector_fails_the_tour(monkeypatch, name, answers, message):
    monkeypatch.setattr(FollowingClient, name, lambda *arguments, **options: answers)
    with pytest.raises(TourFailed, match=message):
        tour.tour(FollowingClient())


def test_a_forecast_that_stops_early_fails_the_tour(monkeypatch):
    monkeypatch.setattr(RightClient, "served", {"tenth": pb.TASK_FORECAST})
    monkeypatch.setattr(RightClient, "forecast", lambda *arguments, **options: iter([]))
    with pytest.raises(TourFailed, match="tenth forecast 0 of 6 steps"):
        tour.tour(RightClient())


def test_a_refused_model_fails_the_tour_with_its_reason(monkeypatch):
    monkeypatch.setattr(RightClient, "served", {})
    monkeypatch.setattr(RightClient, "refused", ("cloze",))
    with pytest.raises(TourFailed, match="refused cloze: no weights"):
        tour.tour(RightClient())


def test_an_older_version_that_was_refused_does_not_matter(monkeypatch):
    monkeypatch.setattr(RightClient, "refused", ("cloze",))
    tour.tour(RightClient())


class KeepingClient(RightClient):
    """Of a model whose sample names a state. text: of what is made of one."""

    served: ClassVar = {"prose": pb.TASK_GENERATE}
    text = "Cheese"

    def generate(self, model, **options):
        text = self.text if "state" in options else HELD if "regex" in options else "Cheese"
        answer = Answer("end", 3, 1, 0, 0.0, 0.0, cached_tokens=2)
        yield Chunk([Token(1, text, 0, None)], 1, answer)


def test_a_generator_writes_the_same_from_a_state(capsys):
    client = KeepingClient()
    tour.tour(client)
    printed = capsys.readouterr().out
    assert "create-state tour --model prose" in printed
    assert "tour  prose  Generate  7 tokens  2.0 KiB" in printed
    assert not client.states


def test_another_text_from_a_state_fails_the_tour(monkeypatch):
    monkeypatch.setattr(KeepingClient, "text", "Bread")
    with pytest.raises(TourFailed, match="prose writes otherwise from a state"):
        tour.tour(KeepingClient())


class FramesClient(RightClient):
    """A classifier of frames. says: of the whole, after: its last frame. is_stepped: whether it
    answers after each."""

    served: ClassVar = {"vowels": pb.TASK_CLASSIFY}
    says = after = (0.25, "speaker 3")
    is_stepped = True

    @property
    def about(self):
        model = pb.Model(name="vowels", task=pb.TASK_CLASSIFY, labels=["speaker 1", "speaker 3"])
        model.frames.channels.extend("abcdefghijkl")
        if self.is_stepped:
            model.stepper.inputs.add(name="frame")
        return model

    def list_models(self):
        return SimpleNamespace(models=[self.about], refused_models=[])

    def get_model(self, name):
        return self.about

    def stream_step(self, model, frames):
        for position, _ in enumerate(frames):
            probability, label = self.after
            values = [probability if name == label else 0.0 for name in self.about.labels]
            outputs = {"probabilities": memoryview(array("f", values))}
            yield SimpleNamespace(results=[SimpleNamespace(position=position, outputs=outputs)])

    def classify(self, model, texts=(), *, frames=()):
        (probability, label), (sent,) = self.says, frames
        return [Classification([(label, probability)], len(sent), 0)]


@pytest.mark.parametrize("is_stepped", [True, False])
def test_frames_are_shown_after_each_and_as_a_whole(monkeypatch, capsys, is_stepped):
    monkeypatch.setattr(FramesClient, "is_stepped", is_stepped)
    tour.tour(FramesClient())
    printed = capsys.readouterr().out
    assert " | python -m unroll classify --model vowels --frames -" in printed
    assert printed.count("speaker 3 0.250") == (7 if is_stepped else 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"says": (0.5, "speaker 3")}, "after the last frame, and"),
        ({"says": (0.25, "speaker 1"), "after": (0.25, "speaker 1")}, "takes 'speaker 3' for"),
    ],
)
def test_frames_that_are_taken_for_others_fail_the_tour(monkeypatch, changed, message):
    for name, value in changed.items():
        monkeypatch.setattr(FramesClient, name, value)
    with pytest.raises(TourFailed, match=message):
        tour.tour(FramesClient())


@pytest.mark.parametrize("task", demonstrations.DEMONSTRATIONS)
def test_a_model_that_nobody_listed_is_shown_as_its_task_is(monkeypatch, capsys, task):
    """A tenth model needs no line here: the server says what its task is."""
    monkeypatch.setattr(RightClient, "served", {"tenth": task})
    monkeypatch.setattr(
        RightClient, "fill", lambda self, model, texts, top: [FilledBlank([("way", 0.5)], 9, 0)]
    )
    tour.tour(RightClient())
    printed = capsys.readouterr().out
    assert printed.count("--model tenth") == 1
    assert "tenth" not in printed[printed.index("The tour is over") :]


def test_a_task_that_the_tour_does_not_know_is_named(monkeypatch, capsys):
    monkeypatch.setattr(RightClient, "served", {"tenth": pb.TASK_UNSPECIFIED})
    tour.tour(RightClient())
    assert "monthly, tenth.\n" in capsys.readouterr().out


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
