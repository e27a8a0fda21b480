import pytest

from tests.training.real import real
from training.data.wordnet import NOUN, PARTS_OF_SPEECH, load_wordnet, parse_synset, parse_wordnet

BANK = (
    "08420278 14 n 03 depository_institution 0 bank 0 banking_concern 0 001 @ 08054721 n 0000 "
    '| a financial institution that accepts deposits (and lends); "he cashed a check at the bank"; '
    '"that bank holds the mortgage"  '
)
GALAHAD = "09579325 18 n 01 Galahad 0 001 @i 09599821 n 0000 | the most virtuous knight  "
BLANKLY = '00000001 02 r 01 blankly 0 000 | without expression; "he stared blankly"  '
DEPOSIT = (
    "02310895 40 v 02 bank 0 deposit 0 001 @ 02293321 v 0000 01 + 08 00 | put into an account  "
)
SLUR = "09640000 18 n 01 pleb 0 001 @ 09638875 n 0000 | (ethnic slur) offensive term for a person  "


def lines(**found):
    return {part: ["  1 This software", *found.get(part, ())] for part in PARTS_OF_SPEECH}


WORDNET = parse_wordnet(
    lines(noun=[BANK, GALAHAD, SLUR], verb=[DEPOSIT], adv=[BLANKLY]),
    lines(
        noun=["bank n 1 1 @ 1 1 08420278  ", "galahad n 1 1 @ 1 0 09579325  ",
              "pleb n 1 1 @ 1 0 09640000  "],
        verb=["bank v 1 1 @ 1 1 02310895  ", "deposit v 1 1 @ 1 1 02310895  "],
        adv=["blankly r 1 0 1 1 00000001  "],
    ),
    {**dict.fromkeys(PARTS_OF_SPEECH, ()), "noun": ["benk bank"]},
)  # fmt: skip


def test_a_line_is_words_a_meaning_and_examples():
    synset = parse_synset(BANK, NOUN)
    assert synset.words == ("depository_institution", "bank", "banking_concern")
    assert synset.gloss == "a financial institution that accepts deposits (and lends)"
    assert synset.examples == ("he cashed a check at the bank", "that bank holds the mortgage")
    assert not synset.is_instance


def test_inflected_words_have_the_senses_of_their_base():
    for word in ("banks", "benk"):
        assert WORDNET.senses_of(word)[0][0].words[1] == "bank"
    assert [senses[0].part_of_speech for senses in WORDNET.senses_of("banks")] == ["noun", "verb"]
    assert WORDNET.senses_of("banking")[0][0].gloss == "put into an account"
    assert not WORDNET.senses_of("riverside")


@pytest.mark.parametrize(
    ("word", "common"),
    [("banks", True), ("blankly", True), ("galahad", False), ("pleb", False), ("lol", False)],
)
def test_names_and_slurs_are_no_common_words(word, common):
    assert WORDNET.is_common(word) == common


def test_each_meaning_of_a_word_is_said_in_a_sentence():
    assert list(WORDNET.definitions({"bank"})) == [
        "a bank is a financial institution that accepts deposits and lends",
        "a financial institution that accepts deposits and lends is called a bank",
        "Galahad is the most virtuous knight",
        "a pleb is offensive term for a person",
        "to bank is to put into an account",
        "blankly means without expression",
    ]


@pytest.mark.real_data
def test_the_package_has_all_of_wordnet():
    wordnet = real(load_wordnet)
    assert len(wordnet.synsets) == 117_659
    assert sum(1 for _ in wordnet.examples()) > 45_000
