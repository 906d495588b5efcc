# The service, with the model that is in the package: no network is asked when it runs.
#
#   docker build -t emotion2vec .
#   docker run --rm -p 8000:8000 -e EMOTION2VEC_TOKEN=secret emotion2vec
#
# Where torch comes in several builds, --build-arg PIP_EXTRA_INDEX_URL says which.
FROM python:3.11-slim-bookworm AS build

ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt && pip install -r torch.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
# hadolint ignore=DL3013
RUN pip install -c constraints.txt '.[serve,vad,media]'

FROM python:3.11-slim-bookworm

# Nothing of the system is needed: soundfile and PyAV bring their libraries.
RUN useradd --create-home --uid 10001 emotion2vec \
    && install -d -o emotion2vec /home/emotion2vec/models
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/home/emotion2vec/models
USER 10001
WORKDIR /home/emotion2vec
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD \
  ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# As it is, not in a shell: SIGTERM is to reach it.
ENTRYPOINT ["emotion2vec", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--max-requests", "64"]
