# syntax=docker/dockerfile:1
# The image holds one static binary and nothing else: no shell, no package manager, no
# certificates but those that are mounted. docs/deploy.md has how to run it.

FROM rust:1.88.0-slim-bookworm AS build
# musl-gcc, for the C of aws-lc and mimalloc.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The commit that this is built from, for `galaxy-push --version` and the metrics.
ARG GALAXY_PUSH_REVISION=""
ENV GALAXY_PUSH_REVISION=${GALAXY_PUSH_REVISION}
RUN scripts/build-static --release --output /out/galaxy-push

FROM scratch
LABEL org.opencontainers.image.title="galaxy-push" \
      org.opencontainers.image.description="A push channel from a backend to its gateways" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.documentation="docs/deploy.md"
COPY --from=build /out/galaxy-push /galaxy-push
# Nobody of the host's: a number, so that `runAsNonRoot` can be checked without a passwd file.
USER 65532:65532
# Inside a container loopback is nobody's: whoever runs it says where it listens, and with
# which protection (--tls-cert, --access). Health checks ask the admin listener on loopback.
EXPOSE 50051 50052 50053
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s --retries=3 \
    CMD ["/galaxy-push", "health"]
ENTRYPOINT ["/galaxy-push"]
CMD ["serve"]
