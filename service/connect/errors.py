"""Statuses as Connect's errors, which are JSON whatever the messages are."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2

from service.access.codes import Code
from service.rpc.status import Status

# As Connect spells them: google.rpc.Code in lower case, but for one.
NAMES = {code: "canceled" if code is Code.CANCELLED else code.name.lower() for code in Code}


def error_of(status: Status) -> dict[str, Any]:
    """https://connectrpc.com/docs/protocol#error-end-stream"""
    error: dict[str, Any] = {"code": NAMES[status.code]}
    if status.message:
        error["message"] = status.message
    if details := [_detail(each) for each in status.details()]:
        error["details"] = details
    return error


def error_json(status: Status) -> bytes:
    return dumped(error_of(status))


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _detail(detail: AnyMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": detail.TypeName(),
        "value": b64encode(detail.value).rstrip(b"=").decode(),
    }
    retry = error_details_pb2.RetryInfo()
    if detail.Unpack(retry):
        shown["debug"] = json_format.MessageToDict(retry)
    return shown
