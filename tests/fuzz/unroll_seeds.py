"""Requests of unroll.v1 that are served, of every kind, for the tiny models."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.drawing import Seed
from tests.fuzz.loading import STEPPER
from tests.fuzz.methods import UNROLL
from unroll.v1 import unroll_pb2 as pb


def unroll_seeds() -> list[Seed]:
    """Each gives the same answer whenever it is called."""
    unary = {
        "Classify": _classify(),
        "Tag": _tag(),
        "Fill": _fill(),
        "Score": [*_score(), *_choices()],
        "Embed": _embed(),
        "Generate": [*_samples(), *_beams()],
        "Forecast": _forecast(),
        "ListModels": [pb.ListModelsRequest()],
        "GetModel": _get_model(),
        "ListStates": [pb.ListStatesRequest(model="speller")],
    }
    seeds = [
        Seed(UNROLL[method], (message,))
        for method, messages in unary.items()
        for message in messages
    ]
    seeds += [Seed(UNROLL["StreamTag"], tuple(sent)) for sent in _stream_tag()]
    return seeds + [Seed(UNROLL["StreamStep"], tuple(sent)) for sent in _stream_step()]


def state_seeds() -> list[Seed]:
    """Requests about named states, whose answers hold times and depend on those before."""
    seeds: dict[str, list[Message]] = {
        "CreateState": [
            pb.CreateStateRequest(name="one", model="letters", prompt="abc", replace=True),
            pb.CreateStateRequest(
                name="two", model="letters", prompt="d", state="one", replace=True, ttl_seconds=9
            ),
            pb.CreateStateRequest(name="tags", model="tags-online", prompt="the", replace=True),
        ],
        "ListStates": [pb.ListStatesRequest(), pb.ListStatesRequest(model="letters")],
        "Generate": [pb.GenerateRequest(model="letters", state="one", prompt="abc", max_tokens=4)],
        "DeleteState": [pb.DeleteStateRequest(name="two")],
    }
    return [Seed(UNROLL[name], (message,)) for name in seeds for message in seeds[name]]


def resuming_seeds(generate: Sequence[bytes], stream_tag: Sequence[bytes]) -> list[Seed]:
    """Calls that go on with streams: resume tokens of letters' and of tags-online's."""
    change = pb.StateChange(tensor="hidden_0", units=[1, 2], values=[0.5, -1.0])
    seeds = [
        Seed(UNROLL["Generate"], (request,))
        for token in generate
        for request in (
            pb.GenerateRequest(model="letters", resume_token=token),
            pb.GenerateRequest(model="letters", resume_token=token, set_state=[change]),
        )
    ]
    for token in stream_tag:
        for changes in ([], [change]):
            start = pb.StreamTagStart(model="tags-online", resume_token=token, set_state=changes)
            messages = (pb.StreamTagRequest(start=start), pb.StreamTagRequest(text="the food"))
            seeds.append(Seed(UNROLL["StreamTag"], messages))
    return seeds


def _classify() -> list[Message]:
    several = ["good food", "bad", "the food was not great and not bad at all"]
    return [
        pb.ClassifyRequest(model="mood", texts=["the food was good"]),
        pb.ClassifyRequest(model="mood", model_version="1", texts=several),
        pb.ClassifyRequest(
            model="strokes",
            frames=[
                pb.Tensor(raw=struct.pack("<6f", *range(6))),
                pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[1, 3], floats=[0.5, -2.0, 1000.0]),
            ],
        ),
    ]


def _forecast() -> list[Message]:
    hours = [3.0, 4.0, float("nan"), 6.0, 2.5]
    beside = [pb.Covariate(name="temperature (°C)", past=[1, 2, 3, 4, 5], future=[6, 7, 8])]
    series = pb.Series(values=hours, start="2024-03-01T05:00:00", covariates=beside)
    return [
        pb.ForecastRequest(model="rides", series=[series], horizon=3, samples=4, seed=5),
        pb.ForecastRequest(
            model="rides", series=[series, series], horizon=3, samples=3, quantiles=[0.1, 0.5],
            seed=2, frequency="h", resume_every=1,
        ),
    ]  # fmt: skip


def _tag() -> list[Message]:
    text, words = pb.TagItem(text="the food was not bad"), pb.TagItem(words=["good", "food"])
    return [
        pb.TagRequest(model="tags", items=[text]),
        pb.TagRequest(model="tags-online", items=[words, text], top_labels=3),
    ]


def _stream_tag() -> list[list[Message]]:
    plain = pb.StreamTagStart(model="tags-online")
    detailed = pb.StreamTagStart(
        model="tags-online", model_version="1", top_labels=2, tokens_per_message=3,
        resume_every=16, resume_at_end=True,
    )  # fmt: skip
    texts = [pb.StreamTagRequest(text="the food was "), pb.StreamTagRequest(text="great not bad")]
    words = pb.StreamTagRequest(words=pb.Words(words=["good", "food", "is"] * 7))
    return [
        [pb.StreamTagRequest(start=plain), *texts],
        [pb.StreamTagRequest(start=detailed), words, *texts, words],
    ]


def _stream_step() -> list[list[Message]]:
    def frame(*values: float, **fields: Any) -> Message:
        raw = struct.pack(f"<{len(values)}f", *values)
        tensor = pb.Tensor(name="frame", data_type=pb.DATA_TYPE_FLOAT32, raw=raw)
        return pb.StreamStepRequest(frame=pb.StepFrame(inputs=[tensor], **fields))

    plain = pb.StreamStepStart(model=STEPPER)
    detailed = pb.StreamStepStart(
        model=STEPPER, model_version="1", shared={"gain": 3.0}, outputs=["level"],
        deadline_seconds=3600.0, skip_late=True, resume_every=16, resume_at_end=True, typed=True,
    )  # fmt: skip
    typed = pb.Tensor(shape=[2, 4], floats=[1.0, -2.0, 0.5, 4.0, 0.0, 1.0, 2.0, 3.0])
    frames = [frame(*range(4)), frame(*range(8)), frame(1, 2, 3, 4, reset=True)]
    late = frame(4, 3, 2, 1, deadline_seconds=3600.0)
    points = pb.Tensor(shape=[2, 3], floats=[1.0, -2.0, 0.5, 4.0, 0.0, 1.0])
    return [
        [
            pb.StreamStepRequest(start=pb.StreamStepStart(model="strokes")),
            pb.StreamStepRequest(frame=pb.StepFrame(inputs=[points])),
        ],
        [pb.StreamStepRequest(start=plain), *frames],
        [
            pb.StreamStepRequest(start=detailed), late, *frames * 6,
            pb.StreamStepRequest(frame=pb.StepFrame(inputs=[typed])),
        ],
    ]  # fmt: skip


def _fill() -> list[Message]:
    return [
        pb.FillRequest(model="blank", texts=["the ___ was good"]),
        pb.FillRequest(model="blank", texts=["___ food", "the food is ____"], top_words=3),
    ]


def _score() -> list[Message]:
    vector = pb.Vector(values=[50.0, 120.5, 3.0])
    return [
        pb.ScoreRequest(
            model="letters", items=[pb.ScoreItem(text="abcd"), pb.ScoreItem(text="ba")]
        ),
        pb.ScoreRequest(model="bigrams", items=[pb.ScoreItem(text="fed a")]),
        pb.ScoreRequest(model="speller", items=[pb.ScoreItem(text="P Q R", source="abc")]),
        pb.ScoreRequest(model="foods", items=[pb.ScoreItem(text="S T", vector=vector)]),
    ]


def _choices() -> list[Message]:
    return [
        pb.ScoreRequest(
            model="letters",
            items=[
                pb.ScoreItem(text="abc", choices=["d", "ef gh"], top_next_tokens=3),
                pb.ScoreItem(text="ba"),
            ],
        ),
        pb.ScoreRequest(
            model="speller",
            items=[
                pb.ScoreItem(source="abc", choices=["P Q", "R"]),
                pb.ScoreItem(source="kmn", text="S", choices=["T"], top_next_tokens=2),
            ],
        ),
    ]


def _embed() -> list[Message]:
    both = ["hidden_1", "cell_0"]
    return [
        pb.EmbedRequest(model="letters", texts=["abc", "fed a"]),
        pb.EmbedRequest(model="letters", model_version="1", texts=["abc"], tensors=both),
        pb.EmbedRequest(model="tags-online", texts=["the food was not bad"]),
        pb.EmbedRequest(model="speller", texts=["abc"]),
    ]


def _samples() -> list[Message]:
    everything = pb.Sampling(
        temperature=0.8, top_k=9, top_p=0.9, seed=7, min_p=0.01, typical_p=0.95,
        repetition_penalty=1.1, frequency_penalty=0.2, presence_penalty=-0.1,
        logit_bias={2: 0.5, 3: -1.0}, banned_tokens=[4],
    )  # fmt: skip
    drawn = pb.Sampling(seed=2**63)
    return [
        pb.GenerateRequest(
            model="letters", prompt="abc", max_tokens=40, sampling=everything, stop=["zz", "ab"],
            log_probabilities=True, top_log_probabilities=3, min_tokens=4, samples=3, echo=True,
            tokens_per_message=4, resume_every=16, resume_at_end=True,
        ),
        pb.GenerateRequest(
            model="bigrams", model_version="1", prompt="fed a", max_tokens=12, sampling=drawn
        ),
        pb.GenerateRequest(
            model="letters", prompt="hij", max_tokens=300,
            sampling=pb.Sampling(seed=1, allowed_tokens=[2, 3, 5]),
        ),
        pb.GenerateRequest(model="speller", source="abc", sampling=drawn, log_probabilities=True),
        pb.GenerateRequest(
            model="letters", prompt="abc", max_tokens=20, sampling=drawn,
            watch=pb.Watch(tensors=["hidden_0", "cell_0"], units=[3, 1]),
        ),
        pb.GenerateRequest(
            model="foods", vector=pb.Vector(values=[1.0, 2.0, 0.0]), sampling=drawn, samples=2,
        ),
        pb.GenerateRequest(
            model="letters", prompt="a", sampling=drawn, samples=2,
            constraint=pb.Constraint(regex="(cab|deaf)( (bad|face|i)){0,3}mn"),
        ),
        pb.GenerateRequest(
            model="letters", prompt="a", sampling=drawn,
            constraint=pb.Constraint(choices=pb.Choices(texts=["bad cab", "a fine hen"])),
        ),
    ]  # fmt: skip


def _beams() -> list[Message]:
    beam = pb.Beam(width=4, best=2, length_penalty=0.6, early_stop=True)
    return [
        pb.GenerateRequest(model="speller", source="kmn", beam=beam, log_probabilities=True),
        pb.GenerateRequest(model="letters", prompt="a", beam=pb.Beam(width=3), max_tokens=20),
    ]


def _get_model() -> list[Message]:
    return [
        pb.GetModelRequest(name="letters", with_vocabulary=True),
        pb.GetModelRequest(name="tags-online", version="1"),
    ]
