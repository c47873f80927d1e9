# Two targets; CI builds neither yet.
#
#   docker build --target cpu -t hybridserve-llm:cpu .
#   docker build --target gpu -t hybridserve-llm:gpu .
#   docker run --init -p 8000:8000 hybridserve-llm:cpu
#   docker run --init --gpus all --ipc host -p 8000:8000 -v "$PWD":/cascade hybridserve-llm:gpu \
#       --config /cascade/cascade.yaml --host 0.0.0.0
#
# Inside a container the server must listen on 0.0.0.0 to be reached; set API keys (docs/config.md)
# before the port is open to others.

# The full image, not the slim one: vLLM compiles kernels when it starts and needs a C compiler.
FROM python:3.11-bookworm AS base
RUN useradd --create-home hybridserve
WORKDIR /opt/hybridserve
COPY pyproject.toml README.md LICENSE ./
COPY hybridserve_llm hybridserve_llm
COPY launch launch
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
EXPOSE 8000
ENTRYPOINT ["hs-launch"]
CMD ["--demo", "--host", "0.0.0.0"]

FROM base AS cpu
ARG PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"
# torchvision and its like come as dependencies; builds that do not fit the CPU build of torch break
# it when they are imported, and no text model needs them.
RUN pip install ${PIP_EXTRA} torch==2.13.0+cpu \
 && pip install ${PIP_EXTRA} '.[cpu]' \
 && (python -c 'import torchvision' || pip uninstall --yes torchvision torchaudio torchcodec)
USER hybridserve

FROM base AS gpu
RUN pip install '.[gpu]'
USER hybridserve
