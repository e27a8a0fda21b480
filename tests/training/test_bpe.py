import random

from bundle.tokenizer import WORD_BEGIN
from training.bpe import cut_at_random, learn_pieces

TEXTS = ["low lower lowest.", "new newer newest.", "low new, low new"]


def test_frequent_neighbours_become_pieces():
    """The words that all others begin with are pieces; marks join nothing."""
    symbols = learn_pieces(TEXTS, 24).vocabulary.symbols
    assert {f"{WORD_BEGIN}low", f"{WORD_BEGIN}new"} <= set(symbols)
    assert not [symbol for symbol in symbols if "." in symbol and symbol != "."]
    assert symbols[0] == f"{WORD_BEGIN}low"


def test_the_same_texts_make_the_same_pieces_and_leave_nothing_unknown():
    tokenizer = learn_pieces(TEXTS, 24)
    assert tokenizer == learn_pieces(TEXTS, 24)
    assert [tokenizer.encode(text).unknown for text in TEXTS] == [0, 0, 0]
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in TEXTS] == TEXTS


def test_pieces_are_no_more_than_asked_for():
    characters = len({*"".join(TEXTS).replace(" ", ""), WORD_BEGIN})
    assert len(learn_pieces(TEXTS, characters + 3).vocabulary.symbols) <= characters + 3
    assert len(learn_pieces(TEXTS, 1).vocabulary.symbols) == characters


def test_a_random_cut_is_the_same_word_in_other_pieces():
    tokenizer = learn_pieces(TEXTS, 24)
    whole = cut_at_random(tokenizer, "lowest", 0.0, random.Random(0))
    assert whole == tokenizer.split("lowest")
    cuts = [cut_at_random(tokenizer, "lowest", 0.5, random.Random(seed)) for seed in range(20)]
    assert {"".join(cut) for cut in cuts} == {f"{WORD_BEGIN}lowest"}
    assert len({tuple(cut) for cut in cuts}) > 1
    assert cut_at_random(tokenizer, "low", 1.0, random.Random(0)) == [WORD_BEGIN, "l", "o", "w"]
