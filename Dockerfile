# The image contains only the static binary: the one from `make build` or, with --build-arg
# BINARIES=.build, the one from `make release` for each platform.
FROM scratch
ARG BINARIES=""
ARG TARGETOS
ARG TARGETARCH
LABEL org.opencontainers.image.title="operator_store_exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY ${BINARIES:+$BINARIES/$TARGETOS-$TARGETARCH/}operator_store_exporter /bin/operator_store_exporter
USER 65534:65534
EXPOSE 9820
ENTRYPOINT ["/bin/operator_store_exporter"]
