# PostgreSQL with pg_clockwork: preloaded, created in the database postgres, ready for cron.schedule().
#
#   docker build -t clockwork .                                    PostgreSQL 18
#   docker build -t clockwork --build-arg PG_MAJOR=16 .            another major
#   docker build -t clockwork-files --target extension .           only the files, for a Kubernetes image volume
#
# BASE may be any image with PostgreSQL in Debian's places and the official image's entry point.

ARG PG_MAJOR=18
ARG BASE=postgres:${PG_MAJOR}-trixie

FROM ${BASE} AS build
ARG PG_MAJOR
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev make "postgresql-server-dev-${PG_MAJOR}"
COPY . /src
RUN make -C /src PG_CONFIG="/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config" DESTDIR=/out install \
    && rm -rf "/out/usr/lib/postgresql/${PG_MAJOR}/lib/bitcode" \
    && install -D -m 644 /src/LICENSE /out/usr/share/doc/pg_clockwork/LICENSE

# For Kubernetes: what extension_control_path and dynamic_library_path of PostgreSQL 18 and later want.
FROM scratch AS extension
ARG PG_MAJOR
COPY --from=build /out/usr/lib/postgresql/${PG_MAJOR}/lib/ /lib/
COPY --from=build /out/usr/share/postgresql/${PG_MAJOR}/extension/ /share/extension/
COPY --from=build /out/usr/share/doc/pg_clockwork/LICENSE /licenses/pg_clockwork/

FROM ${BASE} AS server
COPY --from=build /out/ /
# Run once, on an empty data directory: the home database of jobs is cron.database_name, postgres by default.
RUN printf '%s\n' '\connect postgres' 'CREATE EXTENSION IF NOT EXISTS pg_clockwork;' \
    > /docker-entrypoint-initdb.d/10-pg_clockwork.sql
# A query over TCP: the server of the first initialisation answers pg_isready, but it does not listen there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD PGPASSWORD="$POSTGRES_PASSWORD" psql -X -q -h 127.0.0.1 -U "${POSTGRES_USER:-postgres}" -d postgres \
        -c 'SELECT FROM cron.job LIMIT 1' > /dev/null || exit 1
CMD ["postgres", "-c", "shared_preload_libraries=pg_clockwork"]
