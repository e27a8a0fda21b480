"""Models from elsewhere, served: what their own loops give, and all that the service adds to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from export import from_torch
from export.foreign.bundles import import_model
from export.foreign.surgery import open_model
from export.foreign.worker import JOBS
from tests.conftest import RunningService, running
from tests.export import foreign_graphs as graphs
from tests.export import test_foreign_classifiers as classifiers
from tests.export import test_foreign_generators as generators
from tests.export import test_torch_models as torch_models
from tests.service.grpc.test_generating import GREEDY, Answer
from tests.service.oip.calls import Inference
from tests.tiny import edit_manifest
from unroll import Client
from unroll.v1 import unroll_pb2 as pb

TEXTS = ["good", "the food is not good", "bad bad surprise"]
# Of both generators' vocabularies, and long enough for the prefix cache.
LONG = "he deed he deed he deed "


@dataclass(frozen=True)
class Original:
    """symbols: by id. begins: whether it was trained on texts after <s>. logits: of its own code,
    tokens → (tokens, vocabulary)."""

    symbols: list[str]
    begins: bool
    logits: Callable[[list[int]], np.ndarray]

    def read(self, text: str) -> list[int]:
        return [self.symbols.index(s) for s in [*(["<s>"] if self.begins else []), *text]]

    def greedy(self, text: str, count: int) -> list[int]:
        """The likeliest tokens after ``text``, none of them special."""
        tokens, prompt = self.read(text), len(self.read(text))
        special = [n for n, symbol in enumerate(self.symbols) if len(symbol) > 1]
        for _ in range(count):
            row = self.logits(tokens)[-1].copy()
            row[special] = -np.inf
            tokens.append(int(row.argmax()))
        return tokens[prompt:]


@dataclass(frozen=True)
class Served:
    service: RunningService
    originals: dict[str, Original]
    classifier: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two ONNX generators, of which one holds a batch of one; two classifiers, of which one is said
    nothing of lengths; a PyTorch model; and a classifier that was imported as inexact."""
    folder = tmp_path_factory.mktemp("imported")
    models = folder / "models"
    free = graphs.language_model(folder / "free.onnx", len(generators.SYMBOLS))
    one = graphs.language_model(folder / "one.onnx", len(generators.SYMBOLS), is_free=False)
    sizes = len(classifiers.SYMBOLS), len(classifiers.LABELS)
    known = graphs.classifier(folder / "lengths.onnx", *sizes, "lengths")
    plain = graphs.classifier(folder / "plain.onnx", *sizes)
    network = torch_models.Theirs("gru")
    with pytest.MonkeyPatch.context() as patch:
        # In this process, which has loaded PyTorch; the command's own test imports in another.
        patch.setattr(
            "export.foreign.bundles.run_apart", lambda job, mapping, *_: JOBS[job](mapping)
        )
        for name, mapping in {
            "begun": generators.mapped(folder, free, add_bos_token=True),
            "rows": generators.mapped(folder, one),
            "topics": classifiers.mapped(folder, known, tokens="input_ids", lengths="lengths"),
            "alone": classifiers.mapped(folder, plain, tokens="input_ids"),
        }.items():
            import_model(replace(mapping, name=name), models)
    from_torch(
        network, name="native", models=models, parts=torch_models.PARTS, add_bos_token=True,
        vocabulary=torch_models.SYMBOLS, special=torch_models.SPECIAL,
    )  # fmt: skip
    copytree(models / "topics", models / "close")
    facts = {"batching": "inexact", "reason": "a text's probability differs by 1e-7"}
    edit_manifest(models / "close" / "1", lambda c: c.update(name="close", training=facts))
    loop = generators.TheirLoop(free)

    def native(tokens: list[int]) -> np.ndarray:
        with torch.no_grad():
            return network(torch.tensor(tokens).unsqueeze(1))[0][:, 0].numpy()

    originals = {
        "begun": Original(generators.SYMBOLS, True, loop.logits),
        "rows": Original(generators.SYMBOLS, False, loop.logits),
        "native": Original(torch_models.SYMBOLS, True, native),
    }
    with running(models) as service:
        yield Served(service, originals, known)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.service.target, timeout=60) as client:
        yield client


@pytest.fixture(params=["begun", "rows", "native"])
def generator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def generate(client: Client, model: str, **options: object) -> Answer:
    chosen = {"seed": 3, "max_tokens": 24, "min_tokens": 24, "log_probabilities": True, **options}
    return Answer(client.generate(model, **chosen))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)


def test_a_served_text_goes_on_as_in_the_models_own_loop(client, served, generator):
    """After <s> where it was trained so, which is a token of the prompt like any other."""
    original = served.originals[generator]
    answer = generate(client, generator, prompt="he", sampling=GREEDY, seed=None)
    assert answer.ids == original.greedy("he", 24)
    assert answer.answer.input_tokens == len(original.read("he"))


def test_a_stream_goes_on_by_its_resume_token(client, generator):
    whole = generate(client, generator, prompt="he")
    points = generate(client, generator, prompt="he", resume_every=16, failover=False).points
    rest = Answer(client.generate(generator, resume_token=points[0].token, log_probabilities=True))
    assert rest.reported == whole.reported[points[0].next_position :] != []


def test_a_constraint_holds(client, generator):
    answer = generate(client, generator, prompt="he", regex="(he|de){9}", min_tokens=0)
    assert re.fullmatch("(he|de){9}", answer.text)


def test_a_prompt_that_begins_alike_is_read_once(client, generator):
    generate(client, generator, prompt=LONG + "d", max_tokens=1, min_tokens=0)
    again = generate(client, generator, prompt=LONG + "e")
    assert again.answer.cached_tokens >= 16
    fresh = generate(client, generator, prompt=LONG + "e", no_cache=True)
    assert (again.reported, fresh.answer.cached_tokens) == (fresh.reported, 0)


def test_a_named_state_stands_for_the_beginning(client, generator):
    """What follows a state goes on from it: no second <s>."""
    client.create_state("he", generator, prompt="he", replace=True)
    after = generate(client, generator, state="he", prompt="ed")
    whole = generate(client, generator, prompt="heed", no_cache=True)
    assert after.reported == whole.reported
    assert after.answer.input_tokens == whole.answer.input_tokens
    longer = client.create_state("heed", generator, state="he", prompt="ed", replace=True)
    assert longer.input_tokens == whole.answer.input_tokens
    assert generate(client, generator, state="heed").reported == whole.reported


def test_scores_and_next_tokens_are_those_of_the_loop(client, served, generator):
    original = served.originals[generator]
    (scored,) = client.score(generator, ["heed"])
    logs = log_softmax(original.logits(original.read("heed")))
    tokens = original.read("heed")
    assert [token.id for token in scored.tokens] == tokens
    assert "".join(token.text for token in scored.tokens) == "heed"
    expected = [logs[place, token] for place, token in enumerate(tokens[1:])]
    assert [token.log_probability for token in scored.tokens[1:]] == pytest.approx(
        expected, abs=1e-4
    )
    ((likeliest, *_),) = client.next_tokens(generator, ["heed"])
    assert likeliest.log_probability == pytest.approx(logs[-1].max(), abs=1e-4)


def test_an_echo_is_the_prompts_text(client, generator):
    chunks = list(client.generate(generator, prompt="heed", max_tokens=1, echo=True))
    assert "".join(token.text for chunk in chunks for token in chunk.echo) == "heed"


def test_an_embedding_is_the_state_after_the_whole_text(client, served, generator):
    texts = ["he", "heed he"]
    both = client.embed(generator, texts)
    assert [one.input_tokens for one in both] == [
        len(served.originals[generator].read(text)) for text in texts
    ]
    assert both == [client.embed(generator, [text])[0] for text in texts]


def test_the_same_weights_embed_otherwise_after_their_beginning(client):
    (begun,), (plain,) = (client.embed(model, ["h"]) for model in ("begun", "rows"))
    assert begun.values != pytest.approx(plain.values, abs=1e-3)


@pytest.mark.parametrize("model", ["topics", "close"])
def test_a_served_text_is_classified_as_by_the_original(client, served, model):
    original = open_model(str(served.classifier))
    for text, answer in zip(TEXTS, client.classify(model, TEXTS), strict=True):
        words = [word if word in classifiers.SYMBOLS else "[UNK]" for word in text.split()]
        ids = [classifiers.SYMBOLS.index(word) for word in words]
        feed = {"input_ids": np.array([ids]), "lengths": np.array([len(ids)], np.int32)}
        wanted = np.exp(log_softmax(original.run(None, feed)[0][0]))
        found = dict(answer.labels)
        assert [found[label] for label in classifiers.LABELS] == pytest.approx(wanted, abs=1e-5)
        assert answer.unknown_symbols == words.count("[UNK]")


@pytest.mark.parametrize(
    ("model", "batching", "reason"),
    [
        ("topics", pb.BATCHING_EXACT, ""),
        ("native", pb.BATCHING_EXACT, ""),
        ("rows", pb.BATCHING_NONE, "."),
        ("alone", pb.BATCHING_NONE, "differs|together"),
        ("close", pb.BATCHING_INEXACT, "differs by 1e-7"),
    ],
)
def test_a_model_says_how_its_rows_share_a_run_and_why(client, served, model, batching, reason):
    card = client.get_model(model)
    assert card.batching == batching
    assert re.search(reason, card.batching_reason) if reason else not card.batching_reason
    assert card.batch_invariant == (batching != pb.BATCHING_INEXACT)
    with Inference(served.service.target) as inference:
        facts = {k: v.string_value for k, v in inference.config(model).parameters.items()}
    assert facts["batching"] == pb.Batching.Name(batching).removeprefix("BATCHING_").lower()
    assert facts["batching_reason"] == card.batching_reason
    assert json.loads(facts["batch_invariant"]) == card.batch_invariant
    value = served.service.metric(
        "unroll_batch_invariant", model=model, fingerprint=card.fingerprint[:12]
    )
    assert value == card.batch_invariant
