# docker build -t gemproxy .
# docker run -p 3000:3000 -p 3002:3002 -e GEMINI_API_KEY=... gemproxy
# docker run -p 3000:3000 -p 3002:3002 gemproxy --demo

# The Gemini CLI, at the version that package-lock.json pins.
FROM node:24-slim AS cli
WORKDIR /opt/gemini-cli
COPY package.json package-lock.json ./
RUN npm ci --omit=optional --ignore-scripts --no-audit --no-fund

# gemproxy and what it needs, at the versions that requirements.lock pins, in a virtual environment.
FROM python:3.12-slim AS python
WORKDIR /src
RUN python -m venv /opt/gemproxy
COPY requirements.lock ./
RUN /opt/gemproxy/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY gemproxy gemproxy
COPY twisted twisted
RUN /opt/gemproxy/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/gemproxy/bin/pip check

FROM python:3.12-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 gemproxy \
    && install --directory --owner=gemproxy --group=gemproxy --mode=0700 /data
COPY --from=cli /usr/local/bin/node /usr/local/bin/node
COPY --from=cli /opt/gemini-cli /opt/gemini-cli
COPY --from=python /opt/gemproxy /opt/gemproxy
COPY docker/healthcheck.py /opt/gemproxy/healthcheck.py
ENV PATH=/opt/gemproxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    GEMINI_CLI=/opt/gemini-cli/node_modules/.bin/gemini \
    LOG_DIR=/data/logs
# Twisted writes down which plugins there are; the user below may not.
RUN twistd --help > /dev/null
USER 10001
WORKDIR /home/gemproxy
VOLUME /data
EXPOSE 3000 3002
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/gemproxy/healthcheck.py"]
ENTRYPOINT ["tini", "--", "twistd", "-n", "--pidfile=", "gemproxy"]
