"""One PostgreSQL with two streaming replicas, and pgweir in front of it, in a temporary folder; all ended together."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SUPERUSER, PASSWORD = "postgres", "postgres"
# Roles that log in; suites that try the ways of doing so bring roles for each.
USERS = {SUPERUSER: PASSWORD, "app": "app", "pass_user": "password", "md5_user": "password", "scram_user": "password"}
HBA = """\
host all md5_user 127.0.0.1/32 md5
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@dataclasses.dataclass
class Target:
    """Where a suite connects to."""

    name: str
    port: int
    database: str
    host: str = "127.0.0.1"
    user: str = SUPERUSER
    password: str = PASSWORD

    def url(self, scheme="postgres", more=""):
        return f"{scheme}://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}{more}"

    def environment(self):
        """As libpq and those that follow it read it."""
        return {
            "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password,
            "PGDATABASE": self.database, "PGSSLMODE": "disable",
        }  # fmt: skip


class Servers:
    """The primary, its replicas, and as many proxies as are asked for."""

    def __init__(self, pgweir):
        self.pgweir = pgweir

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgweir-compat-")))
            self.folder.chmod(0o755)
            self.running = stack.enter_context(contextlib.ExitStack())
            self.bring_up()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def cluster(self, shards, replicas, rows):
        ready, folder = self.folder / "ready.json", self.folder / "cluster"
        command = [self.pgweir, "dev", "--dir", folder, "--ready-file", ready, "--port", "0"]
        command += ["--shards", str(shards), "--replicas", str(replicas), "--rows", str(rows)]
        process = start(command, self.folder / "dev.log")
        self.running.callback(stop, process)
        wait_until(ready.exists, process, 120, self.folder / "dev.log")
        self.ready = json.loads(ready.read_text())
        self.servers = self.ready["servers"]
        self.primaries = [server["port"] for server in self.servers if server["role"] == "primary"]
        self.primary = self.primaries[0]
        self.control = json.loads((folder / "cluster.json").read_text())["superuser_password"]
        return folder

    def bring_up(self):
        folder = self.cluster(shards=1, replicas=2, rows=1)
        secret = self.control
        data = folder / "servers/shard0"
        for member in ("primary", "replica1", "replica2"):
            (data / member / "pg_hba.conf").write_text(HBA)
        roles = "".join(
            f"create role {name} login password '{password}';\n"
            for name, password in USERS.items()
            if name not in ("postgres", "app", "md5_user")
        )
        roles += "alter role app password 'app' superuser;\n"
        roles += "set password_encryption = md5; create role md5_user login password 'password';\n"
        self.psql("postgres", roles + "select pg_reload_conf()", password=secret)
        for server in self.servers:
            self.psql("postgres", "select pg_reload_conf()", password=secret, port=server["port"])

    def direct(self, database):
        return Target("direct", self.primary, database)

    @contextlib.contextmanager
    def through(self, database):
        with self.proxy() as port:
            yield Target("through", port, database)

    def psql(self, database, sql, password=None, port=None):
        # A text of several statements by standard input: each is a transaction of its own.
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port or self.primary)]
        environment = os.environ | {"PGPASSWORD": password or self.control, "PGUSER": SUPERUSER}
        done = subprocess.run(
            [*command, "-d", database], input=sql, env=environment, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"psql: {done.stderr}\n{sql}")
        return done.stdout.strip()

    def fresh(self, databases, sql):
        """Databases as new as can be, on all servers."""
        for database in databases:
            if database == "postgres":
                self.clear(database)
            else:
                self.psql("postgres", f"drop database if exists {database} with (force);\ncreate database {database}")
        for database, text in sql.items():
            self.psql(database, text)
        self.caught_up()

    def clear(self, database):
        """What one leaves in the database that everybody connects to first."""
        schemas = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema')"
        for schema in self.psql(database, schemas).splitlines():
            self.psql(database, f'drop schema "{schema}" cascade')
        self.psql(database, "create schema public; grant all on schema public to public")

    def caught_up(self):
        position = self.psql("postgres", "select pg_switch_wal(); select pg_current_wal_lsn()").splitlines()[-1]
        for server in self.servers:
            if server["role"] == "replica":
                replayed, port = f"select pg_last_wal_replay_lsn() >= '{position}'", server["port"]
                wait(lambda: self.psql("postgres", replayed, port=port) == "t", "a replica does not catch up")

    @contextlib.contextmanager
    def proxy(self):
        """pgweir in transaction mode, all at its defaults, reads on the replicas, whatever databases and roles there are."""
        text = ['[general]\nhost = "127.0.0.1"\nport = 0\nadmin_users = ["postgres"]\n']
        text.append(f'[control]\nuser = "{SUPERUSER}"\npassword = "{self.control}"\n')
        for server in self.servers:
            text.append(
                f'[[databases]]\nname = "*"\nrole = "{server["role"]}"\nhost = "127.0.0.1"\nport = {server["port"]}\n'
            )
        for name, password in USERS.items():
            trust = 'auth = "trust"\n' if name == SUPERUSER else ""
            text.append(f'[[users]]\nname = "{name}"\npassword = "{password}"\n{trust}')
        text.append('[[users]]\nname = "*"\nauth = "query"\n')
        file = self.folder / "pgweir.toml"
        file.write_text("".join(text))
        log = self.folder / "pgweir.log"
        log.write_text("")
        process = start([self.pgweir, "serve", "--config", file], log)
        try:
            wait_until(lambda: "listens on" in log.read_text(), process, 30, log)
            line = next(line for line in log.read_text().splitlines() if "listens on" in line)
            yield int(line.rsplit(":", 1)[1])
        finally:
            stop(process)


class ShardedServers(Servers):
    """Two shards with a replica each, with the shop's tables, and one database beside them that holds all rows."""

    def bring_up(self):
        self.cluster(shards=2, replicas=1, rows=SHARDED_ROWS)

    def direct(self, _database):
        return Target("direct", self.primary, "whole", user=self.ready["user"], password=self.ready["password"])

    @contextlib.contextmanager
    def through(self, _database):
        user, password = self.ready["user"], self.ready["password"]
        yield Target("through", self.ready["port"], self.ready["database"], user=user, password=password)

    def fresh(self, _databases, _sql):
        self.psql("postgres", "drop database if exists whole with (force);\ncreate database whole owner app")
        migrations = sorted((ROOT / "migrations/shop").glob("*.sql"))
        self.psql("whole", "set role app;\n" + "\n".join(migration.read_text() for migration in migrations))
        for primary in self.primaries:
            self.psql("shop", "truncate users, products, categories cascade", port=primary)
        self.caught_up()

    def caught_up(self):
        """Each replica with the primary of its own shard."""
        for primary, replica in zip(self.servers[::2], self.servers[1::2]):
            position = self.psql("postgres", "select pg_switch_wal(); select pg_current_wal_lsn()", port=primary["port"])
            replayed = f"select pg_last_wal_replay_lsn() >= '{position.splitlines()[-1]}'"
            wait(lambda: self.psql("postgres", replayed, port=replica["port"]) == "t", "a replica does not catch up")


# The first shard has the users below the half of it, the second all others.
SHARDED_ROWS = 200


def wait(condition, complaint, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(complaint)
        time.sleep(0.02)


def start(command, log):
    with log.open("a") as file:
        # Ends with this process, however that ends.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    watcher = ["sh", "-c", 'cat >/dev/null; kill -TERM "$0"', str(process.pid)]
    process.watcher = subprocess.Popen(watcher, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Before its end of input, which would have it send a signal to a process id that is free again.
    process.watcher.kill()
    process.watcher.wait()


def wait_until(condition, process, seconds, log):
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args[0]} does not serve:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
