# The service with its models. No torch: it serves what export/ wrote.
#
#   docker build -t unroll .
#   docker run --rm -p 50051:50051 -p 8002:8002 --stop-timeout 45 unroll
#
# Build arguments:
#   RUNTIME     cpu, or gpu for onnxruntime-gpu: its base image must bring CUDA and cuDNN
#   MODELS      bundled, or none for an image without models: mount them on /opt/unroll/models
#   BASE_IMAGE  has Python 3.11 or newer with venv and its shared library (libpython3.11.so, which
#               Envoy loads), and libstdc++; for a release by its digest
#   PIP_CERT    the certificates that pip trusts, where a proxy has one of its own

ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG RUNTIME=cpu
ARG PIP_CERT
WORKDIR /build
COPY deploy/locks ./
# Each file that is installed, pip's own too, has a hash in a lock; nothing is built from source.
RUN case "$RUNTIME" in cpu) lock=serve.txt ;; gpu) lock=serve-gpu.txt ;; \
        *) echo "RUNTIME is $RUNTIME; choose cpu or gpu" >&2; exit 2 ;; esac \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --quiet --require-hashes -r pip.txt \
    && /opt/venv/bin/python -m pip install --no-cache-dir --quiet --only-binary :all: \
        --require-hashes -r "$lock" \
    && /opt/venv/bin/python -m pip uninstall --yes --quiet pip setuptools
# What no server runs: tests, type stubs, tools that make and change models, and on the CPU
# the runtime's library for programs in C, which its Python module does not load.
RUN find /opt/venv/lib -type d \( -name tests -o -path '*/onnxruntime/transformers' \
        -o -path '*/onnxruntime/quantization' -o -path '*/onnxruntime/tools' \) \
        -prune -exec rm -rf {} + \
    && find /opt/venv/lib -name '*.pyi' -delete \
    && { [ "$RUNTIME" = gpu ] || find /opt/venv/lib -name 'libonnxruntime.so.*' -delete; } \
    && /opt/venv/bin/python -c 'import grpc, numpy, onnxruntime'

# Compiled here, since nobody can write there; readable whatever the modes in the checkout.
FROM packages AS code
WORKDIR /opt/unroll
COPY bundle bundle
COPY service service
COPY unroll unroll
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash . \
    && chmod -R a+rX . \
    && /opt/venv/bin/python -c 'from service.envoy.installation import find; find()'

FROM ${BASE_IMAGE} AS models
ARG MODELS=bundled
COPY models /models
RUN case "$MODELS" in bundled) ;; none) rm -rf /models/* ;; \
        *) echo "MODELS is $MODELS; choose bundled or none" >&2; exit 2 ;; esac \
    && chmod -R a+rX /models

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Unroll" \
      org.opencontainers.image.description="Serves recurrent networks over gRPC, every token streamed as it is made"
WORKDIR /opt/unroll
COPY --from=packages /opt/venv /opt/venv
COPY --from=models /models models
COPY --from=code /opt/unroll ./
# A number, so that an orchestrator can see that it is not root's.
USER 10001:10001
# Settings are variables, so that a variable or a flag of whoever runs the container wins.
# onnxruntime reports its use to its maker unless that is turned off.
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UNROLL_ADDRESS=0.0.0.0:50051 \
    UNROLL_HTTP_ADDRESS=0.0.0.0:8002 \
    UNROLL_ALLOW_INSECURE=true
EXPOSE 50051 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-ISc", "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['UNROLL_HTTP_ADDRESS'].rpartition(':')[2]), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "service", "serve"]
