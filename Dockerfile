# docker build -t gemproxy .
# docker run --rm -p 127.0.0.1:3000:3000 -p 127.0.0.1:3002:3002 gemproxy --demo
#
# Without Node and the CLI: docker build --target slim -t gemproxy:slim .
#
# The base images are pinned, each for all platforms; CONTRIBUTING.md says how they are renewed.

FROM docker.io/library/node:24-slim@sha256:0e0ff40c39bc087845bfb27465a0df4ea419520094bc35842ff83dd8cbe6f9b6 AS node

# The Gemini CLI, at the version that package-lock.json pins, without its documentation and the
# browser that it can drive. It is JavaScript alone, the same for every platform.
FROM --platform=$BUILDPLATFORM docker.io/library/node:24-slim@sha256:0e0ff40c39bc087845bfb27465a0df4ea419520094bc35842ff83dd8cbe6f9b6 AS cli
WORKDIR /opt/gemini-cli
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
    && rm -r node_modules/@google/gemini-cli/bundle/bundled \
        node_modules/@google/gemini-cli/bundle/docs \
        node_modules/@google/gemini-cli/bundle/examples

FROM docker.io/library/python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS base

# gemproxy and what it needs, at the versions that requirements.txt pins, in a virtual environment
# without what only builds or tests it.
FROM base AS python
ENV PIP_PYTHON=/opt/gemproxy/bin/python
WORKDIR /src
COPY requirements.txt ./
RUN python -m venv --without-pip /opt/gemproxy \
    && pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY gemproxy gemproxy
COPY twisted twisted
# Twisted writes down which plugins there are; the user below may not.
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && pip check \
    && pip uninstall --yes setuptools \
    && find /opt/gemproxy -type d \( -name test -o -name tests \) -prune -exec rm -r {} + \
    && /opt/gemproxy/bin/twistd --help > /dev/null

FROM base AS slim
# Any user may keep the journal in the volume, which is seen by that user alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir / --shell /usr/sbin/nologin gemproxy \
    && install --directory --mode=1777 /data
COPY --from=python /opt/gemproxy /opt/gemproxy
# pip of the base image installs for gemproxy. Docker kills ten seconds after it has asked.
ENV PATH=/opt/gemproxy/bin:$PATH \
    PIP_PYTHON=/opt/gemproxy/bin/python \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    GEMINI_ENGINE=direct \
    LOG_DIR=/data/logs \
    DATA_DIR=/data \
    DRAIN=6
ARG SOURCE= REVISION= VERSION=
LABEL org.opencontainers.image.title=gemproxy \
    org.opencontainers.image.description="One OpenAI-compatible address for Gemini and every other model" \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.source=$SOURCE \
    org.opencontainers.image.revision=$REVISION \
    org.opencontainers.image.version=$VERSION
USER 10001
WORKDIR /
VOLUME /data
EXPOSE 3000 3002
# The process is the init below, or one that was put in front of it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["gemproxy", "health", "--process", "1"]
# A clean end is one by the signal that asked for it, which counts as success here.
ENTRYPOINT ["tini", "-s", "-e", "143", "-e", "130", "--", "twistd", "-n", "--pidfile=", "gemproxy"]

FROM slim
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=cli /opt/gemini-cli /opt/gemini-cli
ENV GEMINI_ENGINE=cli \
    GEMINI_CLI=/opt/gemini-cli/node_modules/.bin/gemini
