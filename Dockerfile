# Two images: the proxy, and with `--target postgresql` a PostgreSQL server of the cluster in docker-compose.yml.
# Builders without BuildKit make every stage that stands before their target: the dear ones come last.

FROM debian:bookworm-slim AS postgresql
# The package would make a server of its own at once.
RUN mkdir -p /etc/postgresql-common \
 && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold postgresql \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
COPY config/compose/postgresql.sh config/compose/postgresql.conf config/compose/load.sh config/compose/shop.sql /etc/pgweir/
USER postgres
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# "Fast": open transactions are rolled back, the log is complete.
STOPSIGNAL SIGINT
ENTRYPOINT ["bash", "/etc/pgweir/postgresql.sh"]


FROM rust:1-bookworm AS build
WORKDIR /build
# Left unset, Cargo.toml decides. For a quick trial: LTO=off and CODEGEN_UNITS=16.
ARG CARGO_PROFILE_RELEASE_LTO
ARG CARGO_PROFILE_RELEASE_CODEGEN_UNITS
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL
# All dependencies, in a layer that stays while only the sources change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
 && echo 'fn main() {}' | tee src/main.rs > benches/yardstick.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin pgweir
COPY migrations migrations
COPY src src
# Cargo goes by the time of a change, and these files are older than what stood in for them.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin pgweir


FROM debian:bookworm-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin pgweir
COPY --from=build /build/target/release/pgweir /usr/local/bin/pgweir
COPY migrations /usr/share/pgweir/migrations
USER pgweir
EXPOSE 6432 9090
ENTRYPOINT ["pgweir"]
CMD ["serve", "--config", "/etc/pgweir/pgweir.toml"]
