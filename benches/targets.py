"""What is measured: servers, proxies and yardsticks, each on a free port, in a temporary folder, all ended together."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PGWEIR, YARDSTICK = (ROOT / "target/release" / name for name in ("pgweir", "yardstick"))
POOL = 70
# Pools of 70 for two PgBouncers, Pgpool-II, two pgweirs, and as many direct, through the relay and through the echo.
MAX_CONNECTIONS = 700


@dataclasses.dataclass
class Target:
    name: str
    port: int
    # The first process of the proxy; None without one.
    process: int | None = None


class Targets:
    """All of them, running; `servers` are the postmasters, `login` is user, password and database."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgweir-bench-")))
            self.folder.chmod(0o755)
            self.running = stack.enter_context(contextlib.ExitStack())
            self.bring_up()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def bring_up(self):
        self.cluster()
        direct = self.port("primary")
        split = database(direct) + database(self.port("replica"), "replica")
        self.all = {
            "direct": Target("direct", direct),
            "relay": self.yardstick("relay", direct),
            "echo": self.yardstick("echo", direct),
            "PgBouncer": self.pgbouncer("transaction", direct),
            # Before 1.21 prepared statements work in session mode only.
            "PgBouncer, session mode": self.pgbouncer("session", direct),
            "Pgpool-II": self.pgpool(direct),
            "pgweir": self.pgweir("pgweir", database(direct)),
            "pgweir split": self.pgweir("pgweir split", split),
        }

    def of(self, name, session_mode=False):
        return (self.all.get(f"{name}, session mode") if session_mode else None) or self.all[name]

    def cluster(self):
        """One primary and one replica, with the shop's rows."""
        ready, folder = self.folder / "ready.json", self.folder / "cluster"
        command = [PGWEIR, "dev", "--dir", folder, "--ready-file", ready, "--port", "0", "--shards", "1"]
        process = self.start([*command, "--replicas", "1", "--rows", "100", "--max-connections", str(MAX_CONNECTIONS)])
        self.wait_until(ready.exists, process, 120)
        self.login = json.loads(ready.read_text())
        locks = folder.glob("servers/shard0/*/postmaster.pid")
        self.servers = [int(lock.read_text().split()[0]) for lock in locks]

    def port(self, role):
        return next(server["port"] for server in self.login["servers"] if server["role"] == role)

    def yardstick(self, what, server):
        port = free_port()
        return self.serving(what, port, [YARDSTICK, what, str(port), str(server)])

    def pgbouncer(self, mode, server):
        port, file = free_port(), self.folder / f"pgbouncer-{mode}.ini"
        (self.folder / "users.txt").write_text('"{user}" "{password}"\n'.format(**self.login))
        file.write_text(
            f"[databases]\n{self.login['database']} = host=127.0.0.1 port={server}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {self.folder}/users.txt\n"
            f"pool_mode = {mode}\ndefault_pool_size = {POOL}\nmax_client_conn = 20000\nlog_connections = 0\n"
            "log_disconnections = 0\n"
        )
        return self.serving("PgBouncer", port, [program("pgbouncer"), file], **unprivileged())

    def pgpool(self, server):
        """Pooling alone: no balancing, no checks of its own."""
        port, folder = free_port(), self.folder / "pgpool"
        folder.mkdir()
        folder.chmod(0o777)
        settings = {
            "listen_addresses": "127.0.0.1", "port": port, "socket_dir": folder,
            "pcp_listen_addresses": "127.0.0.1", "pcp_port": free_port(), "pcp_socket_dir": folder,
            "backend_clustering_mode": "raw", "backend_hostname0": "127.0.0.1", "backend_port0": server,
            "enable_pool_hba": "on", "pool_passwd": folder / "pool_passwd", "pid_file_name": folder / "pgpool.pid",
            "logdir": folder, "num_init_children": POOL, "max_pool": 1, "child_life_time": 0, "connection_life_time": 0,
        }  # fmt: skip
        (folder / "pgpool.conf").write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        (folder / "pool_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        (folder / "pool_passwd").write_text("{user}:TEXT{password}\n".format(**self.login))
        (folder / "pcp.conf").touch()
        files = ["-f", folder / "pgpool.conf", "-a", folder / "pool_hba.conf", "-F", folder / "pcp.conf"]
        return self.serving("Pgpool-II", port, [program("pgpool"), "-n", *files], **unprivileged())

    def pgweir(self, name, databases):
        port, file = free_port(), self.folder / f"{name}.toml"
        file.write_text(
            f'[general]\nhost = "127.0.0.1"\nport = {port}\ndefault_pool_size = {POOL}\nmax_client_conn = 20000\n'
            + databases
            + '[[users]]\nname = "{user}"\npassword = "{password}"\n'.format(**self.login)
        )
        return self.serving(name, port, [PGWEIR, "serve", "--config", file])

    def serving(self, name, port, command, **options):
        process = self.start(command, **options)
        self.wait_until(lambda: accepts(port), process, 30)
        return Target(name, port, process.pid)

    def start(self, command, **options):
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.running.callback(stop, process)
        return process

    def wait_until(self, condition, process, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log.txt").read_text()[-2000:]
                raise SystemExit(f"{process.args[0]} does not serve:\n{said}")
            time.sleep(0.05)


def database(port, role="primary"):
    return f'[[databases]]\nname = "shop"\nrole = "{role}"\nhost = "127.0.0.1"\nport = {port}\n'


def program(name):
    return shutil.which(name) or f"/usr/sbin/{name}"


def unprivileged():
    """PgBouncer and PostgreSQL's tools do not run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
