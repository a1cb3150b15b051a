"""One run against one target: how fast, how late, and what the processor did for it."""

import collections
import contextlib
import os
import pathlib
import re
import subprocess
import threading
import time

# rate: units per second; p50 and p99 in ms, None where a run has no single latencies; CPU in µs per unit, of the proxy
# and of proxy and servers together.
Figures = collections.namedtuple("Figures", "rate p50 p99 cpu cpu_in_all")


def pgbench(target, servers, login, arguments, seconds, folder):
    """Between the first and the last moment at which pgbench was watched at work: logging in and out do not count."""
    log = folder / "latency"
    command = ["pgbench", "-n", "-j", "1", "-T", str(seconds), "--log", f"--log-prefix={log}", *arguments]
    with Watch(target.process, servers) as watch:
        said = spoken([*command, *address(target, login)], login)
    [file] = folder.glob(f"{log.name}.*")
    ended, latencies = transactions(file)
    file.unlink()
    if seconds < LONGEST and (not ended or ended[-1] - ended[0] < seconds / 2):
        # The clients' log-ins, which pgbench counts as well, took most of the time.
        return pgbench(target, servers, login, arguments, 2 * seconds, folder)
    begin, end = watch.around(ended[0], ended[-1])
    count = sum(begin.time < moment <= end.time for moment in ended)
    latencies.sort()
    percentile = lambda share: latencies[int(share * (len(latencies) - 1))] / 1000
    rate = float(re.search(r"tps = ([\d.]+)", said)[1])
    return Figures(rate, percentile(0.5), percentile(0.99), *costs(begin, end, count))


LONGEST = 60


def copy(target, servers, login, commands, megabytes):
    """Commands of psql in one session that move so many megabytes in all, between two moments of rest."""
    options = [word for command in (REST, *commands, REST) for word in ("-c", command)]
    with Watch(target.process, servers) as watch:
        said = spoken(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, *address(target, login)], login)
    began, ended = map(float, said.split())
    begin, end = watch.after(began), watch.after(ended)
    return Figures(megabytes / (ended - began - RESTS), None, None, *costs(begin, end, megabytes))


RESTS = 0.3
REST = f"\\! date +%s.%N; sleep {RESTS}"


def spoken(command, login):
    """What a client program says; it must end well."""
    environment = os.environ | {"PGPASSWORD": login["password"]}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Where a client of pgbench fails, the others go on, and it says so at the end.
    if said.returncode or "aborted" in said.stderr:
        raise SystemExit(f"{' '.join(map(str, command))}: {said.stderr}")
    return said.stdout


def address(target, login):
    return ["-h", "127.0.0.1", "-p", str(target.port), "-U", login["user"], login["database"]]


def transactions(file):
    """When each ended, in seconds since 1970, and how long it took, in µs."""
    ended, latencies = [], []
    for line in file.open():
        _, _, latency, _, seconds, micros, *_ = line.split()
        ended.append(int(seconds) + int(micros) / 1e6)
        latencies.append(int(latency))
    ended.sort()
    return ended, latencies


def costs(begin, end, units):
    proxy, servers = ((end[of] - begin[of]) * 1e6 / max(units, 1) for of in (1, 2))
    return proxy, proxy + servers


Sample = collections.namedtuple("Sample", "time proxy servers")


class Watch:
    """Samples of the processor's time while something runs."""

    def __init__(self, proxy, servers):
        self.proxy, self.servers, self.samples = proxy, servers, []

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.sample()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.sample()

    def watch(self):
        while not self.ended.wait(0.1):
            self.sample()

    def sample(self):
        proxy = cpu_seconds(self.proxy) if self.proxy else 0.0
        servers = sum(map(cpu_seconds, self.servers))
        self.samples.append(Sample(time.time(), proxy, servers))

    def after(self, moment):
        return next((sample for sample in self.samples if sample.time >= moment), self.samples[-1])

    def around(self, first, last):
        """The samples that enclose most of what happened from `first` to `last`, nothing else."""
        within = [sample for sample in self.samples if first <= sample.time <= last]
        return (within[0], within[-1]) if len(within) > 1 else (self.samples[0], self.samples[-1])


def cpu_seconds(root):
    """User and system time of a process, all its threads, its children, and those of them that have ended."""
    total = 0.0
    for process in tree(root):
        with contextlib.suppress(OSError):
            # The clock of another process, as clock_getcpuclockid(3) has it: threads that ended count.
            total += time.clock_gettime((~process << 3) | 2)
            user, system = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[13:15]
            total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def resident(root):
    """Memory in bytes."""
    pages = lambda process: int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1])
    return sum(map(pages, tree(root))) * os.sysconf("SC_PAGESIZE")


def tree(root):
    yield root
    for task in pathlib.Path(f"/proc/{root}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from tree(int(child))
