#!/usr/bin/env bash
# Write the rules of deploy/prometheus as objects of the Prometheus operator, for the component
# monitoring. The rules themselves are changed there.
#
#   deploy/kubernetes/wrap-rules.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
folder=${1:-components/monitoring}
for name in recording alerts; do
    {
        echo "# Made by wrap-rules.sh of deploy/prometheus/$name.yml; not to be edited."
        echo "apiVersion: monitoring.coreos.com/v1"
        echo "kind: PrometheusRule"
        echo "metadata:"
        echo "  name: unroll-$name"
        echo "spec:"
        sed 's/^\(.\)/  \1/' "../prometheus/$name.yml"
    } > "$folder/$name.yaml"
done
