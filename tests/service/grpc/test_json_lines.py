"""A generator that was trained on JSON lines says nothing but valid ones where it is held to them,
however much its draws stray.

A short form runs with the other tests; `-m slow` asks for 10,000 objects.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import PADDING_ID, Vocabulary
from export.bundles import export_bundle
from tests import tiny
from tests.conftest import running
from training.models import build, config_from_json
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions
from unroll import Client

NAMES = ("ann", "bob", "cleo", "dirk", "eve")
TAGS = ("new", "old", "far", "near")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": list(TAGS)}, "maxItems": 4},
        "score": {"type": ["number", "null"]},
    },
    "required": ["name", "age", "tags"],
}
STEPS, BATCH = 100, 32


def lines(seed: int) -> Iterator[str]:
    """Objects of the schema, made by rule."""
    choose = random.Random(seed)
    while True:
        value = {
            "name": choose.choice(NAMES),
            "age": choose.randint(18, 99),
            "tags": choose.sample(TAGS, choose.randint(0, 3)),
        }
        if choose.random() < 0.5:
            value["score"] = choose.choice((None, round(choose.uniform(0, 9), 1)))
        yield json.dumps(value)


def is_valid(text: str) -> bool:
    """By the schema's own words, read anew: a judge that shares nothing with what is judged."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if not isinstance(value, dict) or not {"name", "age", "tags"} <= value.keys():
        return False
    return (
        isinstance(value["name"], str)
        and 1 <= len(value["name"]) <= 12
        and type(value["age"]) is int
        and 18 <= value["age"] <= 99
        and isinstance(value["tags"], list)
        and len(value["tags"]) <= 4
        and all(tag in TAGS for tag in value["tags"])
        and value.keys() <= {"name", "age", "tags", "score"}
        and (value.get("score") is None or type(value["score"]) in (int, float))
    )


def trained():
    """A small GRU after some thousand objects: it knows their shape, and errs when it is hot."""
    source = lines(1)
    texts = [next(source) for _ in range(STEPS * BATCH)]
    reader = Tokenizer("characters", Vocabulary.count("".join(texts), has_markers=True))
    vocabulary = reader.vocabulary
    config = GeneratorConfig(len(vocabulary), 16, RecurrentOptions("gru", 48))
    made = tiny.trained("objects", config, {"input": reader, "output": reader}, largest=0.1)
    model = build(config_from_json(made.config))
    model.load_state_dict(made.weights)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(STEPS):
        rows = [
            torch.tensor([vocabulary.begin_id, *reader.encode(text).ids, vocabulary.end_id])
            for text in texts[step * BATCH : (step + 1) * BATCH]
        ]
        padded = torch.nn.utils.rnn.pad_sequence(rows, True, PADDING_ID)
        logits, _ = model(padded[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), padded[:, 1:].flatten(), ignore_index=PADDING_ID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return replace(made, weights=model.state_dict())


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    models = tmp_path_factory.mktemp("objects") / "models"
    export_bundle(trained(), models / "objects" / "1")
    with running(models) as one:
        yield one


def objects(service, count, **options):
    """Texts of so many samples, and why each ended."""
    texts, reasons = {}, {}
    with Client(service.target, timeout=240) as client:
        for seed in range(-(-count // 50)):
            chunks = client.generate(
                "objects", prompt="", temperature=1.5, top_p=1.0, samples=50, seed=seed,
                max_tokens=400, **options,
            )  # fmt: skip
            for chunk in chunks:
                for token in chunk.tokens:
                    key = (seed, token.sample)
                    texts[key] = texts.get(key, "") + token.text
                reasons |= {(seed, end.sample): end.reason for end in chunk.ends}
    return [(texts.get(key, ""), reasons[key]) for key in sorted(reasons)]


def assert_all_valid(service, count):
    made = objects(service, count, json_schema=SCHEMA)
    assert len(made) == count
    wrong = [(text, reason) for text, reason in made if reason != "end" or not is_valid(text)]
    assert not wrong, wrong[:3]
    assert len({text for text, _ in made}) > count / 2


def test_every_object_is_valid_however_hot(service):
    assert_all_valid(service, 300)


def test_without_the_schema_many_are_not(service):
    """So what is asserted above is the constraint's doing."""
    free = objects(service, 100)
    assert sum(is_valid(text) for text, _ in free) < 60


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_objects_are_valid(service):
    assert_all_valid(service, 10_000)
