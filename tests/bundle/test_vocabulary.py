import json

import pytest

from bundle.errors import SymbolUnknown, VocabularyInvalid
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import PADDING_ID, ListedVocabulary, Vocabulary


def test_symbols_are_numbered_from_one_by_falling_frequency():
    """The lecture's order: word 1 is the most frequent; ties go by the symbol."""
    vocabulary = Vocabulary.count(["b", "a", "a", "c", "b", "a"])
    assert vocabulary.symbols == ("a", "b", "c")
    assert [vocabulary.id_of(symbol) for symbol in "abc"] == [1, 2, 3]


def test_the_last_id_is_the_catch_all_and_the_cap_counts_it():
    """With a cap of 3, ids 1 and 2 are symbols, 3 is everything else, 0 is padding."""
    vocabulary = Vocabulary.count("aaabbc", cap=3)
    assert vocabulary.unknown_id == 3
    assert len(vocabulary) == 4
    assert vocabulary.id_of("c") == vocabulary.id_of("never seen") == 3
    assert vocabulary.symbol_of(3) == "\N{REPLACEMENT CHARACTER}"
    assert vocabulary.symbol_of(PADDING_ID) == ""


def test_the_lectures_ten_thousand_words():
    """Word 1 is "the", 2 "and", 3 "a"; word 10,000 is whatever the 9,999 before it are not."""
    rare = [f"word{rank:05}" for rank in range(4, 12_001)]  # each once: their ties go by name
    stream = ["the"] * 4 + ["and"] * 3 + ["a"] * 2 + rare
    vocabulary = Vocabulary.count(reversed(stream), cap=10_000)
    assert [vocabulary.id_of(word) for word in ("the", "and", "a")] == [1, 2, 3]
    assert vocabulary.id_of("word09999") == 9_999
    beyond = ("word10000", "word12000", "never seen")
    assert [vocabulary.id_of(word) for word in beyond] == [10_000] * 3
    assert len(vocabulary.symbols) == 9_999
    assert vocabulary.unknown_id == 10_000
    assert len(vocabulary) == 10_001  # rows of the embedding: the 10,000 words and padding


def test_a_cap_that_is_not_reached_leaves_the_catch_all_after_the_words():
    vocabulary = Vocabulary.count("aab", cap=10_000)
    assert (len(vocabulary.symbols), vocabulary.unknown_id) == (2, 3)


def test_markers_lie_between_the_symbols_and_the_catch_all():
    vocabulary = Vocabulary(("a", "b"), has_markers=True)
    assert (vocabulary.begin_id, vocabulary.end_id, vocabulary.unknown_id) == (3, 4, 5)
    assert vocabulary.never_sampled_ids == (0, 3, 5)


def test_a_cap_leaves_room_for_the_markers():
    vocabulary = Vocabulary.count("aaabbc", cap=4, has_markers=True)
    assert vocabulary.symbols == ("a",)
    assert vocabulary.unknown_id == 4


def test_asking_for_markers_that_are_not_there_is_an_error():
    with pytest.raises(VocabularyInvalid, match="no begin and end markers"):
        _ = Vocabulary(("a",)).begin_id


def test_a_symbol_twice_is_refused():
    with pytest.raises(VocabularyInvalid, match="'a'"):
        Vocabulary(("a", "b", "a"))


def test_json_keeps_everything():
    vocabulary = Vocabulary(("ä", "\n", " "), has_markers=True)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


LISTED = ListedVocabulary(
    ("<s>", "b", "a", "<unk>", "</s>", "<pad>"),
    special=(("bos", 0), ("unk", 3), ("eos", 4), ("pad", 5)),
)


def test_a_listed_vocabulary_keeps_its_order():
    assert len(LISTED) == 6
    assert [LISTED.id_of(symbol) for symbol in "ba"] == [1, 2]
    assert [LISTED.symbol_of(token) for token in range(-1, 7)] == [
        "", "", "b", "a", "\N{REPLACEMENT CHARACTER}", "", "", "",
    ]  # fmt: skip
    assert (LISTED.begin_id, LISTED.end_id, LISTED.has_markers) == (0, 4, True)
    assert sorted(LISTED.never_sampled_ids) == [0, 3, 5]


def test_what_stands_for_no_text_is_not_read_from_text():
    assert LISTED.id_of("</s>") == LISTED.unknown_id


def test_without_a_symbol_for_the_unknown_a_text_must_be_known():
    vocabulary = ListedVocabulary(("a", "b"))
    assert vocabulary.id_of("b") == 1
    assert (vocabulary.has_begin, vocabulary.has_end, vocabulary.never_sampled_ids) == (
        False, False, (),
    )  # fmt: skip
    with pytest.raises(SymbolUnknown, match="'c' is not in the vocabulary"):
        Tokenizer("characters", vocabulary).encode("abc")
    with pytest.raises(VocabularyInvalid, match="no symbol for 'eos'"):
        _ = vocabulary.end_id


def test_a_listed_vocabulary_survives_json():
    content = json.loads(json.dumps(LISTED.to_json()))
    assert Vocabulary.from_json(content) == LISTED
    assert hash(Vocabulary.from_json(content)) == hash(LISTED)


@pytest.mark.parametrize(
    ("symbols", "special"),
    [
        (("a", "a"), ()), (("a",), (("pad", 1),)), (("a",), (("other", 0),)),
        (("a", "b"), (("pad", 0), ("pad", 1))), (("a", "b"), (("pad", 0), ("unk", 0))),
    ],
)  # fmt: skip
def test_a_listed_vocabulary_that_contradicts_itself_is_refused(symbols, special):
    with pytest.raises(VocabularyInvalid):
        ListedVocabulary(symbols, special=special)
