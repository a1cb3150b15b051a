#!/usr/bin/env python3
"""What a proxy costs: point reads and idle clients, direct, through PgBouncer and through pgweir, in turns.

Starts everything itself, on free ports, in a temporary folder. Figures are CPU of the proxy per query (the kernel's
accounting of its threads, user and system) and resident memory per idle client; medians over the rounds, with their
ratio to PgBouncer. Nothing is judged here.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PGWEIR = HERE.parent / "target/release/pgweir"
SCRIPT = "\\set id random(1, 4999)\nSELECT handle FROM users WHERE id = :id;\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4, help="of each run")
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    arguments.add_argument("--modes", nargs="+", default=["simple", "prepared"])
    arguments.add_argument("--idle", type=int, default=1000, help="idle clients, 0: none")
    options = arguments.parse_args()
    with Bench() as bench:
        point_reads(bench, options)
        if options.idle:
            idle_clients(bench, options.idle)


def point_reads(bench, options):
    print(f"{'mode':>9} {'clients':>7} {'target':<14} {'tps':>8} {'latency ms':>10} {'CPU µs/query':>12} {'to PgBouncer':>12}")
    for mode in options.modes:
        for clients in options.clients:
            runs = {target: [] for target in bench.targets}
            for _ in range(options.rounds):
                for target in bench.targets:
                    runs[target].append(bench.pgbench(target, mode, clients, options.seconds))
            yardstick = statistics.median(cpu for _, _, cpu in runs["PgBouncer"])
            for target, results in runs.items():
                tps, latency, cpu = (statistics.median(figures) for figures in zip(*results))
                ratio = f"{cpu / yardstick:.2f}" if cpu else ""
                print(f"{mode:>9} {clients:>7} {target:<14} {tps:8.0f} {latency:10.3f} {cpu:12.1f} {ratio:>12}", flush=True)


def idle_clients(bench, count):
    for target in ["PgBouncer", "pgweir"]:
        port, process = bench.targets[target]
        with contextlib.ExitStack() as stack:
            stack.enter_context(log_in(port, bench.ready))
            before = resident(process)
            for _ in range(count):
                stack.enter_context(log_in(port, bench.ready))
            print(f"{target}: {(resident(process) - before) / count / 1024:.1f} KiB RSS per idle client ({count})")


class Bench:
    """The servers, and each target as (port, pid of its proxy or None)."""

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o755)
        ready = self.folder / "ready.json"
        cluster = [PGWEIR, "dev", "--dir", self.folder / "cluster", "--rows", "10000", "--port", "0", "--ready-file", ready]
        self.start([*cluster, "--replicas", "1"])
        self.wait_until(ready.exists, 120)
        self.ready = json.loads(ready.read_text())
        shard = {server["role"]: server["port"] for server in self.ready["servers"] if server["shard"] == 0}
        (self.folder / "script.sql").write_text(SCRIPT)
        direct = shard["primary"]
        self.targets = {
            "direct": (direct, None),
            "PgBouncer": self.pgbouncer(direct),
            "pgweir": self.pgweir("one", self.database(direct)),
            "pgweir split": self.pgweir("split", self.database(direct) + self.database(shard["replica"], "replica")),
        }
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, command, **options):
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.stack.callback(stop, process)
        return process

    def wait_until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit("what was started does not serve:\n" + (self.folder / "log.txt").read_text()[-2000:])
            time.sleep(0.05)

    def pgbouncer(self, server):
        port = free_port()
        user, password = self.ready["user"], self.ready["password"]
        (self.folder / "users.txt").write_text(f'"{user}" "{password}"\n')
        configuration = self.folder / "pgbouncer.ini"
        # Before 1.21 prepared statements work in session mode only: with a server for each client, that is the same work.
        configuration.write_text(
            f"[databases]\nshop = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {self.folder}/users.txt\n"
            "pool_mode = session\ndefault_pool_size = 64\nmax_client_conn = 20000\n"
        )
        user = {"user": "postgres"} if os.geteuid() == 0 else {}
        process = self.start([shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", configuration], **user)
        self.wait_until(lambda: accepts(port), 20)
        return port, process.pid

    def database(self, port, role="primary"):
        return f'[[databases]]\nname = "shop"\nrole = "{role}"\nhost = "127.0.0.1"\nport = {port}\n'

    def pgweir(self, name, databases):
        port = free_port()
        configuration = self.folder / f"{name}.toml"
        user, password = self.ready["user"], self.ready["password"]
        general = f'[general]\nhost = "127.0.0.1"\nport = {port}\ndefault_pool_size = 64\nmax_client_conn = 20000\n'
        configuration.write_text(f'{general}{databases}[[users]]\nname = "{user}"\npassword = "{password}"\n')
        process = self.start([PGWEIR, "serve", "--config", configuration])
        self.wait_until(lambda: accepts(port), 20)
        return port, process.pid

    def pgbench(self, target, mode, clients, seconds):
        """Queries per second, mean latency in ms, CPU of the proxy in µs per query."""
        port, proxy = self.targets[target]
        before = cpu_seconds(proxy)
        command = ["pgbench", "-n", "-f", self.folder / "script.sql", "-M", mode, "-c", str(clients), "-j", "1"]
        login = ["-T", str(seconds), "-h", "127.0.0.1", "-p", str(port), "-U", self.ready["user"], self.ready["database"]]
        environment = os.environ | {"PGPASSWORD": self.ready["password"]}
        said = subprocess.run([*command, *login], env=environment, capture_output=True, text=True)
        done = re.search(r"transactions actually processed: (\d+)", said.stdout)
        if said.returncode or not done:
            raise SystemExit(f"pgbench on {target}: {said.stderr}")
        cpu = (cpu_seconds(proxy) - before) / int(done[1]) * 1e6
        figure = lambda pattern: float(re.search(pattern, said.stdout)[1])
        return figure(r"tps = ([\d.]+)"), figure(r"latency average = ([\d.]+)"), cpu


def cpu_seconds(pid):
    if pid is None:
        return 0.0
    threads = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident(pid):
    """In bytes."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def log_in(port, ready):
    """A client that has logged in by SCRAM-SHA-256 and does nothing."""
    client = socket.create_connection(("127.0.0.1", port))
    text = lambda **fields: b"".join(f"{name}\0{value}\0".encode() for name, value in fields.items()) + b"\0"
    body = struct.pack("!i", 196608) + text(user=ready["user"], database=ready["database"])
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    send = lambda body: client.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)
    receive(client)
    first = f"n=,r={secrets.token_hex(12)}"
    send(b"SCRAM-SHA-256\0" + struct.pack("!i", len(first) + 3) + b"n,," + first.encode())
    challenge = receive(client)[4:].decode()
    nonce, salt, rounds = (part[2:] for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", ready["password"].encode(), base64.b64decode(salt), int(rounds))
    mac = lambda key, what: hmac.new(key, what, "sha256").digest()
    key = mac(salted, b"Client Key")
    final = f"c=biws,r={nonce}"
    proof = mac(hashlib.sha256(key).digest(), f"{first},{challenge},{final}".encode())
    send(f"{final},p={base64.b64encode(bytes(a ^ b for a, b in zip(key, proof))).decode()}".encode())
    while receive(client) not in (b"I",):
        pass
    return client


def receive(client):
    header = client.recv(5, socket.MSG_WAITALL)
    if header[:1] in (b"E", b""):
        raise SystemExit(f"log-in: {client.recv(1000)}")
    return client.recv(struct.unpack("!i", header[1:])[0] - 4, socket.MSG_WAITALL)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


if __name__ == "__main__":
    main()
