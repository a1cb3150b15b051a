#!/usr/bin/env python3
"""Clients' own test suites, and programs of ours for clients without one, directly and through pgweir.

Each runs twice, on a PostgreSQL with two replicas: directly, and through pgweir with its defaults (transaction mode,
reads on the replicas). Prints a table, and every test that came out otherwise; ends with 0 if all that passes directly
passes through, but for what is known (`suites.KNOWN`). What is needed comes from package registries into `.compat`.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import getting
import suites
from servers import ROOT, Servers, ShardedServers


def main():
    options = arguments()
    chosen = [suite for suite in suites.all_suites() if wanted(suite, options)]
    if options.list:
        print("\n".join(suite.name for suite in chosen))
        return
    if options.get:
        [suite.get() for suite in chosen]
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    rows, differing = [], 0
    with contextlib.ExitStack() as stack:
        started = {}
        for suite in chosen:
            if suite.sharded not in started:
                kind = ShardedServers if suite.sharded else Servers
                started[suite.sharded] = stack.enter_context(kind(options.pgweir))
            row = compare(started[suite.sharded], suite, options)
            differing += len(row["differ"])
            rows.append(row)
            print(line(row), flush=True)
            for name, direct, through in row["differ"]:
                print(f"    {name}: {direct} directly, {through} through", flush=True)
            for name, why in row["known"]:
                print(f"    {name}: known: {why}", flush=True)
            for name in row["once"]:
                print(f"    {name}: passed when all was run again", flush=True)
    print("\n" + table(rows))
    if differing:
        raise SystemExit(f"{differing} tests do not come out through pgweir as they do directly")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="suites whose name begins like this")
    parser.add_argument("--short", action="store_true", help="a minute or two: our programs, some files of some suites")
    parser.add_argument("--get", action="store_true", help="only get what is needed")
    parser.add_argument("--list", action="store_true", help="the suites' names")
    parser.add_argument("--pgweir", type=pathlib.Path, default=ROOT / "target/debug/pgweir")
    parser.add_argument("--logs", type=pathlib.Path, default=getting.FOLDER / "logs", help="folder of what suites say")
    return parser.parse_args()


def wanted(suite, options):
    named = not options.only or any(suite.name.lower().startswith(part.lower()) for part in options.only)
    return named and (suite.short or not options.short)


def compare(servers, suite, options):
    row = try_both(servers, suite, options)
    if not row["differ"] or suite.exact:
        return row | {"once": []}
    # Some of clients' own tests count milliseconds: what they see of a busy machine, they see once.
    names, row = {name for name, *_ in row["differ"]}, try_both(servers, suite, options)
    row["differ"] = [found for found in row["differ"] if found[0] in names]
    return row | {"once": sorted(names - {name for name, *_ in row["differ"]})}


def try_both(servers, suite, options):
    folder = suite.get()
    options.logs.mkdir(parents=True, exist_ok=True)
    found, names_of = {}, suite.short if options.short else suite.whole
    for way in ("direct", "through"):
        servers.fresh(suite.databases, suite.prepare)
        log = options.logs / f"{suite.name.replace('/', '-').replace(' ', '-')}.{way}.log"
        began = time.monotonic()
        if way == "direct":
            said = run(suite, folder, servers.direct(suite.database), names_of, log)
        else:
            with servers.through(suite.database) as target:
                said = run(suite, folder, target, names_of, log)
        found[way] = suite.read(said), time.monotonic() - began
    (direct, direct_seconds), (through, through_seconds) = found["direct"], found["through"]
    why = lambda name: next((why for end, why in suite.known.items() if name.endswith(end)), None)  # noqa: E731
    if not any(suite.exact or came == "passed" for came in direct.values()):
        raise SystemExit(f"{suite.name}: nothing passes directly: {options.logs}")
    names = [*direct, *(name for name in through if name not in direct and suite.exact)]
    differ = [
        (name, direct.get(name, "nothing"), through.get(name, "nothing")) for name in names
        if direct.get(name) != through.get(name) and (suite.exact or direct[name] == "passed")
    ]  # fmt: skip
    return {
        "name": suite.name, "of": len(direct),
        "direct": len(direct) if suite.exact else passed(direct),
        "through": len(direct) - len(differ) if suite.exact else passed(through),
        "known": [(name, why(name)) for name, *_ in differ if why(name)],
        "seconds": (direct_seconds, through_seconds), "differ": [found for found in differ if not why(found[0])],
    }  # fmt: skip


def run(suite, folder, target, names, log):
    command, environment = suite.command(target, names)
    if suite.report:
        pathlib.Path(suite.report).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(suite.report).unlink(missing_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(suite.seconds)
        except subprocess.TimeoutExpired:
            print(f"{suite.name}, {target.name}: not done in {suite.seconds} s", file=sys.stderr)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if suite.exact and process.returncode:
        raise SystemExit(f"{suite.name}, {target.name}, ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    source = pathlib.Path(suite.report) if suite.report else log
    if not source.exists():
        raise SystemExit(f"{suite.name}, {target.name}: no results:\n{log.read_text()[-3000:]}")
    return source.read_text(errors="replace")


def passed(found):
    return sum(came == "passed" for came in found.values())


def line(row):
    direct, through = row["seconds"]
    return f"{row['name']}: {row['direct']} direct, {row['through']} through, of {row['of']} ({direct:.0f} s, {through:.0f} s)"


def table(rows):
    lines = ["| suite | tests | passed direct | passed through | differ |", "|---|---|---|---|---|"]
    for row in rows:
        differ = [name.rsplit(".", 1)[-1] for name, *_ in row["differ"]]
        names = ", ".join(differ + [f"({name.rsplit('.', 1)[-1]})" for name, _ in row["known"]]) or "none"
        lines.append(f"| {row['name']} | {row['of']} | {row['direct']} | {row['through']} | {names} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
