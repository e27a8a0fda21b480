#!/usr/bin/env bash
# buf curl: the protocol as JSON, without generated code.
#
# buf_curl.sh HOST:PORT
set -euo pipefail

server="http://$1/inference.GRPCInferenceService"
buf="${BUF:-.venv/bin/buf}"

# expect METHOD JSON TEXT…: the answer, on one line, holds each TEXT. $described says where buf
# has the messages from.
expect() {
  local method=$1 json=$2 answer
  shift 2
  answer=$("$buf" curl --protocol grpc --http2-prior-knowledge "$described" --data "$json" \
    "$server/$method" | tr -d '\n ')
  echo "$method $described: ${answer:0:160}"
  for text in "$@"; do
    grep -qF -- "$text" <<<"$answer" || { echo "$text is not in $answer" >&2; exit 1; }
  done
}

base64_of() { printf %s "$1" | base64 -w 0; }

classify='{"modelName": "sentiment", "id": "one", "inputs": [{"name": "text", "datatype": "BYTES",
  "shape": [1, 1], "contents": {"bytesContents": ["'$(base64_of "not bad, great in fact")'"]}}]}'

# write ID: a request of five tokens
write() {
  echo '{"modelName": "prose", "id": "'"$1"'", "parameters": {"max_tokens": {"int64Param": 5},
    "seed": {"int64Param": 7}, "temperature": {"doubleParam": 0.7}}, "inputs": [{"name": "prompt",
    "datatype": "BYTES", "shape": [1], "contents": {"bytesContents": ["'"$(base64_of "ROMEO:")"'"]}}]}'
}

# By reflection the server itself describes the messages; with --schema the files do.
for described in --reflect --schema=proto; do
  expect ServerMetadata '{}' '"name":"unroll"' '"extensions":['
  expect ModelInfer "$classify" '"id":"one"' "\"$(base64_of positive)\""
  expect ModelStreamInfer "$(write two)$(write three)" '"inferResponse":' '"id":"two"' \
    '"id":"three"' '"triton_final_response":{"boolParam":true}'
done
