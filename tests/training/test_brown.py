import pytest

from tests.training.real import real
from training.data.brown import load_sentences, parse_sample, plain_tag, split_sentences

SAMPLE = """

\tThe/at County/nn-tl said/vbd ``/`` and/or/cc ''/'' ./.

\tad/fw-in hoc/fw-jj --/-- ;/.
"""


def test_a_sample_is_a_sentence_a_line():
    """Quotes are ordinary ones; the last stroke parts a word from its tag."""
    assert parse_sample(SAMPLE) == [
        (
            ("The", "at"), ("County", "nn"), ("said", "vbd"), ('"', "``"), ("and/or", "cc"),
            ('"', "''"), (".", "."),
        ),
        (("ad", "in"), ("hoc", "jj"), ("--", "--"), (";", ".")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "plain"),
    [("np-tl", "np"), ("fw-nn-tl-hl", "nn"), ("--", "--"), ("---hl", "--"), ("md*", "md*")],
)
def test_a_tag_says_what_a_word_is_not_where_it_stands(tag, plain):
    assert plain_tag(tag) == plain


def test_every_sentence_is_in_one_split():
    sentences = [((str(number), "cd"),) for number in range(100)]
    splits = split_sentences(sentences)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 85, "validation": 5, "held-out": 10,
    }  # fmt: skip
    assert {s for part in splits.values() for s in part} == set(sentences)


@pytest.mark.real_data
def test_the_real_corpus_has_the_known_size():
    """185 of its 190 tags occur in what is trained and validated on."""
    sentences = real(load_sentences)
    assert (len(sentences), sum(map(len, sentences))) == (57_340, 1_161_192)
    assert len({tag for sentence in sentences for _, tag in sentence}) == 190
    splits = split_sentences(sentences)
    seen = {t for n in ("train", "validation") for s in splits[n] for _, t in s}
    assert (len(seen), sum(map(len, splits["held-out"]))) == (185, 117_279)
