# The worker's image: the versions of requirements.lock, no root, nothing to write but /var/lib/himari.
FROM python:3.11-slim
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY engines engines
COPY config config
COPY streams streams
RUN pip install --no-cache-dir --no-build-isolation --no-deps . \
 && useradd --system --home-dir /var/lib/himari --create-home himari
USER himari
ENV NUMBA_CACHE_DIR=/var/lib/himari/numba HIMARI_CACHE=/var/lib/himari
VOLUME /var/lib/himari
ENTRYPOINT ["himari"]
CMD ["worker"]
