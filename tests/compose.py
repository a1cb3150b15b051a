#!/usr/bin/env python3
"""The cluster of docker-compose.yml, from nothing to nothing: started, asked, hurt, healed, removed.

Needs docker, compose (1.29 or 2) and psql. Ports are the engine's choice, names this run's own. Expected values are
asked of the servers themselves, past the proxy. Ends with 0 only if all was as it should be.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = f"pgweir-test-{os.getpid()}"
OVERRIDES = {"COMPOSE_PROJECT_NAME": PROJECT, "PGWEIR_PORT": "0", "PGWEIR_HTTP_PORT": "0", "APP_PASSWORD": "of this test"}
ENVIRONMENT = os.environ | OVERRIDES | {"PGPASSWORD": OVERRIDES["APP_PASSWORD"]}
REPLICA = "shard0-replica1"
SHARDS = ["shard0-primary", "shard1-primary"]
REPLICAS = [f"shard{shard}-replica{number}" for shard in (0, 1) for number in (1, 2)]


def main():
    signal.signal(signal.SIGTERM, lambda *_: exit("ended from outside"))
    with cluster() as proxy:
        reads_are_those_of_the_servers(proxy)
        a_write_reaches_its_shard(proxy)
        a_write_over_both_shards_is_decided_once(proxy)
        a_replica_that_waits_lags(proxy)
        a_killed_replica_is_seen_and_comes_back(proxy)
    nothing_is_left()
    print("compose: all as it should be")


def reads_are_those_of_the_servers(proxy):
    point = "SELECT handle, email FROM users WHERE id = 4711"
    equal(proxy.sql(point), direct("shard0-primary", point), "a point read")
    grouped = "SELECT country, count(*) FROM users GROUP BY country ORDER BY country"
    counts = {}
    for row in (row for shard in SHARDS for row in direct(shard, grouped).splitlines()):
        country, count = row.split("|")
        counts[country] = counts.get(country, 0) + int(count)
    expected = "\n".join(f"{country}|{count}" for country, count in sorted(counts.items()))
    equal(proxy.sql(grouped), expected, "a read over both shards, with its groups merged")
    equal(sum(counts.values()), 20_000, "all users are there")


def a_write_reaches_its_shard(proxy):
    equal(proxy.sql("UPDATE users SET full_name = 'Compose' WHERE id = 15000"), "UPDATE 1", "a write")
    read = "SELECT full_name FROM users WHERE id = 15000"
    equal([direct(shard, read) for shard in SHARDS], ["", "Compose"], "it is on its shard alone")


def a_write_over_both_shards_is_decided_once(proxy):
    decisions = "SELECT count(*) FROM pgweir.decisions WHERE outcome = 'committed'"
    before = int(direct("shard0-primary", decisions))
    equal(proxy.sql("UPDATE products SET price = 17.25 WHERE id = 7"), "UPDATE 1", "a write of a reference table")
    equal(proxy.sql("UPDATE users SET verified = true"), "UPDATE 20000", "a write of all users")
    written = "SELECT (SELECT price FROM products WHERE id = 7), count(*) FROM users WHERE verified"
    equal([direct(shard, written) for shard in SHARDS], ["17.25|10000"] * 2, "they are on both")
    after = int(direct("shard0-primary", decisions))
    check(after == before + 2, "home has a record of each decision")
    prepared = [direct(shard, "SELECT count(*) FROM pg_prepared_xacts") for shard in SHARDS]
    equal(prepared, ["0", "0"], "nothing is left prepared")


def a_replica_that_waits_lags(proxy):
    """Replay is paused: the lag grows, and goes when it goes on."""
    equal(proxy.states(), {name: "up" for name in REPLICAS}, "SHOW LAG names all replicas, up")
    direct(REPLICA, "SELECT pg_wal_replay_pause()")
    equal(proxy.sql("UPDATE users SET full_name = 'Late' WHERE id = 1"), "UPDATE 1", "a write that the replica lacks")
    eventually(lambda: proxy.lag(REPLICA) > (0.5, 0), 10, "SHOW LAG shows seconds and bytes")
    direct(REPLICA, "SELECT pg_wal_replay_resume()")
    eventually(lambda: proxy.lag(REPLICA) == (0, 0), 10, "and none once replay goes on")


def a_killed_replica_is_seen_and_comes_back(proxy):
    killer = kill(REPLICA)
    seen = moments(30, {
        "SHOW LAG": lambda: proxy.states().get(REPLICA) == "down",
        "/metrics": lambda: re.search(rf'^pgweir_server_up{{.*"{REPLICA}:5432".*}} 0$', proxy.http("/metrics"), re.M),
    })  # fmt: skip
    killed = float(killer.communicate()[0])
    equal(proxy.sql("UPDATE users SET full_name = 'Meanwhile' WHERE id = 1"), "UPDATE 1", "writes go on")
    equal(proxy.sql("SELECT full_name FROM users WHERE id = 1"), "Meanwhile", "reads go on")
    eventually(lambda: proxy.states().get(REPLICA) == "up", 60, "SHOW LAG says up again, by itself")
    check(inspect(REPLICA)["RestartCount"] >= 1, "the engine started the container again")
    for where, moment in seen.items():
        check(0 < moment - killed < 2, f"the loss was in {where} within 2 s ({moment - killed:.2f} s)")
    caught_up = lambda: direct(REPLICA, "SELECT full_name FROM users WHERE id = 1") == "Meanwhile"
    eventually(caught_up, 30, "the replica has what was written without it")


def nothing_is_left():
    mine = ["--filter", f"label=com.docker.compose.project={PROJECT}", "--quiet"]
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        equal(run(["docker", *kind, *mine]), "", f"docker {' '.join(kind)} shows nothing of it")


@contextlib.contextmanager
def cluster():
    try:
        run([*COMPOSE, "up", "--build", "--detach"], show=True)
        eventually(lambda: inspect("pgweir")["State"].get("Health", {}).get("Status") == "healthy", 120, "the proxy serves")
        yield Proxy(published(6432), published(9090))
    except BaseException:
        run([*COMPOSE, "logs", "--tail", "20"], show=True, check=False)
        raise
    finally:
        run([*COMPOSE, "down", "--volumes", "--remove-orphans"], show=True, check=False)


class Proxy:
    """pgweir as it is seen from outside the containers."""

    def __init__(self, sql, http):
        self.sql_port, self.http_port = sql, http

    def sql(self, text, database="shop"):
        where = ["-h", "127.0.0.1", "-p", self.sql_port, "-U", "app", database]
        return run(["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, *where])

    def states(self):
        return {replica: state for replica, state, *_ in self.replicas()}

    def lag(self, name):
        """Seconds and bytes."""
        [behind] = [figures for replica, _, *figures in self.replicas() if replica == name]
        return tuple(float(figure or 0) for figure in behind)

    def replicas(self):
        rows = [row.split("|") for row in self.sql("SHOW LAG", "pgweir").splitlines()]
        return [(replica.split(":")[0], state, *behind[:2]) for _, _, replica, state, *behind in rows]

    def http(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return answer.read().decode()


def direct(service, sql):
    """Past the proxy: asked inside the server's own container."""
    return run(["docker", "exec", container(service), "psql", "-X", "-A", "-t", "-c", sql, "shop"])


def kill(service):
    """SIGKILL out of the blue, to the container's first process; says when. After `docker kill` it would stay away."""
    process = inspect(service)["State"]["Pid"]
    helper = ["docker", "run", "--rm", "--pid", "host", "--user", "0", "--entrypoint", "bash", "pgweir-postgresql"]
    blow = [*helper, "-c", f"date +%s.%N; kill -KILL {process}"]
    return subprocess.Popen(blow, stdout=subprocess.PIPE, text=True)


def inspect(service):
    return json.loads(run(["docker", "inspect", container(service)]))[0]


def container(service):
    return run([*COMPOSE, "ps", "--quiet", service])


def published(port):
    return run([*COMPOSE, "port", "pgweir", str(port)]).rpartition(":")[2]


def compose():
    for command in (["docker", "compose"], ["docker-compose"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "version"], capture_output=True).returncode == 0:
                return command
    exit("neither `docker compose` nor `docker-compose` works here")


def run(command, show=False, check=True):
    """What the command said; with `show` it says it to the terminal instead."""
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=None if show else subprocess.PIPE)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    return (done.stdout or "").strip()


def eventually(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            print(f"ok: {what}", flush=True)
            return found
        time.sleep(0.02)
    raise SystemExit(f"not within {seconds} s: {what}")


def moments(seconds, conditions):
    """When each came to be true, looked at in turns."""
    seen = {}
    deadline = time.monotonic() + seconds
    while len(seen) < len(conditions):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {', '.join(conditions.keys() - seen.keys())}")
        seen |= {what: time.time() for what in conditions.keys() - seen.keys() if conditions[what]()}
    return seen


def equal(found, expected, what):
    check(found == expected, what, f": {found!r} instead of {expected!r}")


def check(true, what, why=""):
    if not true:
        raise SystemExit(f"wrong: {what}{why}")
    print(f"ok: {what}", flush=True)


COMPOSE = compose()

if __name__ == "__main__":
    main()
