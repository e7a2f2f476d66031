# The static binary that `make build` makes, and nothing else.
FROM scratch
LABEL org.opencontainers.image.title="operator_store_exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY operator_store_exporter /bin/operator_store_exporter
USER 65534:65534
EXPOSE 9820
ENTRYPOINT ["/bin/operator_store_exporter"]
