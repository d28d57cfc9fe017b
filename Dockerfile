# One image for every service of docker-compose.yml.
FROM python:3.12-slim

# The trainer runs as nobody in particular; only its volume is writable.
RUN useradd --create-home --uid 10001 tuner \
    && mkdir -p /var/lib/tuner /work && chown tuner /var/lib/tuner /work

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tuner tuner
COPY objectives objectives
COPY studies studies
RUN pip install --no-cache-dir -c constraints.txt .

USER tuner
WORKDIR /work
ENV PYTHONUNBUFFERED=1
VOLUME /var/lib/tuner
CMD ["tuner", "--help"]
