"""The models that ship: they load, keep the promise at their real sizes, and the tour holds."""

import re
import statistics
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bundle.manifest import TAG
from bundle.store import read_bundle
from evaluation.everyday_sets import everyday_set_of
from examples.tour import SAMPLES, tour
from export.tasks import state_of
from service.engine.slots import Slots
from service.runtime.repository import load_models, newest_versions
from service.runtime.runners import GenerateRunner, Prefiller
from service.runtime.session_pair import SessionPair
from service.runtime.sessions import SessionSettings, open_session
from tests.export.test_frames import check_alone_and_together
from training import config
from training.data.sentiment import LECTURE_SENTENCES
from training.models import config_from_json

ROOT = Path(__file__).parents[1]
MODELS, PRESETS = ROOT / "models", ROOT / "examples" / "presets.toml"
BUNDLED = {folder.parent.name: folder for folder in newest_versions(MODELS)}
LIMIT_BYTES = 80e6
NAMES = config.models()  # every model that has a recipe
CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)
TWO_THREADS = SessionSettings("cpu", "CPUExecutionProvider", 2)


@pytest.fixture
def service(start_service):
    return start_service(models=MODELS, presets=PRESETS)


def test_all_of_them_load_and_stay_within_their_size():
    loaded, refused = load_models(MODELS, CPU)
    assert sorted(model.bundle.manifest.name for model in loaded) == sorted(NAMES)
    assert refused == []
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < LIMIT_BYTES


def test_the_tour_is_answered(client, capsys):
    """Every answer that the tour checks is right, the lecture's four sentences among them."""
    tour(client)
    printed = capsys.readouterr().out
    shown = re.findall(r"python -m unroll .*?--model (\S+)", printed)
    assert set(shown) == set(NAMES)
    assert "--preset careful" in printed
    assert printed.endswith("every call was answered.\n")


def test_the_tour_shows_the_lectures_sentences():
    """Where the tour runs there is no training, so it has the sentences itself: the same ones."""
    labels, sample = ("negative", "positive"), SAMPLES["models"]["sentiment"]
    shown = list(zip(sample["texts"], sample["labels"], strict=True))
    assert [(text, labels[label]) for text, label in LECTURE_SENTENCES] == shown


def pair_of(bundle, graph):
    wide = open_session(bundle, graph, TWO_THREADS)
    return SessionPair(open_session(bundle, graph, CPU), lambda: wide)


@pytest.mark.parametrize("name", ["prose", "g2p"])
@pytest.mark.parametrize("step", ["step", "step_int8"])
@pytest.mark.parametrize("rows", [2, 7, 33, 64])
def test_real_sizes_give_a_row_the_same_bits_in_any_batch(name, step, rows):
    """At 2 x 512 kernels block differently than at the tiny sizes; the bits agree all the same.

    As the service runs them: large batches on two threads, a row alone on one.
    """
    bundle = read_bundle(BUNDLED[name])
    state = bundle.manifest.state
    random = np.random.default_rng(rows)
    prefill, by_rows = (pair_of(bundle, graph) for graph in ("prime", step))
    prefiller = Prefiller(prefill, state)
    runner = GenerateRunner(prefiller, by_rows)
    symbols = len(bundle.tokenizers["input"].vocabulary) - 1
    prompts = [random.integers(1, symbols, 1 + 5 * n % 29).tolist() for n in range(rows)]
    states = prefiller.prefill(prompts, [None] * rows)
    uniforms = random.random((12, rows), dtype=np.float32)

    def run(which):
        slots = Slots(state, rows, len(bundle.tokenizers["output"].vocabulary))
        runner.attach(slots.sides())
        for row, stream in enumerate(which):
            slots.take(row, states[stream])
            slots.control(row, token=1, temperature=0.8, top_p=0.95)
        made = []
        for uniform in uniforms:
            slots.controls["uniform"][: len(which)] = uniform[which]
            runner.step(slots.side, len(which))
            slots.swap()
            slots.controls["token"][:] = slots.next_token
            made.append([slots.next_token.copy(), slots.log_probability.view(np.int32).copy()])
        return np.array(made)

    together = run(list(range(rows)))
    for stream in range(0, rows, 3):
        (alone,) = prefiller.prefill([prompts[stream]], [None])
        assert all(np.array_equal(alone[name], states[stream][name]) for name in alone)
        assert np.array_equal(run([stream])[:, :, 0], together[:, :, stream])


@pytest.mark.parametrize("name", ["sentiment", "nationality", "pos", "pos-online"])
def test_every_answer_that_the_everyday_questions_accept_is_one_of_the_models(name):
    """Or of the nations that it answers as Other. Of cloze some words are no candidates: its card
    counts the questions without one."""
    everyday, manifest = everyday_set_of(name), read_bundle(BUNDLED[name]).manifest
    accepted = [answer for question in everyday.questions for answer in question.accepted]
    if manifest.task == TAG:
        accepted = [pair.rpartition("/")[2] for tags in accepted for pair in tags.split()]
    other = manifest.training.get("answered_as_other", ())
    assert set(accepted) <= {*manifest.labels, *other}


LENGTHS = [1 + 7 * row % 40 for row in range(17)]


@pytest.mark.parametrize("name", ["sentiment", "nationality", "pos", "pos-online", "cloze"])
def test_real_sizes_predict_the_same_bits_in_any_batch(name):
    """A text alone, at its own length, gets the bits that it gets beside longer ones."""
    bundle = read_bundle(BUNDLED[name])
    session = open_session(bundle, "predict", CPU)
    random = np.random.default_rng(1)
    symbols = len(bundle.tokenizers["input"].vocabulary)
    feed = {}
    for port in bundle.manifest.graphs["predict"].inputs:
        shape = (len(LENGTHS), max(LENGTHS))[: len(port.shape)]
        feed[port.name] = random.integers(1, symbols, shape)
        if port.name.endswith("lengths"):
            feed[port.name] = np.array(LENGTHS)
    (together,) = session.run(None, feed)
    for row in range(0, len(LENGTHS), 3):
        alone = {key: array[row : row + 1, ...] for key, array in feed.items()}
        for key in ("tokens", "right"):
            if key in alone:
                alone[key] = alone[key][:, : LENGTHS[row]]
        (own,) = session.run(None, alone)
        whole = together[row, : LENGTHS[row]] if own.ndim == 3 else together[row]
        assert own[0].tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", ["vowels", "vowels-online"])
def test_frames_have_the_same_bits_in_any_batch(name):
    check_alone_and_together(read_bundle(BUNDLED[name]))


def test_tags_one_by_one_are_those_of_the_whole_text():
    """The Scan in pos-online's predict graph runs the body of its step."""
    bundle = read_bundle(BUNDLED["pos-online"])
    predict, step = (open_session(bundle, graph, CPU) for graph in ("predict", "step"))
    tokens = np.random.default_rng(2).integers(1, len(bundle.tokenizers["input"].vocabulary), 50)
    whole = predict.run(None, {"tokens": tokens[None], "lengths": np.array([len(tokens)])})[0][0]
    slots = Slots(
        bundle.manifest.state,
        1,
        len(bundle.manifest.labels),
    )
    runner = GenerateRunner(None, step)
    runner.attach(slots.sides())
    slots.take(0, None)
    for token, probabilities in zip(tokens, whole, strict=True):
        slots.control(0, token=int(token), temperature=0.0)
        runner.step(slots.side, 1)
        slots.swap()
        assert int(slots.next_token[0]) == int(probabilities.argmax())
        known = np.exp(slots.log_probability[0])
        assert known == pytest.approx(probabilities.max(), rel=1e-5)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_manifest_says_where_its_model_comes_from(name):
    manifest = read_bundle(BUNDLED[name]).manifest
    assert manifest.training.keys() >= {"command", "revision", "seed", "seconds", "threads"}
    assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?", manifest.training["revision"])
    assert all(re.fullmatch(r"[0-9a-f]{64}", source.sha256) for source in manifest.data)
    # Measured when it was trained, or anew by export's --figures; by one command in any case.
    (command,) = {figure.command for figure in manifest.figures}
    assert command in (manifest.training["command"], f"python -m export {name} --figures")
    assert max(manifest.export.parity.values()) < 1e-4
    assert state_of(config_from_json(manifest.model)) == manifest.state


@pytest.mark.parametrize("name", ["prose", "g2p"])
def test_int8_costs_next_to_nothing(name):
    """The manifest says what each precision reaches on held-out data, by the same procedure."""
    int8, fp32 = {}, {}
    for figure in read_bundle(BUNDLED[name]).manifest.precisions["int8"].figures:
        measure = figure.name.removesuffix(f", {figure.precision}")
        {"int8": int8, "fp32": fp32}[figure.precision][measure] = figure
    assert int8.keys() == fp32.keys()
    for measure, figure in int8.items():
        assert figure.value < 1.01 * fp32[measure].value
        assert (figure.split, figure.examples) == (fp32[measure].split, fp32[measure].examples)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_the_readme_has_figures_of_the_manifests(name):
    """Every number of a model's row is one of its manifest's, rounded, or the mean of its seeds."""
    (row,) = _rows("README.md", f"| `{name}`")
    known = [*_figures(name), *_means_of_seeds(name)]
    numbers = re.findall(r"\d+\.\d+", row)
    assert numbers
    for number in numbers:
        digits = len(number.partition(".")[2])
        assert number in {f"{value:.{digits}f}" for value in known}


def _means_of_seeds(name):
    recipe = tomllib.loads((ROOT / f"training/recipes/{name}.toml").read_text())
    return [statistics.mean(goal["seeds"]) for goal in recipe["goals"] if "seeds" in goal]


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_the_models_page_has_all_figures_of_the_manifests(name):
    stated = " ".join(_rows("docs/models.md", f"| [{name}]"))
    numbers = set(re.findall(r"\d+\.\d+", stated))
    for value in _figures(name):
        assert numbers & {f"{value:.{digits}f}" for digits in (2, 4)}, value


def _rows(page, beginning):
    lines = (ROOT / page).read_text().splitlines()
    return [line for line in lines if line.startswith(beginning)]


def _figures(name):
    return [figure.value for figure in read_bundle(BUNDLED[name]).manifest.figures]
