#!/usr/bin/env bash
# buf curl over Connect and gRPC-Web, and curl itself: JSON, without generated code.
#
# buf_curl_web.sh HOST:PORT
set -euo pipefail

server="http://$1/unroll.v1.UnrollService"
buf="${BUF:-.venv/bin/buf}"

# expect WHAT ANSWER TEXT…: the answer, on one line, holds each TEXT.
expect() {
  local what=$1 answer=$2
  shift 2
  echo "$what: ${answer:0:160}"
  for text in "$@"; do
    grep -qF -- "$text" <<<"$answer" || { echo "$text is not in $answer" >&2; exit 1; }
  done
}

classify='{"model": "sentiment", "texts": ["not bad, great in fact"]}'
generate='{"model": "prose", "prompt": "ROMEO:", "maxTokens": 5, "sampling": {"seed": 7}}'
tag='{"start": {"model": "pos-online"}}{"words": {"words": ["They", "can"]}}{"text": "fish"}'

for protocol in connect grpcweb; do
  # By reflection the server itself describes the messages; with --schema the files do.
  for described in --reflect --schema=proto; do
    call() {
      "$buf" curl --protocol "$protocol" --http2-prior-knowledge "$described" --data "$2" \
        "$server/$1" | tr -d '\n '
    }
    expect "Classify, $protocol $described" "$(call Classify "$classify")" '"label":"positive"'
    expect "Generate, $protocol $described" "$(call Generate "$generate")" '"seed":"7"' \
      '"finishReason":"FINISH_REASON_LENGTH"'
    expect "StreamTag, $protocol $described" "$(call StreamTag "$tag")" '"label":"md"' \
      '"label":"vb"' '"outputTokens":3'
  done
done

expect "curl" "$(curl -sS --json "$classify" "$server/Classify")" '"label":"positive"'
expect "curl, GET" "$(curl -sS -G -d encoding=json --data-urlencode "message=$classify" \
  "$server/Classify")" '"label":"positive"'
expect "curl, refused" "$(curl -sS --json '{"model": "nobody", "texts": ["a"]}' \
  -w ' %{http_code}' "$server/Classify")" '"code":"not_found"' ' 404'
