#!/usr/bin/env bash
# Print a template with its variables filled in from the environment; one that is not set is named.
#
#   REPLICA_1_HOST=10.0.0.1 … deploy/envoy/render.sh > envoy.yaml && envoy -c envoy.yaml
#   REPLICA_HOST=unroll … deploy/envoy/render.sh edge.yaml > edge.yaml && envoy -c edge.yaml
set -euo pipefail
template=$(dirname "$0")/${1:-envoy.yaml}
sed -n '/^ *#/!p' "$template" | while IFS= read -r line; do
    while [[ $line =~ \$\{([A-Z0-9_]+)\} ]]; do
        name=${BASH_REMATCH[1]}
        [ -n "${!name:-}" ] || { echo "$name is not set" >&2; exit 1; }
        line=${line//"${BASH_REMATCH[0]}"/${!name}}
    done
    printf '%s\n' "$line"
done
