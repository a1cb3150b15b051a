"""What suites are made of, from the registries' own clients, into a folder that is not committed.

Nothing is installed on the machine: Python packages go into a virtual environment, Node's into a folder, crates are
unpacked by cargo, Debian's packages are downloaded by apt-get and unpacked without root.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from servers import ROOT

FOLDER = ROOT / ".compat"
VENV, NODE, DEBIAN, SOURCES = FOLDER / "venv", FOLDER / "node", FOLDER / "debian", FOLDER / "sources"
PYTHON = VENV / "bin/python"
# Suites change with their versions.
VERSIONS = {
    "alembic": "1.20.1", "asyncpg": "0.32.0", "django": "5.2.19", "pg8000": "1.31.6", "psycopg2": "2.9.13",
    "psycopg[binary,pool]": "3.3.9", "pygresql": "6.2.3", "sqlalchemy": "2.1.9",
}  # fmt: skip
TOOLS = ["setuptools", "wheel", "cython", "flit_core", "hatchling", "versioningit", "pytest", "pytest-timeout"]


def once(what, work):
    """Does the work unless it was done before, by the name of what it makes."""
    mark = FOLDER / "done" / what.replace("/", "_").replace("@", "_")
    if not mark.exists():
        print(f"getting {what}", file=sys.stderr, flush=True)
        work()
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout[-4000:]}")


def asked(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def pip(*arguments):
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", VENV])
        run([PYTHON, "-m", "pip", "install", "--quiet", "--no-input", "--upgrade", "pip", *TOOLS])
    run([PYTHON, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"])


def python(*packages):
    """Wheels, or what has none built here."""
    for package in map(pinned, packages):
        once(f"python {package}", lambda package=package: pip("install", package))


def pinned(package):
    return f"{package}=={VERSIONS[package]}" if package in VERSIONS else package


def sdist(package):
    """The folder of a source distribution, unpacked."""
    folder = SOURCES / package

    def get():
        folder.mkdir(parents=True, exist_ok=True)
        only = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        pip("download", *only, "--dest", folder, pinned(package))
        unpack(next(folder.glob("*.tar.gz")), folder)

    once(f"sdist {pinned(package)}", get)
    return next(path for path in folder.iterdir() if path.is_dir())


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def node(*packages, scripts=True):
    """A folder with these, in its `node_modules`. npm would take away what it was not asked for at the same time.

    Without `scripts`, nothing is run that would get more from elsewhere.
    """
    folder = NODE / re.sub(r"\W+", "-", "-".join(packages))

    def get():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--silent", "--no-save", "--no-package-lock", *([] if scripts else ["--ignore-scripts"])]
        run(["npm", "install", *options, "--prefix", folder, *packages])

    once("node " + " ".join(packages), get)
    return folder


def debian(*packages):
    """Packages with what is in them, under a folder of their own; needs no root and changes nothing on the machine."""

    def get():
        with tempfile.TemporaryDirectory() as archives:
            run(["apt-get", "download", *packages], cwd=archives)
            for archive in pathlib.Path(archives).glob("*.deb"):
                run(["dpkg", "-x", archive, DEBIAN])

    once("debian " + packages[0] + (f" and {len(packages) - 1} more" if packages[1:] else ""), get)
    return DEBIAN


def crate(name):
    """A copy of a crate's sources as cargo unpacked them, of the version that Cargo.lock names."""
    folder = SOURCES / name

    def get():
        command = ["cargo", "metadata", "--format-version", "1", "--locked"]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        manifests = [package["manifest_path"] for package in json.loads(said)["packages"] if package["name"] == name]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pathlib.Path(manifests[0]).parent, folder)
        # What cargo keeps read-only and for itself.
        (folder / ".cargo-ok").unlink(missing_ok=True)

    once(f"crate {name}", get)
    return folder


