"""The clients' own suites, as they are: how to get each, which databases it wants, how to run it against a target.

Only addresses are told them, by the ways that they have for it; where a suite has its port written down (tokio-postgres),
the number is replaced in the copy. Not packaged with tests, so that programs of ours stand in: psycopg 3, node-postgres,
postgres.js, pgjdbc, libpq, DBD::Pg, Ruby's pg, PHP. What cannot be had: the tests of crate sqlx, which need a crate of its
repository that is not published, and those of Debian's pgtype, for the same reason; `tests/drivers` has programs for sqlx.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import typing

import getting
import outcomes
from servers import PASSWORD, SUPERUSER, Target

GO_PACKAGES = [
    "golang-1.19-go", "golang-1.19-src", "golang-github-lib-pq-dev",
    *(f"golang-github-jackc-{name}-dev" for name in (
        "chunkreader-v2", "pgconn", "pgio", "pgpassfile", "pgproto3-v2", "pgservicefile", "pgtype", "pgx-v4", "puddle")),
    *(f"golang-github-{name}-dev" for name in (
        "cockroachdb-apd", "gofrs-uuid", "shopspring-decimal", "stretchr-testify", "stretchr-objx", "pmezard-go-difflib",
        "davecgh-go-spew", "pkg-errors", "rs-zerolog", "sirupsen-logrus", "go-kit-log", "go-logfmt-logfmt",
        "go-stack-stack", "inconshreveable-log15", "mattn-go-colorable", "mattn-go-isatty", "satori-go.uuid", "rs-xid",
        "icrowley-fake", "corpix-uarand", "benbjohnson-clock", "kr-pretty", "kr-text", "rogpeppe-go-internal",
        "jcmturner-aescts.v2", "jcmturner-dnsutils.v2", "jcmturner-gofork", "jcmturner-goidentity.v6",
        "jcmturner-gokrb5.v8", "jcmturner-rpc.v2", "hashicorp-go-uuid", "gorilla-sessions", "gorilla-securecookie")),
    *(f"golang-golang-x-{name}-dev" for name in ("crypto", "sys", "text", "net", "term", "xerrors")),
    "golang-gopkg-yaml.v3-dev", "golang-go.uber-atomic-dev", "golang-go.uber-multierr-dev", "golang-go.uber-zap-dev",
    "golang-gopkg-check.v1-dev", "golang-uber-goleak-dev",
]  # fmt: skip


@dataclasses.dataclass
class Suite:
    name: str
    # Gets it, and returns the folder that it runs in.
    get: typing.Callable[[], pathlib.Path]
    # The arguments and additions to the environment, for a target and these parts of the suite.
    command: typing.Callable[[Target, list], tuple[list, dict]]
    read: typing.Callable[[str], dict]
    database: str = "compat"
    more_databases: tuple = ()
    prepare: dict = dataclasses.field(default_factory=dict)
    # All parts of it, and those that stand for it in the short form; none: it is not there.
    whole: list = dataclasses.field(default_factory=list)
    short: list = dataclasses.field(default_factory=list)
    seconds: int = 1800
    # Where the results are, if not on standard output.
    report: str | None = None
    # A program of ours: all that it says is to be the same.
    exact: bool = False
    # On two shards, compared with one database that has all rows.
    sharded: bool = False
    # What is known to come out otherwise, and why (see README.md, "Limits of this version").
    known: dict = dataclasses.field(default_factory=dict)

    @property
    def databases(self):
        return [self.database, *self.more_databases]


def pytest(suite_arguments, environment, report):
    arguments = [getting.VENV / "bin/pytest", "-q", "-p", "no:cacheprovider", "--tb=native", "--timeout=120", f"--junitxml={report}"]
    return [*arguments, *suite_arguments], environment


def psycopg2():
    def get():
        folder = getting.sdist("psycopg2")
        getting.once("psycopg2 itself", lambda: getting.pip("install", "--no-build-isolation", "--no-deps", folder))
        return apart(folder)

    def command(target, arguments, report):
        environment = target.environment() | {"PSYCOPG2_TESTDB": target.database}
        return pytest(arguments, environment, report)

    whole, short = ["tests"], [f"tests/test_{name}.py" for name in ("notify", "copy", "lobject", "transaction", "with")]
    return suite("psycopg2", get, command, whole=whole, short=short, prepare={"compat": "create extension hstore"})


def psycopg2_green():
    """The same by its other way to wait: every answer by an asynchronous connection."""
    base = psycopg2()

    def command(target, names):
        arguments, environment = base.command(target, names)
        return arguments, environment | {"PSYCOPG2_TEST_GREEN": "1"}

    return dataclasses.replace(base, name="psycopg2 green", command=command, short=[])


def apart(folder):
    """The tests in a folder without the package's sources, which are not what is to be imported."""
    place = folder.parent / "tests-alone"
    place.mkdir(exist_ok=True)
    link = place / "tests"
    if not link.exists():
        link.symlink_to(folder / "tests")
    return place


def asyncpg():
    def get():
        getting.python("asyncpg", "distro", "uvloop")
        return apart(getting.sdist("asyncpg"))

    def command(target, arguments, report):
        return pytest(["-p", "no:warnings", *arguments], target.environment(), report)

    short = [f"tests/test_{name}.py" for name in ("cursor", "listeners", "prepare", "transaction", "copy")]
    return suite("asyncpg", get, command, whole=["tests"], short=short, database="postgres")


def sqlalchemy(driver, whole, short=()):
    def get():
        getting.python("psycopg[binary,pool]", "asyncpg", "pg8000", "greenlet", "typing_extensions")
        if driver == "psycopg2":
            psycopg2().get()
        return getting.sdist("sqlalchemy")

    def command(target, arguments, report):
        options = ["--dburi", target.url(f"postgresql+{driver}"), "--backend-only"]
        return pytest([*options, *arguments], {}, report)

    setup = (
        "create schema test_schema; create schema test_schema_2; create extension hstore; create extension citext;"
        "create text search configuration test_schema.dummy (parser = pg_catalog.default)"
    )
    name = f"SQLAlchemy, {driver}"
    return suite(name, get, command, whole=whole, short=list(short), prepare={"compat": setup}, seconds=3600)


def alembic():
    def get():
        getting.python("alembic", "sqlalchemy", "psycopg[binary,pool]", "mako", "tzdata")
        return getting.sdist("alembic")

    def command(target, arguments, report):
        # What a run that was ended from outside has left.
        shutil.rmtree(getting.sdist("alembic") / "scratch", ignore_errors=True)
        options = ["--dburi", target.url("postgresql+psycopg"), "--backend-only"]
        return pytest([*options, *arguments], {}, report)

    return suite("Alembic", get, command, whole=["tests"], prepare={"compat": "create schema test_schema"})


def pg8000():
    def get():
        getting.python("pg8000", "pytz")
        return apart_named(getting.sdist("pg8000"), "test")

    def command(target, arguments, report):
        return pytest(arguments, target.environment(), report)

    whole = ["test/dbapi", "test/native", "test/legacy"]
    short = ["test/native/test_prepared_statement.py", "test/dbapi/test_copy.py", "test/dbapi/test_query.py"]
    return suite("pg8000", get, command, whole=whole, short=short, database="postgres")


def pygresql():
    def get():
        folder = getting.sdist("pygresql")
        getting.once("pygresql itself", lambda: getting.pip("install", "--no-build-isolation", "--no-deps", folder))
        return apart(folder)

    def command(target, arguments, report):
        return pytest(arguments, target.environment(), report)

    short = [f"tests/test_{name}.py" for name in ("classic_notification", "classic_largeobj", "dbapi20_copy")]
    return suite("PyGreSQL", get, command, whole=["tests"], short=short)


def apart_named(folder, tests):
    place = folder.parent / "tests-alone"
    place.mkdir(exist_ok=True)
    if not (place / tests).exists():
        (place / tests).symlink_to(folder / tests)
    return place


def django(applications):
    def get():
        getting.python("django", "psycopg[binary,pool]", "jinja2", "PyYAML", "sqlparse", "tblib", "Pillow")
        folder = getting.sdist("django")
        (folder / "tests/pgweir_settings.py").write_text(DJANGO_SETTINGS)
        return folder / "tests"

    def command(target, arguments):
        python = [getting.PYTHON, "runtests.py", "--settings=pgweir_settings", "--parallel=1", "--noinput", "-v", "2"]
        return [*python, "--keepdb", *arguments], target.environment()

    return Suite(
        "Django", get, command, outcomes.of_unittest,
        database="postgres", more_databases=("test_django", "test_other"), whole=applications, seconds=5400,
    )  # fmt: skip


# Django makes its databases by these names, and finds them there.
DJANGO_SETTINGS = """\
import os
def database(name):
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": name, "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"],
    }
DATABASES = {"default": database("django"), "other": database("other")}
SECRET_KEY = "of the tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


def tokio_postgres():
    def get():
        folder = getting.crate("tokio-postgres")
        environment = os.environ | cargo()
        getting.once("tokio-postgres, built", lambda: getting.run(
            ["cargo", "test", "--no-run", "--features", TOKIO_FEATURES, "--test", "test"], cwd=folder, env=environment))
        return folder

    def command(target, _):
        # The number alone is changed, and cargo builds anew what has it. 5433 in the crate, another after a run.
        for file in ("tests/test/main.rs", "tests/test/runtime.rs"):
            path = getting.SOURCES / "tokio-postgres" / file
            original = path.with_suffix(".original")
            if not original.exists():
                original.write_text(path.read_text())
            path.write_text(re.sub(r"\b5433\b", str(target.port), original.read_text()))
        return ["cargo", "test", "--features", TOKIO_FEATURES, "--test", "test", "--no-fail-fast"], cargo()

    return Suite("tokio-postgres", get, command, outcomes.of_cargo, database="postgres",
                 prepare={"postgres": "create extension hstore; create extension citext; create extension ltree"})


TOKIO_FEATURES = (
    "array-impls,with-bit-vec-0_8,with-chrono-0_4,with-eui48-1,with-geo-types-0_7,with-serde_json-1,with-time-0_3,"
    "with-uuid-1,with-smol_str-01,with-jiff-0_2,with-uuid-1"
)


def cargo():
    return {"CARGO_TARGET_DIR": str(getting.FOLDER / "target"), "CARGO_TERM_COLOR": "never"}


def go(name, package, environment, database="compat", prepare=None):
    def get():
        getting.debian(*GO_PACKAGES)
        return getting.DEBIAN / "usr/share/gocode/src/github.com" / package

    def command(target, _):
        root = getting.DEBIAN / "usr/lib/go-1.19"
        here = {
            "GOROOT": str(root), "GOPATH": str(getting.DEBIAN / "usr/share/gocode"), "GO111MODULE": "off",
            "GOFLAGS": "", "GOCACHE": str(getting.FOLDER / "go-cache"), "GOTOOLCHAIN": "local",
        }  # fmt: skip
        arguments = [root / "bin/go", "test", "-json", "-count=1", "-timeout=600s", "./..."]
        return arguments, here | target.environment() | environment(target)

    return Suite(name, get, command, outcomes.of_go, database=database, prepare=prepare or {})


def lib_pq(binary):
    more = {"PQTEST_BINARY_PARAMETERS": "yes"} if binary else {}
    return go("lib/pq" + (", binary parameters" if binary else ""), "lib/pq", lambda _: more, "pqgotest")


def pgx(part):
    def environment(target):
        way = f"host={target.host} port={target.port} user={SUPERUSER} password={PASSWORD} dbname={target.database}"
        return {
            "PGX_TEST_DATABASE": way, "PGX_TEST_CONN_STRING": way, "PGX_TEST_TCP_CONN_STRING": way,
            "PGX_TEST_PLAIN_PASSWORD_CONN_STRING": way.replace("user=postgres password=postgres", "user=pass_user password=password"),
            "PGX_TEST_MD5_PASSWORD_CONN_STRING": way.replace("user=postgres password=postgres", "user=md5_user password=password"),
            "PGX_TEST_SCRAM_PASSWORD_CONN_STRING": way.replace("user=postgres password=postgres", "user=scram_user password=password"),
        }  # fmt: skip

    types = "create extension hstore; create extension ltree; create domain uint64 as numeric(20,0)"
    return go(part, f"jackc/{part}", environment, "pgx_test", {"pgx_test": types})


def suite(name, get, command, whole, short=(), **fields):
    """One that pytest runs; its report is a file."""
    report = getting.FOLDER / "reports" / (re.sub(r"\W+", "-", name) + ".xml")

    def run(target, names):
        return command(target, names, report)

    return Suite(name, get, run, outcomes.of_junit, whole=list(whole), short=list(short), report=str(report), **fields)


def program(name, get, command, environment=None):
    """One of ours, for a client that is not packaged with tests: what it prints is compared, line for line."""

    def run(target, _):
        return command(target), target.environment() | (environment(target) if environment else {})

    return Suite(name, get, run, outcomes.of_lines, exact=True, seconds=300, short=["all"])


def libpq():
    def get():
        place = getting.FOLDER / "programs"
        place.mkdir(parents=True, exist_ok=True)
        flags = [f"-I{getting.asked('pg_config', '--includedir')}", f"-L{getting.asked('pg_config', '--libdir')}"]
        getting.run(["cc", "-O1", flags[0], PROGRAMS / "libpq.c", "-o", place / "libpq", flags[1], "-lpq"])
        return place

    return program("libpq (ours)", get, lambda target: [getting.FOLDER / "programs/libpq", target.url("postgresql")])


def jdbc():
    def get():
        getting.debian("libpostgresql-jdbc-java")
        return PROGRAMS

    def command(target):
        jar = getting.DEBIAN / "usr/share/java/postgresql.jar"
        return ["java", "-cp", jar, PROGRAMS / "Jdbc.java", target.host, str(target.port), target.database]

    return program("pgjdbc (ours)", get, command)


def dbd_pg():
    def get():
        getting.debian("libdbi-perl", "libdbd-pg-perl")
        return PROGRAMS

    def environment(_):
        return {"PERL5LIB": str(getting.DEBIAN / "usr/lib/x86_64-linux-gnu/perl5/5.36")}

    return program("DBD::Pg (ours)", get, lambda _: ["perl", PROGRAMS / "dbd_pg.pl"], environment)


def ruby_pg():
    def get():
        getting.debian("ruby3.1", "libruby3.1", "ruby-pg")
        return PROGRAMS

    def environment(_):
        root, machine = getting.DEBIAN / "usr/lib", "x86_64-linux-gnu"
        library = [root / "ruby/3.1.0", root / machine / "ruby/3.1.0", root / "ruby/vendor_ruby",
                   root / machine / "ruby/vendor_ruby/3.1.0"]  # fmt: skip
        return {"RUBYLIB": ":".join(map(str, library)), "LD_LIBRARY_PATH": str(root / machine)}

    ruby = getting.DEBIAN / "usr/bin/ruby3.1"
    return program("Ruby pg (ours)", get, lambda _: [ruby, "--disable-gems", PROGRAMS / "ruby_pg.rb"], environment)


def php():
    def get():
        getting.debian("php8.2-cli", "php8.2-common", "php8.2-pgsql", "libsodium23", "libargon2-1", "libedit2", "libmagic1")
        return PROGRAMS

    def command(_):
        extensions = [f"-dextension={name}" for name in ("pdo", "pgsql", "pdo_pgsql")]
        folder = getting.DEBIAN / "usr/lib/php/20220829"
        return [getting.DEBIAN / "usr/bin/php8.2", "-n", f"-dextension_dir={folder}", *extensions, PROGRAMS / "php.php"]

    environment = {"LD_LIBRARY_PATH": str(getting.DEBIAN / "usr/lib/x86_64-linux-gnu")}
    return program("PHP (ours)", get, command, lambda _: environment)


def node(name, file, *packages):
    def get():
        folder = getting.node(*packages)
        # Modules are looked for in the folders above the file.
        (folder / file).write_text((PROGRAMS / file).read_text())
        return folder

    return program(f"{name} (ours)", get, lambda _: ["node", file])


def psycopg3():
    def get():
        getting.python("psycopg[binary,pool]")
        return PROGRAMS

    return program("psycopg 3 (ours)", get, lambda _: [getting.PYTHON, PROGRAMS / "psycopg3.py"])


def application(name, get, command):
    """A small application of the shop, by an object-relational mapper."""

    def run(target, _):
        return command(target), target.environment()

    return Suite(name, get, run, outcomes.of_lines, exact=True, seconds=300, short=["all"], sharded=True)


def python_application(name, file, *packages):
    def get():
        getting.python(*packages)
        return APPLICATIONS

    return application(name, get, lambda _: [getting.PYTHON, APPLICATIONS / file])


def node_application(name, file, *packages):
    def get():
        folder = getting.node(*packages)
        (folder / file).write_text((APPLICATIONS / file).read_text())
        return folder

    return application(name, get, lambda _: ["node", file])


def prisma():
    """Its engine for migrations is in no registry: only its client is made, which needs none."""

    def get():
        folder = getting.node("prisma@7", "@prisma/client@7", "@prisma/adapter-pg@7", scripts=False)
        schema = (APPLICATIONS / "prisma_shop.prisma").read_text()
        (folder / "schema.prisma").write_text(schema)
        (folder / "prisma_shop.mjs").write_text((APPLICATIONS / "prisma_shop.mjs").read_text())
        (folder / "prisma.config.ts").write_text('export default { schema: "schema.prisma" };\n')
        here = os.environ | {"PRISMA_SCHEMA_ENGINE_BINARY": "/bin/true", "CHECKPOINT_DISABLE": "1"}
        made = f"Prisma's client {hashlib.sha256(schema.encode()).hexdigest()[:12]}"
        getting.once(made, lambda: getting.run(["npx", "prisma", "generate"], cwd=folder, env=here))
        return folder

    return application("shop by Prisma", get, lambda _: ["node", "prisma_shop.mjs"])


def rust_application(name, program):
    target = getting.FOLDER / "rust"

    def get():
        manifest = APPLICATIONS / "rust/Cargo.toml"
        getting.run(["cargo", "build", "--quiet", "--manifest-path", manifest, "--target-dir", target])
        return APPLICATIONS

    return application(name, get, lambda _: [target / "debug" / program])


APPLICATIONS = pathlib.Path(__file__).resolve().parent / "applications"
PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
DIALECT = ["test/dialect/postgresql", "test/dialect/test_suite.py"]
WIDE = [*DIALECT, "test/engine", "test/sql/test_types.py", "test/sql/test_query.py", "test/sql/test_resultset.py",
        "test/sql/test_returning.py", "test/sql/test_insert_exec.py", "test/sql/test_defaults.py", "test/orm/test_unitofwork.py",
        "test/orm/test_eager_relations.py", "test/orm/test_versioning.py", "test/ext/asyncio"]  # fmt: skip
DJANGO = [
    "aggregation", "annotations", "backends", "basic", "bulk_create", "constraints", "custom_pk", "datatypes", "dates",
    "datetimes", "db_functions", "db_utils", "delete", "distinct_on_fields", "expressions", "expressions_case",
    "expressions_window", "fixtures", "force_insert_update", "get_or_create", "indexes", "inspectdb", "introspection",
    "lookup", "many_to_many", "many_to_one", "migrate_signals", "migrations", "migration_test_data_persistence",
    "model_fields", "multiple_database", "ordering", "postgres_tests", "prefetch_related", "queries", "raw_query",
    "schema", "select_for_update", "select_related", "sessions_tests", "test_utils", "timezones", "transaction_hooks",
    "transactions", "update", "xor_lookups", "cache", "async", "composite_pk", "model_inheritance",
]  # fmt: skip


# By the end of a suite's name and of a test's. A difference that is gone is to be taken out here.
SEEN = "the server's prepared statements are pgweir's, under its names"
KNOWN = {
    "libpq (ours)": {"extended: too few": SEEN},
    "asyncpg": {
        "test_executemany_server_failure_during_writes": "how much is sent before an error comes is a matter of time",
    },
}  # fmt: skip


def all_suites():
    suites = made()
    for suite in suites:
        suite.known = KNOWN.get(suite.name, {})
    return suites


def made():
    return [
        libpq(),
        psycopg3(),
        node("node-postgres", "node_postgres.mjs", "pg@8", "pg-cursor@2", "pg-query-stream@4"),
        node("postgres.js", "postgres_js.mjs", "postgres@3"),
        jdbc(),
        dbd_pg(),
        ruby_pg(),
        php(),
        python_application("shop by SQLAlchemy", "sqlalchemy_shop.py", "sqlalchemy", "psycopg[binary,pool]", "alembic"),
        python_application("shop by Django", "django_shop.py", "django", "psycopg[binary,pool]"),
        node_application("shop by Sequelize", "sequelize_shop.mjs", "sequelize@6", "pg@8", "pg-hstore@2"),
        prisma(),
        rust_application("shop by sqlx", "sqlx_shop"),
        rust_application("shop by Diesel", "diesel_shop"),
        node_application("shop by TypeORM", "typeorm_shop.mjs", "typeorm@0.3", "pg@8", "reflect-metadata"),
        psycopg2(),
        psycopg2_green(),
        asyncpg(),
        pg8000(),
        pygresql(),
        tokio_postgres(),
        lib_pq(False),
        lib_pq(True),
        pgx("pgconn"),
        pgx("pgx/v4"),
        alembic(),
        sqlalchemy("psycopg2", DIALECT),
        sqlalchemy("psycopg", WIDE),
        sqlalchemy("asyncpg", DIALECT),
        sqlalchemy("pg8000", DIALECT),
        django(DJANGO),
    ]
