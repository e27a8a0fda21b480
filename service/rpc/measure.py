"""Memory cost of a request, estimated before anything is made of it.

The same number of bytes may be one long text or half a million empty messages, each of which
becomes an object: `docs/security.md` has what was measured.
"""

from __future__ import annotations

from google.protobuf.message import Message

from service.engine.errors import WrongInput
from service.serving.inputs import MAX_REQUEST_CHARACTERS, MAX_TEXTS
from service.serving.tagger import MAX_TOP_LABELS
from unroll.v1 import unroll_pb2 as pb

# Of a message that is too small to be worth counting, for each byte: the dearest kind.
_SMALL_BYTES, _SMALL_FACTOR = 16_384, 20
# Of a larger one: for each byte, and for each element of what it repeats. Raw ids are the dearest
# kind: eight bytes of each become an integer of Python's.
_BYTE_FACTOR, _ELEMENT_BYTES = 12, 200
# Of what is made of a request until it is answered: a word with its label, a character of a text
# whose words are not known yet, one of a text whose tokens are scored, and a label with its
# probability.
_WORD_BYTES, _TAGGED_CHARACTER_BYTES, _SCORED_CHARACTER_BYTES, _LABEL_BYTES = 900, 200, 100, 110


def resident_bytes(message: Message, wire_bytes: int) -> int:
    """Of ``message`` and of what is made of it. wire_bytes: its own, uncompressed.

    Raises WrongInput for more elements than any request may have.
    """
    if wire_bytes <= _SMALL_BYTES:
        return _SMALL_FACTOR * wire_bytes
    return _BYTE_FACTOR * wire_bytes + _ELEMENT_BYTES * _elements(message)


def classify_bytes(request: pb.ClassifyRequest, labels: int) -> int:
    return (len(request.texts) + len(request.frames)) * labels * _LABEL_BYTES


def tag_bytes(request: pb.TagRequest) -> int:
    words = sum(len(item.words) for item in request.items)
    characters = sum(len(item.text) for item in request.items)
    top = min(request.top_labels, MAX_TOP_LABELS) * _LABEL_BYTES
    return words * (_WORD_BYTES + top) + characters * (_TAGGED_CHARACTER_BYTES + top // 2)


def score_bytes(request: pb.ScoreRequest, state_bytes: int, vocabulary: int) -> int:
    """state_bytes: of a stream's state, which is kept of a text that is read for what follows it.
    vocabulary: of the tokens of which the likeliest are answered, four bytes each."""
    characters = states = distributions = 0
    for item in request.items:
        characters += len(item.text) + sum(map(len, item.choices))
        states += bool(item.choices or item.top_next_tokens)
        distributions += bool(item.top_next_tokens)
    kept = states * state_bytes + distributions * (state_bytes + 4 * vocabulary)
    return characters * _SCORED_CHARACTER_BYTES + kept


def _elements(message: Message) -> int:
    """In all repeated fields. Numbers take no object before they are converted as a whole."""
    total = 0
    for field, value in message.ListFields():
        if not field.is_repeated:
            total += _elements(value) if field.message_type else 0
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        has_messages = field.message_type is not None and not is_map
        most = MAX_TEXTS if has_messages else MAX_REQUEST_CHARACTERS
        is_number = field.cpp_type not in (field.CPPTYPE_MESSAGE, field.CPPTYPE_STRING)
        if len(value) > most and not is_number:
            raise WrongInput(
                f"{field.name} holds {len(value)} entries; send at most {most} a request"
            )
        total += len(value)
        total += sum(map(_elements, value)) if has_messages else 0
    return total
