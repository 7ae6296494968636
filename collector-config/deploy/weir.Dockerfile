# What drains spools where the services' own images are not at hand: the DaemonSet's `drain`.
FROM python:3.13-slim
RUN pip install --no-cache-dir otelweir && useradd --uid 10001 --no-create-home weir
USER 10001:10001
CMD ["weir", "spool", "drain", "--follow", "/var/spool/weir"]
