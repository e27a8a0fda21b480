"""Compares this project's protocol files with the messages that a client was built with.

python same_messages.py DESCRIPTOR_SET MODULE… [--all] [--differs NAME]…

DESCRIPTOR_SET is what protoc or buf writes; each MODULE holds the client's generated messages.
What both define must be the same: names, numbers, types, labels, requests and responses.
Exits with 1 where it is not, and names what differs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2

Received = dict[str, str]


def files_of(modules: Sequence[str]) -> list[descriptor_pb2.FileDescriptorProto]:
    files = []
    for module in modules:
        file = descriptor_pb2.FileDescriptorProto()
        importlib.import_module(module).DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def described_in(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> Received:
    """Everything that is on the wire, by its full name."""
    all_of_it: Received = {}
    for file in files:
        prefix = f".{file.package}"
        for message in file.message_type:
            all_of_it.update(in_message(prefix, message))
        for enum in file.enum_type:
            all_of_it.update(in_enum(prefix, enum))
        for service in file.service:
            for method in service.method:
                all_of_it[f"{prefix}.{service.name}.{method.name}"] = in_method(method)
    return all_of_it


def in_message(prefix: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, str]]:
    name = f"{prefix}.{message.name}"
    yield name, "message"
    for field in message.field:
        yield f"{name}.{field.name}", in_field(message, field)
    for nested in message.nested_type:
        yield from in_message(name, nested)
    for enum in message.enum_type:
        yield from in_enum(name, enum)


def in_field(
    message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto
) -> str:
    kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    label = descriptor_pb2.FieldDescriptorProto.Label.Name(field.label)
    choice = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    return f"{label} {kind}{field.type_name} = {field.number} {choice}".strip()


def in_enum(prefix: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    name = f"{prefix}.{enum.name}"
    yield name, "enum"
    for value in enum.value:
        yield f"{name}.{value.name}", str(value.number)


def in_method(method: descriptor_pb2.MethodDescriptorProto) -> str:
    request = "stream " * method.client_streaming + method.input_type
    return f"({request}) returns ({'stream ' * method.server_streaming}{method.output_type})"


def main(arguments: argparse.Namespace) -> int:
    described = descriptor_pb2.FileDescriptorSet.FromString(arguments.described.read_bytes())
    ours, theirs = described_in(list(described.file)), described_in(files_of(arguments.modules))
    shared = ours.keys() & theirs.keys()
    differing = {name for name in shared if ours[name] != theirs[name]}
    for name in sorted(differing):
        print(f"{name}: here {ours[name]}, there {theirs[name]}")
    only_here, only_there = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    print(f"{len(shared)} definitions compared with {' and '.join(arguments.modules)}")
    print(f"only here: {len(only_here)}, only there: {len(only_there)}")
    is_same = bool(shared) and differing == set(arguments.differs)
    return 0 if is_same and not (arguments.all and only_here) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("described", type=Path, metavar="DESCRIPTOR_SET")
    parser.add_argument("modules", nargs="+", metavar="MODULE")
    parser.add_argument("--all", action="store_true", help="the client must know all that is here")
    parser.add_argument("--differs", action="append", default=[], help="known to be otherwise")
    sys.exit(main(parser.parse_args()))
