# Generalist on CPU: `docker build -t generalist .`, then `docker run --rm -v generalist:/work generalist`.
FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="Generalist" \
      org.opencontainers.image.description="Image classifiers that are both accurate and adversarially robust" \
      org.opencontainers.image.licenses="MIT"

# CPU builds of torch: PyPI's bring several gigabytes of CUDA. pip reads this variable while the image is built.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

COPY . /opt/generalist
WORKDIR /opt/generalist
RUN pip install --no-cache-dir --constraint constraints.txt ".[pipelines]"

# Results go to /work, a volume of the user that runs the flow.
RUN useradd --create-home --uid 1000 generalist \
    && install --directory --owner=generalist /work
USER 1000
WORKDIR /work
COPY --chown=1000 params.yaml ./

ENV PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    DVC_NO_ANALYTICS=1

VOLUME /work
ENTRYPOINT ["generalist"]
CMD ["train"]
