import pytest
import torch

from training.beam import BeamSettings, Hypothesis
from training.bpe import learn_pieces
from training.bundled.translate import TASK
from training.checkpoint import TrainedModel
from training.config import recipe_of
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig
from training.splits import Splits
from training.tasks import seq2seq
from training.tasks.seq2seq import Pair, Seq2SeqTask, write

SOURCE_LIMIT, TARGET_LIMIT = 80, 96

PAIRS = [
    Pair("the house is red.", "la casa es roja."),
    Pair("the red house.", "la casa roja."),
    Pair("a house is red, the house is red.", "una casa es roja, la casa es roja."),
]
SOURCE = learn_pieces([pair.source for pair in PAIRS], 30, lowercase=True)
TARGET = learn_pieces([pair.target for pair in PAIRS], 30, has_markers=True)


def task(random_cuts=0.0, batch=40, pairs=PAIRS):
    limits = (SOURCE_LIMIT, TARGET_LIMIT)
    return Seq2SeqTask(SOURCE, TARGET, pairs, pairs, 1, batch, *limits, 0.1, random_cuts)


def model():
    torch.manual_seed(0)
    config = Seq2SeqConfig(
        len(SOURCE.vocabulary), len(TARGET.vocabulary), 8, RecurrentOptions("lstm", 8),
        SOURCE_LIMIT, tied=True,
    )  # fmt: skip
    return Seq2Seq(config).eval()


def texts_of(batches):
    return sorted(
        (SOURCE.decode(source), TARGET.decode([t for t in target if t]))
        for sources, _, targets in batches
        for source, target in zip(sources.tolist(), targets.tolist(), strict=True)
    )


@pytest.mark.parametrize("cuts", [0.0, 0.5])
def test_every_pair_is_in_one_batch_whatever_its_cuts(cuts):
    """A batch's sources are of one length, and a target is what follows its input."""
    batches = task(cuts).batches(0)
    assert texts_of(batches) == sorted((pair.source, pair.target) for pair in PAIRS)
    for _, inputs, targets in batches:
        assert inputs[:, 0].unique().tolist() == [TARGET.vocabulary.begin_id]
        assert torch.equal(inputs[:, 1:][targets[:, :-1] > 0], targets[:, :-1][targets[:, :-1] > 0])


def test_an_epoch_is_the_same_each_time_and_another_one_cuts_otherwise():
    first, again, second = (task(0.5).batches(epoch) for epoch in (0, 0, 1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    lengths = [sorted(source.shape[1] for source, _, _ in part) for part in (first, second)]
    assert lengths[0] != lengths[1]


def test_a_pair_beyond_the_limits_does_not_train():
    long = Pair("a " * (SOURCE_LIMIT + 1), "una")
    assert len(texts_of(task(pairs=[*PAIRS, long]).batches(0))) == len(PAIRS)


def test_the_loss_is_of_a_piece_whatever_the_batches():
    untrained = model()
    small, large = (task(batch=size).validate(untrained) for size in (1, 400))
    assert small == pytest.approx(large, rel=1e-5)
    loss, carry = task().loss(untrained, task().batches(0)[0], None)
    assert loss.item() == pytest.approx(torch.tensor(len(TARGET.vocabulary)).log().item(), rel=0.2)
    assert carry is None


def test_translations_keep_the_order_of_their_texts():
    """Whatever other texts are translated beside them."""
    untrained = model()

    def translate(texts):
        beam = BeamSettings(5, 1.0, TARGET_LIMIT)
        return write(untrained, SOURCE, TARGET, texts, SOURCE_LIMIT, beam)

    texts = [pair.source for pair in PAIRS]
    assert translate(texts) == [translate([text])[0] for text in texts]


def test_figures_name_the_signature():
    held_out = TASK.held_out(PAIRS, None)
    assert [figure.name for figure in held_out.figures] == ["BLEU", "chrF"]
    assert held_out.figures[0].unit.startswith(
        "points, nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"
    )
    perfect = held_out.measure([pair.target for pair in PAIRS])
    assert [round(measured.value) for measured in perfect] == [100, 100]
    assert held_out.measure([pair.source for pair in PAIRS])[0].value < 20


def test_the_length_penalty_is_chosen_on_what_validates(monkeypatch):
    """The likelier of two hypotheses is short, and the wanted one is likelier a token."""

    def hypotheses(model, reader, writer, texts, limit, beam):
        assert texts == [pair.source for pair in PAIRS]
        assert beam.width == 5
        written = [TARGET.encode(pair.target).ids for pair in PAIRS]
        return [[Hypothesis(-1.0, 1, ids[:1]), Hypothesis(-2.0, 4, ids)] for ids in written]

    monkeypatch.setattr(seq2seq, "hypotheses_of", hypotheses)
    recipe = recipe_of("translate").with_value("task.length_penalties", [0.4, 0.6, 1.0])
    trained = TrainedModel(
        "translate", "", {}, {}, {"input": SOURCE, "output": TARGET},
        {"input_tokens": SOURCE_LIMIT, "output_tokens": TARGET_LIMIT}, training={"seed": 1},
    )  # fmt: skip
    found = TASK.adjust(None, recipe, Splits([], PAIRS, []), trained)
    # -1 and -2 / 4 ** 0.6 = -0.87; with 0.4 it is -1.15.
    assert found.length_penalty == 0.6
    listed = found.training["length_penalties"].split(", ")
    assert [one.split()[0] for one in listed] == ["0.4", "0.6", "1"]
    assert listed[1:] == ["0.6 100.00", "1 100.00"]
    none = recipe.with_value("task.length_penalties", [])
    assert TASK.adjust(None, none, Splits([], PAIRS, []), trained) is trained
