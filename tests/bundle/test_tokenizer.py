import pytest

from bundle.errors import ManifestInvalid
from bundle.tokenizer import Tokenizer, count_symbols, split
from bundle.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("kind", "text", "symbols"),
    [
        ("words", "It isn't well-made, really!", ["It", "isn't", "well-made", ",", "really", "!"]),
        ("words", "  \n ", []),
        ("characters", "a b\n", ["a", " ", "b", "\n"]),
        ("symbols", " HH  AH L ", ["HH", "AH", "L"]),
    ],
)
def test_split(kind, text, symbols):
    assert split(kind, text) == symbols


def test_unknown_symbols_are_counted():
    tokenizer = Tokenizer("characters", Vocabulary(("a", "b")))
    encoded = tokenizer.encode("abxay")
    assert encoded.ids == [1, 2, 3, 1, 3]
    assert encoded.unknown == 2


@pytest.mark.parametrize(
    ("kind", "symbols", "text"),
    [
        ("characters", "abc", "cab"),
        ("words", ("the", "food"), "the food"),
        ("symbols", "PQ", "Q P"),
        ("pieces", ("▁bet", "ter", "▁for", ".", "▁"), "better for better."),
    ],
)
def test_joined_pieces_are_the_text(kind, symbols, text):
    """What a client gets by joining a stream's pieces is the decoded text."""
    tokenizer = Tokenizer(kind, Vocabulary(tuple(symbols)))
    ids = tokenizer.encode(text).ids
    pieces = [tokenizer.piece(token, first=i == 0) for i, token in enumerate(ids)]
    assert "".join(pieces) == tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("betters  bet", ["▁bett", "er", "s", "▁bet"]),
        ("ébet", ["▁", "é", "b", "et"]),
        (" \n ", []),
    ],
)
def test_a_piece_is_the_longest_that_the_vocabulary_holds(text, pieces):
    """A character that no piece begins with stands alone, and is unknown."""
    vocabulary = Vocabulary(("▁", "▁bet", "▁bett", "er", "b", "et", "s"))
    tokenizer = Tokenizer("pieces", vocabulary)
    assert tokenizer.split(text) == tokenizer.words_of(text) == pieces
    assert tokenizer.encode(text).unknown == pieces.count("é")


def test_pieces_of_a_lowercased_text():
    tokenizer = Tokenizer("pieces", Vocabulary(("▁bet", "ter")), lowercase=True)
    assert tokenizer.words_of("BETTER") == ["▁bet", "ter"]
    assert tokenizer.encode("BETTER") == tokenizer.encode_words(["▁bet", "ter"])


def test_lowercase_applies_before_counting_and_encoding():
    tokenizer = count_symbols("words", ["The the THE food"], lowercase=True)
    assert tokenizer.vocabulary.symbols == ("the", "food")
    assert tokenizer.encode("THE Food").unknown == 0


def test_words_of_a_text_are_numbered_as_the_text_is():
    """They stand as they were sent; a word that is given is one symbol whatever it holds."""
    tokenizer = Tokenizer("words", Vocabulary(("it's", "the", "end")), lowercase=True)
    text = "It's THE end."
    words = tokenizer.words_of(text)
    assert words == ["It's", "THE", "end", "."]
    assert tokenizer.encode_words(words) == tokenizer.encode(text)
    assert tokenizer.encode_words(["the end", "The"]).ids == [4, 2]


@pytest.mark.parametrize(
    ("word", "symbol"),
    [
        ("said", "said"),
        ("walking", "lower:ing"),
        ("Stirling", "Upper:"),
        ("well-made", "lower-hyphen:made"),
        ("1920s", "digit:0s"),
        ("it", None),
    ],
)
def test_a_word_that_is_lacked_is_read_as_its_longest_ending(word, symbol):
    vocabulary = Vocabulary(
        ("said", "lower:ing", "lower:g", "Upper:", "lower-hyphen:made", "digit:0s")
    )
    tokenizer = Tokenizer("endings", vocabulary)
    token = vocabulary.unknown_id if symbol is None else vocabulary.id_of(symbol)
    assert tokenizer.encode_words([word]).ids == [token]
    assert tokenizer.encode_words([word]).unknown == (word != "said")
    assert (token in tokenizer.stand_ins) == (word != "said")


def test_words_with_endings_are_split_as_words_are():
    text = "It isn't well-made, really!"
    assert split("endings", text) == split("words", text)


def test_no_mark_or_word_of_a_text_is_an_ending():
    tokenizer = Tokenizer("endings", Vocabulary(("lower:", "lower:ing", "digit:")))
    assert tokenizer.encode("lower:ing : …").unknown == 5


def test_another_kind_is_refused():
    with pytest.raises(ManifestInvalid, match="words, characters, symbols"):
        Tokenizer("bytes", Vocabulary(("a",)))
