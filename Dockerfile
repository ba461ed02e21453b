# docker build -t registry.example.com/netutil:0.1.0 .
#
# The base is pinned by its exact tag. A tag can be moved; to pin the content,
# give the digest that your registry shows for it (docker buildx imagetools inspect):
#   --build-arg PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm@sha256:…
# Of the first, which has a C compiler, nothing is shipped but what it builds.
ARG PYTHON_BUILD_IMAGE=docker.io/library/python:3.11.15-bookworm
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm

FROM ${PYTHON_BUILD_IMAGE} AS build
# The gRPC server becomes machine code: setup.py.
ENV VENV=/opt/netutil \
    NETUTIL_COMPILE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1
WORKDIR /src
COPY setup.py setup.cfg pyproject.toml requirements.txt requirements-build.txt README.md ./
COPY agent ./agent
COPY client ./client
COPY proto ./proto
COPY manifests/hardened/seccomp.json ./seccomp.json
# Wheels with known hashes only: no dependency may run code of its own here, want the compiler, or
# differ from what was tested. `make requirements` writes both files, for amd64 and arm64.
RUN python -m venv "$VENV" \
 && "$VENV/bin/pip" install --quiet --only-binary :all: --require-hashes \
      --requirement requirements-build.txt --requirement requirements.txt
RUN "$VENV/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
RUN "$VENV/bin/pip" install --quiet --no-deps --no-index dist/*.whl \
 && "$VENV/bin/pip" check
# The hardened variant gives it to the node.
RUN install -D -m 0644 seccomp.json "$VENV/share/netutil/seccomp.json"
# Shells complete by `netutil completion`, not by a command of the library's; of pyroute2 the agent
# uses the decoder of netlink, none of its commands. Of kubernetes it uses no asyncio: that part has
# 68 MB and is alone in needing aiohttp, which is thus not there to be attacked or updated.
RUN "$VENV/bin/pip" uninstall --quiet --yes aiohappyeyeballs aiohttp aiohttp-retry aiosignal attrs \
    frozenlist multidict propcache yarl \
 && rm -rf "$VENV"/lib/python3*/site-packages/kubernetes/aio
RUN "$VENV/bin/pip" uninstall --quiet --yes ast-serialize librt mypy mypy-extensions pathspec \
    types-grpcio setuptools pip \
 && rm -f "$VENV"/bin/register-python-argcomplete "$VENV"/bin/python-argcomplete-* \
    "$VENV"/bin/ss2 "$VENV"/bin/pyroute2-* "$VENV"/bin/dhcp-server-detector \
    "$VENV"/bin/wsdump "$VENV"/bin/normalizer "$VENV"/bin/idna \
 && find "$VENV" \( -name __pycache__ -o -name tests -o -name 'activate*' -o -name Activate.ps1 \) \
      -prune -exec rm -rf {} +
# A start compiles nothing then, and a container's root file system is read-only.
# The content, not the time of a file, is what a build can repeat. Without docstrings (-o 2) the
# agent takes 2 MiB less.
RUN "$VENV/bin/python" -m compileall -q -o 2 --invalidation-mode unchecked-hash "$VENV/lib"

FROM ${PYTHON_IMAGE} AS agent
LABEL org.opencontainers.image.title="netutil" \
      org.opencontainers.image.description="Gives every Kubernetes pod on a node the facts about itself" \
      org.opencontainers.image.version="0.1.0"
# Nothing in a privileged container should be able to install anything.
RUN python -m pip uninstall --quiet --yes --root-user-action=ignore setuptools wheel pip \
 && rm -rf /usr/local/lib/python3*/ensurepip \
 && python -m compileall -q -o 2 --invalidation-mode unchecked-hash /usr/local/lib/python3*
COPY --from=build /opt/netutil /opt/netutil
ENV PATH=/opt/netutil/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONOPTIMIZE=2 \
    PYTHONUNBUFFERED=1
# Root: the agent reads other users' processes, takes on a caller's ids in one
# thread, and owns /run/netutil. `netutil` in the same image runs as anybody.
USER 0:0
# For engines that look at it; Kubernetes does not, and has its own probes.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["netutil-agent", "--check"]
ENTRYPOINT ["netutil-agent"]
