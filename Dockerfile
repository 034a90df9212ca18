# The image of Paifang: one program, the system's CA certificates, no shell, no root. Controller, gateways and the tool are the same program.
#
#   docker build --tag registry.example.com/paifang:0.0.0 .          compiles it, too
#   e2e/image.sh target/debug/paifang paifang.test/paifang:1         from a program that is there, with buildah and without a registry
#
# Both lay out the root folder with e2e/rootfs.sh. The stage `prebuilt` comes first, so that nothing is pulled for it.

FROM scratch AS prebuilt
COPY rootfs/ /
USER 65532:65532
ENTRYPOINT ["/paifang"]

FROM rust:1.95.0-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Static, so that the image needs nothing else. With a named target the flag is not for build scripts and procedural macros, which cannot be static.
# Names still resolve: this C library reads /etc/hosts and asks DNS without loading anything.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package paifang --target "$target" && \
    e2e/rootfs.sh "target/$target/release/paifang" /rootfs

FROM scratch
COPY --from=build /rootfs/ /
USER 65532:65532
ENTRYPOINT ["/paifang"]
