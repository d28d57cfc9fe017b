# One image for every service of docker-compose.yml, with PyTorch for the CPU. For NVIDIA GPUs build it
# with a CUDA version that the driver knows:
#
#   docker build --build-arg TORCH=cu128 --tag tuner-cuda .
FROM python:3.12-slim
ARG TORCH=cpu

# The trainer runs as nobody in particular; only its volume is writable.
RUN useradd --create-home --uid 10001 tuner \
    && mkdir -p /var/lib/tuner /work && chown tuner /var/lib/tuner /work

WORKDIR /src
# PyTorch first, in a layer of its own: it is large and changes rarely. Of one version pip takes the
# build with a local label, such as +cpu: for the CPU, one without gigabytes of CUDA's libraries.
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch torchvision \
    --extra-index-url https://download.pytorch.org/whl/${TORCH}
COPY pyproject.toml README.md LICENSE ./
COPY tuner tuner
COPY objectives objectives
COPY studies studies
RUN pip install --no-cache-dir -c constraints.txt .

USER tuner
WORKDIR /work
ENV PYTHONUNBUFFERED=1
VOLUME /var/lib/tuner
CMD ["tuner", "--help"]
