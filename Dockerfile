# The service with its bundled models. No torch: it serves what export/ wrote.
#
#   docker build -t unroll .
#   docker run --rm -p 50051:50051 -p 8002:8002 unroll
#
# RUNTIME=gpu installs onnxruntime-gpu; its base image must bring CUDA and cuDNN.

ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS install
ARG RUNTIME=cpu
WORKDIR /opt/unroll
COPY pyproject.toml Makefile ./
# The Makefile holds the pip that reads dependency groups, pyproject.toml every other pin.
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --quiet \
        "pip==$(sed -n 's/^PIP_VERSION := //p' Makefile)" \
    && .venv/bin/python -m pip install --no-cache-dir --quiet \
        --group "$([ "$RUNTIME" = gpu ] && echo serve-gpu || echo serve)" \
    && .venv/bin/python -m pip uninstall --yes --quiet pip setuptools

FROM ${BASE_IMAGE}
WORKDIR /opt/unroll
COPY --from=install /opt/unroll/.venv .venv
COPY bundle bundle
COPY client client
COPY service service
COPY unroll unroll
COPY models models
# A number, so that an orchestrator can see that it is not root's.
USER 10001:10001
ENV PATH=/opt/unroll/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 50051 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "service", "serve"]
CMD ["--address", "0.0.0.0:50051", "--http-address", "0.0.0.0:8002"]
