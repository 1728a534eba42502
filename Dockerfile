# syntax=docker/dockerfile:1

# The dependencies are a layer of their own: a change of imks alone rebuilds imks alone.
FROM rust:1.95-bookworm AS chef
RUN cargo install --locked cargo-chef@0.1.78
WORKDIR /imks

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /imks/recipe.json recipe.json
RUN cargo chef cook --release --locked --bin imks --recipe-path recipe.json
COPY . .
ARG BUILD
RUN IMKS_BUILD="${BUILD:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)}" cargo build --release --locked --bin imks \
 && strip target/release/imks \
 && mkdir /data

# No shell, no package manager, no root: uid 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="imks" \
      org.opencontainers.image.description="Real-time messaging server, Socket.IO compatible, in one binary" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=builder /imks/target/release/imks /imks
COPY --from=builder --chown=nonroot:nonroot /data /data
# Temporary files of SQLite go to the volume too: nothing else may be writable. The internal listener keeps metrics and
# the API of back ends from the port of clients.
ENV IMKS_LISTEN=0.0.0.0:3000 \
    IMKS_INTERNAL_LISTEN=0.0.0.0:9090 \
    IMKS_DATA_DIR=/data \
    SQLITE_TMPDIR=/data \
    IMKS_LOG_FORMAT=json
# SQLite and the keys of a standalone server; with PostgreSQL and an external core it stays empty.
VOLUME /data
# Clients over TCP, over UDP (WebTransport, with a certificate), and the internal listener.
EXPOSE 3000/tcp 3000/udp 9090/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/imks", "healthcheck"]
ENTRYPOINT ["/imks"]
CMD ["serve"]
