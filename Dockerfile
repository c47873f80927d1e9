# Two targets; docs/deploy.md says how to build and run them, and what has been checked.
#
#   docker build --target cpu -t hybridserve-llm:cpu .
#   docker build --target gpu -t hybridserve-llm:gpu .

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# ---- What both targets are built in; nothing but its virtual environment gets into them ----
FROM ${PYTHON_IMAGE} AS builder
# Where pip finds packages; without them its own default. Credentials belong into the secret
# `pip_config` instead, a pip.conf: build arguments stay in the history of this stage.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/hybridserve/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/hybridserve
WORKDIR /src
COPY LICENSE README.md pyproject.toml ./
# Empty packages stand in for ours, so that a change of our code installs no dependency anew.
RUN mkdir eval hybridserve_llm launch \
 && touch eval/__init__.py hybridserve_llm/__init__.py launch/__init__.py

FROM builder AS cpu-builder
# torchvision and its like come as dependencies; builds that do not fit the CPU build of torch break
# it when they are imported, and no text model needs them. Versions are bounded by pyproject.toml.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    pip install torch==2.13.0+cpu \
 && pip install '.[cpu,drift]' \
 && { python -c 'import torchvision' || pip uninstall --yes torchvision torchaudio torchcodec; }
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    pip install --no-deps --force-reinstall .

FROM builder AS gpu-builder
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    pip install '.[gpu,drift]'
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    pip install --no-deps --force-reinstall .

# ---- What both targets run in ----
FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="HybridServe-LLM" \
      org.opencontainers.image.description="LLM cascade server on vLLM" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# Both folders are there and the user's own before they become volumes: a new volume takes that over.
RUN useradd --create-home --uid 10001 hybridserve \
 && install -d -o hybridserve -g hybridserve \
    /home/hybridserve/.cache /var/lib/hybridserve /var/lib/hybridserve/run
ENV PATH=/opt/hybridserve/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /var/lib/hybridserve
VOLUME ["/var/lib/hybridserve", "/home/hybridserve/.cache"]
EXPOSE 8000
# Whether the front end answers, and no more: a tier that is down is passed over and started again,
# which a restart of the whole container would only delay. Giants take long to load.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 CMD ["python", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["hs-launch", "--host", "0.0.0.0", "--port", "8000", \
  "--run-folder", "/var/lib/hybridserve/run"]
CMD ["--demo"]

FROM runtime AS cpu
# vLLM's kernels for the CPU are linked against it. Debian's mirrors keep one version only, so none is
# named here and below.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libnuma1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=cpu-builder /opt/hybridserve /opt/hybridserve
USER 10001:10001

FROM runtime AS gpu
# Triton compiles the stubs that start its kernels when it first runs: vLLM needs a C compiler on a
# GPU (docs/deploy.md).
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-builder /opt/hybridserve /opt/hybridserve
USER 10001:10001
