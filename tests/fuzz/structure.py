"""Changes to a message that leave it a message: what a caller could send through a stub."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.edges import (
    NUMBERS,
    altered_data,
    altered_number,
    altered_text,
    data_for,
    text_for,
)

# Elements that one may become, and what they may take together in bytes.
_MANY = (10, 100, 1025, 5000)
_MOST_BYTES = 200_000
# Fields that say which model a request is for.
_NAMES = ("model", "model_name", "name", "model_version", "version")

Donors = Mapping[str, Sequence[Message]]


def donors_of(messages: Iterable[Message]) -> Donors:
    """Every message inside ``messages``, by its type: what fits elsewhere, too."""
    found: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        for part in parts_of(message):
            found[part.DESCRIPTOR.full_name].append(part)
    return found


def parts_of(message: Message) -> Iterator[Message]:
    """``message`` and all that are set inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if _is_map(field):
            of_messages = field.message_type.fields_by_name["value"].message_type is not None
            children = list(value.values()) if of_messages else []
        else:
            children = list(value) if field.is_repeated else [value]
        for child in children:
            yield from parts_of(child)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


class StructureMutator:
    """Changes messages in place, one thing at a time. donors: parts to put in."""

    def __init__(self, choose: random.Random, donors: Donors) -> None:
        self.choose = choose
        self.donors = donors

    def mutate(self, message: Message) -> None:
        """Change one field anywhere in it; a message that has no field stays as it is."""
        parts = [part for part in parts_of(message) if part.DESCRIPTOR.fields]
        if not parts:
            return
        # The message itself has the fields that decide most.
        part = message if self.choose.random() < 0.3 else self.choose.choice(parts)
        self._change(part, self._field(part))

    def _field(self, message: Message) -> FieldDescriptor:
        filled = [field for field, _ in message.ListFields()]
        if not filled or self.choose.random() < 0.3:
            return self.choose.choice(message.DESCRIPTOR.fields)
        # A request of an unknown model goes no further, so that is not tried too often.
        far = [field for field in filled if field.name not in _NAMES]
        return self.choose.choice(far if far and self.choose.random() < 0.8 else filled)

    def _change(self, message: Message, field: FieldDescriptor) -> None:
        if _is_map(field):
            self._change_map(getattr(message, field.name), field)
        elif field.is_repeated:
            self._change_list(getattr(message, field.name), field)
        elif self.choose.random() < 0.15:
            message.ClearField(field.name)
        elif field.message_type is not None:
            self._change_message(getattr(message, field.name))
        else:
            setattr(message, field.name, self._scalar(field, getattr(message, field.name)))

    def _change_map(self, values: Any, field: FieldDescriptor) -> None:
        entry = field.message_type.fields_by_name
        if values and self.choose.random() < 0.3:
            del values[self.choose.choice(sorted(values))]
        elif entry["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING:
            self._set_entry(values, text_for(self.choose, field.name), entry["value"])
        else:
            self._set_entry(values, self._scalar(entry["key"], 0), entry["value"])

    def _set_entry(self, values: Any, key: Any, value: FieldDescriptor) -> None:
        if value.message_type is not None:
            self._change_message(values[key])
        else:
            values[key] = self._scalar(value, values[key])

    def _change_list(self, values: Any, field: FieldDescriptor) -> None:
        if not values or self.choose.random() < 0.25:
            self._add(values, field)
            return
        place = self.choose.randrange(len(values))
        if field.message_type is None and self.choose.random() < 0.5:
            values[place] = self._scalar(field, values[place])
            return
        match self.choose.randrange(6):
            case 0:
                del values[place]
            case 1:
                values.append(values[place])
            case 2:
                values.reverse()
            case 3:
                self._repeat(values, place)
            case 4:
                del values[place:]
            case _ if field.message_type is not None:
                self._change_message(values[place])
            case _:
                values[place] = self._scalar(field, values[place])

    def _add(self, values: Any, field: FieldDescriptor) -> None:
        if field.message_type is not None:
            self._change_message(values.add())
        else:
            values.append(self._scalar(field, field.default_value))

    def _repeat(self, values: Any, place: int) -> None:
        one = values[place]
        size = one.ByteSize() if isinstance(one, Message) else len(str(one))
        count = min(self.choose.choice(_MANY), _MOST_BYTES // (1 + size))
        values.extend([one] * count)

    def _change_message(self, message: Message) -> None:
        """Another one in its place, or some of its fields."""
        others = self.donors.get(message.DESCRIPTOR.full_name, ())
        if others and self.choose.random() < 0.4:
            message.CopyFrom(self.choose.choice(others))
            return
        message.SetInParent()
        if message.DESCRIPTOR.fields:
            for _ in range(self.choose.randint(1, 2)):
                self._change(message, self._field(message))

    def _number(self, field: FieldDescriptor) -> Any:
        return self.choose.choice(NUMBERS[field.cpp_type])

    def _scalar(self, field: FieldDescriptor, now: Any) -> Any:
        alters = bool(now) and self.choose.random() < 0.4
        if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            return altered_number(self.choose, field, now) if alters else self._number(field)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return altered_data(self.choose, now) if alters else data_for(self.choose)
        return altered_text(self.choose, now) if alters else text_for(self.choose, field.name)
