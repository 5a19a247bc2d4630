# BackupBot in a container. Two images from one binary:
#
#   docker build -t backupbot .                        Debian slim: a shell, and programs for `*_command` credentials can be added
#   docker build -t backupbot --target static .        nothing but the program: no shell, no libraries, no package manager
#
# The binary is linked statically, so any other base does as well: --build-arg RUNTIME_IMAGE=alpine:3.22. Nothing is run in the
# images, so nothing of a base is needed. The program speaks Git, SSH, TLS and LFS itself: there is no git in them.
#
#   docker run -d --name backupbot --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 60 \
#     -e BACKUPBOT_INSTANCE=nas -v backupbot-state:/var/lib/backupbot \
#     -v /etc/backupbot:/etc/backupbot:ro -v /srv/documents:/data/documents:ro backupbot
#
# It runs as any user: --user 1000:1000. That one must be able to read what is watched and to write /var/lib/backupbot.

ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# ---- the program

FROM ${BUILD_IMAGE} AS build
WORKDIR /source

# Dependencies first, against crates that are empty: this layer lasts until Cargo.lock or a manifest changes. The target is
# named so that build scripts and macros, which are loaded as libraries, are not linked statically.
COPY Cargo.toml Cargo.lock ./
COPY core/Cargo.toml core/
COPY actors/Cargo.toml actors/
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_INCREMENTAL=0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN mkdir -p src core/src actors/src tests; \
    touch core/src/lib.rs actors/src/lib.rs tests/main.rs; \
    echo 'fn main() {}' > src/main.rs; \
    cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')"

COPY core/src core/src
COPY actors/src actors/src
COPY src src
# The commit, for `--version` and the metric build_info: REVISION=$(git rev-parse --short=12 HEAD). No time of the build: the
# same commit gives the same program.
ARG REVISION=
RUN target="$(rustc -vV | sed -n 's/^host: //p')"; \
    find src core/src actors/src -name '*.rs' -exec touch {} +; \
    BACKUPBOT_BUILD_REVISION="$REVISION" cargo build --release --locked --target "$target" --bin backupbot; \
    install -D -m 755 "target/$target/release/backupbot" /image/usr/local/bin/backupbot; \
    strip /image/usr/local/bin/backupbot; \
    /image/usr/local/bin/backupbot --version

# What both images hold beside their base. The state directory is for this user and for group 0, as which platforms that
# choose a user by themselves run it.
ARG UID=65532
ARG GID=65532
COPY LICENSE-APACHE LICENSE-MIT /image/usr/share/doc/backupbot/
RUN install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    install -d -m 755 /image/etc/backupbot; \
    install -d -m 1777 /image/tmp; \
    install -d -m 770 -o "$UID" -g 0 /image/var/lib/backupbot

# ---- nothing but the program

FROM scratch AS static
ARG UID=65532
ARG GID=65532
ARG REVISION=
LABEL org.opencontainers.image.title="backupbot" \
      org.opencontainers.image.description="Watches directories and keeps every version of every file in Git, on remotes you own" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
ENV PATH=/usr/local/bin \
    BACKUPBOT_STATE_DIR=/var/lib/backupbot
USER ${UID}:${GID}
VOLUME ["/var/lib/backupbot"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m CMD ["/usr/local/bin/backupbot", "health"]
ENTRYPOINT ["/usr/local/bin/backupbot"]
CMD ["run"]

# ---- the same on a base that has a shell

FROM ${RUNTIME_IMAGE}
ARG UID=65532
ARG GID=65532
ARG REVISION=
LABEL org.opencontainers.image.title="backupbot" \
      org.opencontainers.image.description="Watches directories and keeps every version of every file in Git, on remotes you own" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
ENV BACKUPBOT_STATE_DIR=/var/lib/backupbot
USER ${UID}:${GID}
VOLUME ["/var/lib/backupbot"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m CMD ["/usr/local/bin/backupbot", "health"]
ENTRYPOINT ["/usr/local/bin/backupbot"]
CMD ["run"]
