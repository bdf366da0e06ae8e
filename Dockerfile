# docker build -t saddlepoint . && docker run --rm -v $PWD/outputs:/saddlepoint/outputs saddlepoint make reproduce
# With a GPU: docker run --gpus all ...; with MNIST or CIFAR10 at hand: -v $PWD/data:/saddlepoint/data
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends make gcc libc6-dev git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /saddlepoint
COPY requirements.txt pyproject.toml Makefile README.md ./
COPY scripts/dev/set_up.sh scripts/dev/set_up.sh
COPY src src
RUN make .venv/ready
COPY . .
ENV PATH=/saddlepoint/.venv/bin:$PATH
CMD ["make", "reproduce"]
