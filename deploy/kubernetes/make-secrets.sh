#!/usr/bin/env bash
# Print the three Secrets that the overlay production refers to, made anew.
#
#   deploy/kubernetes/make-secrets.sh CERTIFICATE KEY [CLIENT_CA] | kubectl apply -f -
#
# CERTIFICATE, KEY: PEM files for the gRPC port, with the names that callers use, such as
# unroll-replicas.unroll.svc.cluster.local. CLIENT_CA: for the component mutual-tls. The first token
# goes to standard error, once; the Secret holds its hash. Where cert-manager keeps the Secret
# unroll-tls, leave that one out of what is applied.
#
#   NAMESPACE   where to (unroll)      CALLER   whose token it is (operator)
#   ROLES       of the token (infer)   PYTHON   with what serving needs (.venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
certificate=$1 key=$2 client_ca=${3:-}

secret() { # TYPE NAME [--from-file …]
    kubectl create secret "$1" "$2" --namespace "${NAMESPACE:-unroll}" \
        --dry-run=client --output=yaml "${@:3}"
    echo ---
}

keys=$(openssl rand -hex 32)
made=$("${PYTHON:-.venv/bin/python}" -m service token "${CALLER:-operator}" --roles "${ROLES:-infer}")
echo "the token of ${CALLER:-operator}: $(sed -n 1p <<<"$made")" >&2

# Secrets come from pipes, not arguments: those are listed with the processes.
secret generic unroll-resume-keys --from-file=keys=<(echo "$keys")
secret generic unroll-tokens --from-file=tokens=<(sed -n 2p <<<"$made")
secret generic unroll-tls --type=kubernetes.io/tls \
    --from-file=tls.crt="$certificate" --from-file=tls.key="$key" \
    ${client_ca:+--from-file=ca.crt="$client_ca"}
