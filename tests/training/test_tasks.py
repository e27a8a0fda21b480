"""What tasks make of rows, and what they leave to the data."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from bundle.spans import is_legal
from tests.own_data import sentences, write_all
from training.readers import DataInvalid
from training.splits import Splits
from training.tasks import TASKS, default_recipe
from training.tasks.classify import Labelled, label_weights
from training.tasks.generate import Document, GenerateTask, pieces_of
from training.tasks.tag import Sentence
from training.tasks.texts import CHARACTERS, PIECES, WORDS, choose_reader, choose_writer, limit_for


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("files"))


def prepared(task, splits, *assignments):
    recipe = default_recipe(task).with_value("data.files", "a.csv").overridden(assignments)
    return TASKS[task].prepare(recipe, splits, seed=1)


def split(examples):
    return Splits(examples, examples[:5], examples[5:10])


def facts(found):
    return "\n".join(f"{what}: {value}" for what, value in found.facts)


def test_names_are_read_as_characters_and_sentences_as_words():
    texts = sentences(40)
    assert choose_reader(texts, texts)[0] == WORDS
    assert choose_reader(["Ada Lovelace", "Alan Turing"] * 9, ["Grace Hopper"])[0] == CHARACTERS
    # Without spaces between words, every sentence is a word that no other text holds.
    assert (
        choose_reader(["我 们 今天去" + str(n) for n in range(9)], ["他们 明 天来"])[0]
        == CHARACTERS
    )


def test_short_texts_are_written_as_characters_and_long_ones_as_pieces():
    assert choose_writer(["forty two", "nine"])[0] == CHARACTERS
    assert choose_writer(sentences(9))[0] == PIECES


def test_a_limit_leaves_room_and_has_an_end():
    assert [limit_for([n], 512) for n in (1, 30, 100, 400)] == [32, 48, 160, 512]


def test_rows_of_rare_labels_count_more_and_it_is_said():
    rows = [Labelled(f"text {n} of some length", "rare" if n % 10 == 0 else "often")
            for n in range(100)]  # fmt: skip
    found = prepared("classify", split(rows))
    assert found.recipe.value("task.balance") == 0.5
    assert "balance: a row counts by its label's frequency ** -0.5" in facts(found)
    often, rare = found.training.weights.tolist()
    assert found.labels == ("often", "rare")
    assert rare / often == pytest.approx(3.0)
    even = prepared("classify", split(rows), "task.balance=0.0")
    assert even.training.weights is None


def test_weights_of_labels_have_a_mean_of_one_over_the_rows():
    counts = Counter(a=90, b=10)
    weights = label_weights(counts, ("a", "b", "c"), 0.5)
    assert float(90 * weights[0] + 10 * weights[1]) == pytest.approx(100)


def test_a_label_without_a_training_row_is_said():
    rows = [Labelled(f"text {n} of some length", str(n % 2)) for n in range(50)]
    splits = Splits(rows, rows[:5], [Labelled("another text", "new")])
    assert "labels: no training row has new" in facts(prepared("classify", splits))


def test_texts_of_several_files_have_a_beginning_and_one_alone_has_none(files):
    for pattern, begins in (("texts/*.txt", True), ("lines.txt", False)):
        recipe = default_recipe("generate").with_value("data.files", str(files / pattern))
        splits, _ = TASKS["generate"].read(recipe)
        found = TASKS["generate"].prepare(recipe, splits, seed=1)
        vocabulary = found.tokenizers["input"].vocabulary
        assert vocabulary.has_markers == begins
        assert ("begin from nothing" in facts(found)) == begins
        if begins:
            ids = found.training.training[0].tolist()
            assert (ids[0], ids[-1]) == (vocabulary.begin_id, vocabulary.end_id)


def test_one_text_is_cut_where_words_end(files):
    recipe = default_recipe("generate").with_value("data.files", str(files / "lines.txt"))
    splits, _ = TASKS["generate"].read(recipe)
    train, validation, held_out = (part[0].text for part in (
        splits.train, splits.validation, splits.held_out))  # fmt: skip
    assert train + validation + held_out == (files / "lines.txt").read_text()
    assert train[-1].isalnum() or train[-1] in ".,"
    assert validation[0].isspace()
    assert 0.75 < len(train) / len(train + validation + held_out) < 0.85


def test_words_of_a_text_are_ten_thousand_ids_at_most():
    texts = [Document(" ".join(f"w{n}x{m}" for m in range(150)) * 2) for n in range(100)]
    found = prepared("generate", Splits(texts, texts[:1], texts[:1]), "task.tokens=words")
    assert len(found.tokenizers["input"].vocabulary) == 10_000
    assert found.config.tied


def test_an_epoch_joins_the_texts_in_another_order():
    texts = [torch.full((40,), n) for n in range(1, 9)]
    task = GenerateTask(texts, texts, seed=1, lanes=2, window=8)
    first, again, second = (
        torch.cat([inputs for inputs, _ in task.batches(epoch)], dim=1) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first[:, :64], second[:, :64])


def test_pieces_make_up_their_texts_and_lead_up_to_what_is_scored():
    texts = [torch.arange(100), torch.arange(7)]
    pieces = pieces_of(texts, together=30, context=10)
    scored = [ids[read:].tolist() for ids, read in pieces]
    assert [n for part in scored[:4] for n in part] == list(range(1, 100))
    assert scored[4] == list(range(1, 7))
    assert [read for _, read in pieces] == [1, 11, 11, 11, 1]


def test_spans_of_iob1_begin_as_in_bio(tmp_path):
    lines = ["Ada I-PER", "Smith I-PER", "Paul B-PER", "saw O", "Rome I-LOC"]
    (tmp_path / "a.conll").write_text(
        "\n\n".join(["\n".join([*lines, f"{n} O"]) for n in range(30)])
    )
    recipe = default_recipe("tag").with_value("data.files", str(tmp_path / "a.conll"))
    splits, said = TASKS["tag"].read(recipe)
    assert splits.train[0].labels == ("B-PER", "I-PER", "B-PER", "O", "B-LOC", "O")
    assert ("labels", "spans in BIO; 60 that began with I- begin with B- now") in said


def test_online_reads_to_the_left_and_its_own_last_label():
    rows = [Sentence(("a", "b", str(n)), ("X", "Y", "X")) for n in range(40)]
    found = prepared("tag", split(rows), "task.online=true")
    assert found.config.streams
    assert found.config.recurrent.reads_output
    assert not prepared("tag", split(rows)).config.streams
    assert not found.config.legal_spans


def test_an_online_tagger_goes_on_with_no_span_that_is_not_there():
    """Whatever its weights say, and in every row of a batch."""
    rows = [Sentence(("a", "b", str(n)), ("B-X", "I-X", "O")) for n in range(40)]
    found = prepared("tag", split(rows), "task.online=true")
    model = found.build(found.config).eval()
    torch.nn.init.normal_(model.output.weight, std=5.0)
    with torch.no_grad():
        model.output.bias[found.labels.index("I-X")] = 50.0
        tokens = torch.randint(1, found.config.vocabulary_size, (6, 12))
        said = model.tag(tokens, torch.full((6,), 12)).argmax(dim=2)
    for row in said.tolist():
        labels = ["", *(found.labels[label] for label in row)]
        assert all(is_legal(a, b) for a, b in pairwise(labels))


def test_every_column_of_numbers_is_read_unless_some_are_named(tmp_path):
    rows = "".join(f"paint {n},{n},{n * n},brand,{n}\n" for n in range(40))
    (tmp_path / "a.csv").write_text("name,r,g,maker,b\n" + rows)
    recipe = default_recipe("vec2seq").with_value("data.files", str(tmp_path / "a.csv"))
    recipe = recipe.with_value("data.text_column", "name")
    splits, said = TASKS["vec2seq"].read(recipe)
    assert splits.train[0].names == ("r", "g", "b")
    assert ("columns", "left out, no number: 'maker'") in said
    splits, _ = TASKS["vec2seq"].read(recipe.with_value("data.number_columns", "b, r"))
    assert splits.train[0].names == ("b", "r")


def test_candidates_of_a_blank_are_frequent_but_not_the_most_frequent(files):
    recipe = default_recipe("fill").with_value("data.files", str(files / "lines.txt"))
    splits, _ = TASKS["fill"].read(recipe)
    candidates = TASKS["fill"].prepare(recipe, splits, seed=1).labels
    assert {"man", "town"} <= set(candidates)
    assert "." not in candidates
    few = recipe.with_value("task.most_frequent", 4).with_value("task.candidates", 3)
    assert len(TASKS["fill"].prepare(few, splits, seed=1).labels) == 3
    assert "the" not in TASKS["fill"].prepare(few, splits, seed=1).labels


@pytest.mark.parametrize(
    ("task", "name"),
    [("classify", "tickets.csv"), ("tag", "train.conll"), ("fill", "lines.txt"),
     ("generate", "texts/*.txt"), ("seq2seq", "pairs.tsv"), ("vec2seq", "paints.csv")],
)  # fmt: skip
def test_an_example_comes_back_from_json_as_it_was(task, name, files):
    recipe = default_recipe(task).with_value("data.files", str(files / name))
    if task == "vec2seq":
        recipe = recipe.with_value("data.text_column", "name")
    splits, _ = TASKS[task].read(recipe)
    for example in splits.held_out:
        content = TASKS[task].example_to_json(example)
        assert TASKS[task].example_from_json(content) == example


def test_too_little_text_for_the_lanes_says_what_to_change():
    texts = [Document("a b") for _ in range(3)]
    with pytest.raises(DataInvalid, match=r"fewer than 50 lanes of 64 take; give more text"):
        prepared("generate", Splits(texts, texts, texts), "task.lanes=50", "task.window=64")
