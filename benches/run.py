#!/usr/bin/env python3
"""What a proxy costs: the same work direct, through yardsticks, PgBouncer, Pgpool-II and pgweir, in turns.

Starts everything itself, on free ports, in a temporary folder. In every round of a case each target has one run, each
round begins with another target; figures are medians over the rounds. Nothing is judged here.

relay and echo are the yardsticks (yardstick.rs): bytes copied, and replies from memory, by one thread of the runtime
that pgweir uses. PgBouncer runs in transaction mode, for prepared statements in session mode: before its version 1.21
it has no other way. "pgweir split" has a replica for its reads.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import pathlib
import resource
import signal
import statistics
import time

import client
import report
from measure import Figures, address, copy, pgbench, resident, spoken
from targets import ROOT, Targets

ALL = ["direct", "relay", "echo", "PgBouncer", "Pgpool-II", "pgweir", "pgweir split"]
# Echo repeats itself, whatever it is asked: reads by key are all that it can stand in for.
WITHOUT_ECHO = [name for name in ALL if name != "echo"]
ONE_SERVER = [name for name in WITHOUT_ECHO if name != "pgweir split"]

LARGE = 100_000
LARGE_QUERY = f"SELECT * FROM pgbench_accounts LIMIT {LARGE}"
COPIES = 10


@dataclasses.dataclass
class Case:
    name: str
    # Of what the rate is a number, and the cost a share.
    unit: str
    targets: list[str]
    # A target to its figures.
    run: callable
    session_mode: bool = False


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: exit("ended from outside"))
    limit_of_files()
    began = time.monotonic()
    with Targets() as targets:
        files = prepare(targets, options)
        results = [(case, rounds(targets, case, options.rounds)) for case in cases(targets, files, options)]
        memory = idle_clients(targets, options.idle) if options.idle else {}
    options.html.parent.mkdir(parents=True, exist_ok=True)
    options.html.write_text(report.html(results, memory, options))
    print(f"\n{options.html}: the same as charts. {time.monotonic() - began:.0f} s in all.")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of pgbench (default 2)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--protocols", nargs="+", default=["simple", "extended", "prepared"])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench's tables: 100,000 accounts each (default 10)")
    parser.add_argument("--idle", type=int, default=5000, help="idle clients, 0: none (default 5000)")
    parser.add_argument("--html", type=pathlib.Path, default=ROOT / "target/bench.html")
    return parser.parse_args()


def cases(targets, files, options):
    common = {"servers": targets.servers, "login": targets.login}
    runs = lambda *arguments: functools.partial(
        pgbench, arguments=arguments, seconds=options.seconds, folder=targets.folder, **common
    )
    copies = lambda *commands: functools.partial(
        copy, commands=commands, megabytes=COPIES * files.dump.stat().st_size / 1e6, **common
    )
    every = [
        Case(f"select-only, {protocol}, {clients} client{'s'[:clients > 1]}", "query", ALL,
             runs("-f", files.point, "-M", protocol, "-c", str(clients)), session_mode=protocol == "prepared")
        for protocol in options.protocols for clients in options.clients
    ]  # fmt: skip
    every += [
        Case("tpcb-like, 16 clients", "transaction", WITHOUT_ECHO, runs("-c", "16")),
        Case("a connection per transaction, 4 clients", "transaction", ONE_SERVER, runs("-f", files.point, "-C", "-c", "4")),
        Case(f"a result of {LARGE:,} rows, 1 client", "query", ONE_SERVER, runs("-f", files.large, "-c", "1")),
        Case("COPY out", "MB", ONE_SERVER, copies(*[f"\\copy ({LARGE_QUERY}) TO /dev/null"] * COPIES)),
        Case("COPY in", "MB", ONE_SERVER, copies("TRUNCATE copied", *[f"\\copy copied FROM {files.dump}"] * COPIES)),
    ]
    return [case for case in every if options.only in case.name]


# Scripts of pgbench, and the large result as COPY writes it.
Files = collections.namedtuple("Files", "point large dump")


def prepare(targets, options):
    """Tables, made past the proxies, and files; then each proxy once so that its pool is full."""
    files = Files(*(targets.folder / name for name in ("point.sql", "large.sql", "large.copy")))
    # As pgbench --select-only has it. By that name pgbench would first ask about its tables, which echo cannot answer.
    accounts = 100_000 * options.scale
    files.point.write_text(f"\\set aid random(1, {accounts})\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n")
    files.large.write_text(f"{LARGE_QUERY};\n")
    direct = address(targets.of("direct"), targets.login)
    spoken(["pgbench", "-i", "-q", "-s", str(options.scale), *direct], targets.login)
    for command in ("CREATE UNLOGGED TABLE copied (LIKE pgbench_accounts)", f"\\copy ({LARGE_QUERY}) TO {files.dump}"):
        spoken(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", command, *direct], targets.login)
    for target in targets.all.values():
        work = ["pgbench", "-n", "-f", files.point, "-c", str(max(options.clients)), "-t", "100"]
        spoken([*work, *address(target, targets.login)], targets.login)
    return files


def rounds(targets, case, count):
    runs = {name: [] for name in case.targets}
    for number in range(count):
        first = number % len(case.targets)
        for name in case.targets[first:] + case.targets[:first]:
            runs[name].append(case.run(targets.of(name, case.session_mode)))
    medians = {name: median(runs[name]) for name in case.targets}
    print(report.text(case, medians), flush=True)
    return medians


def median(runs):
    figures = zip(*runs)
    return Figures(*(None if None in values else statistics.median(values) for values in figures))


def idle_clients(targets, count):
    """Bytes of memory per client, of those that have asked once and wait."""
    memory = {}
    for name in ["PgBouncer", "pgweir"]:
        target = targets.of(name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(client.idle(target.port, targets.login))
            before = resident(target.process)
            for _ in range(count):
                stack.enter_context(client.idle(target.port, targets.login))
            memory[name] = (resident(target.process) - before) / count
    print(report.memory_text(memory, count), flush=True)
    return memory


def limit_of_files():
    """An idle client is a file here and one there; what is started inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
