"""The shop by Django: models, migrations by its schema editor, CRUD by user, atomic blocks, prefetching, aggregates."""

import datetime
import os
import pathlib
import sys
import types
import uuid

import django
from django.conf import settings

# This file is the application: its models are known by name once it is registered.
shop = sys.modules["shop"] = types.ModuleType("shop")
shop.__path__ = [str(pathlib.Path(__file__).parent)]
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"],
        }
    },
    INSTALLED_APPS=["shop"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)  # fmt: skip
django.setup()

from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, models, transaction  # noqa: E402
from django.db.models import Avg, Count, Exists, F, OuterRef, Prefetch, Q, Subquery, Sum  # noqa: E402

ONE, OTHER = 7, 150
THEN = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


def say(label, came):
    print(f"{label} => {came!r}".replace("\n", " "), flush=True)


def attempt(label, work):
    try:
        # A savepoint, so that what is refused does not end the block around it.
        with transaction.atomic():
            say(label, work())
    except DatabaseError as cause:
        inner = cause.__cause__
        say(label, (type(cause).__name__, getattr(inner, "sqlstate", None), str(cause).splitlines()[0]))


class User(models.Model):
    id = models.BigIntegerField(primary_key=True)
    handle = models.TextField()
    email = models.TextField()
    full_name = models.TextField(null=True)
    country = models.CharField(max_length=2)
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    verified = models.BooleanField(default=False)
    interests = ArrayField(models.TextField(), default=list)
    settings = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=THEN)

    class Meta:
        app_label, db_table = "shop", "users"


class Order(models.Model):
    pk = models.CompositePrimaryKey("user_id", "id")
    user = models.ForeignKey(User, models.CASCADE, related_name="orders")
    id = models.BigIntegerField()
    tracking = models.UUIDField()
    status = models.TextField(default="placed")
    total = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3, default="EUR")
    gift = models.BooleanField(default=False)
    placed_at = models.DateTimeField(default=THEN)

    class Meta:
        app_label, db_table = "shop", "orders"


class Post(models.Model):
    pk = models.CompositePrimaryKey("user_id", "id")
    user = models.ForeignKey(User, models.CASCADE, related_name="posts")
    id = models.BigIntegerField()
    public_id = models.UUIDField()
    body = models.TextField()
    tags = ArrayField(models.TextField(), default=list)
    likes = models.IntegerField(default=0)
    visible = models.BooleanField(default=True)
    published_at = models.DateTimeField(default=THEN)

    class Meta:
        app_label, db_table = "shop", "posts"


class Category(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.TextField()
    slug = models.TextField(unique=True)

    class Meta:
        app_label, db_table = "shop", "categories"


class Review(models.Model):
    pk = models.CompositePrimaryKey("user_id", "id")
    user_id = models.BigIntegerField()
    id = models.BigIntegerField()
    body = models.TextField()

    class Meta:
        app_label, db_table = "shop", "reviews"


def fill():
    print("part => filling")
    Category.objects.bulk_create(Category(id=n, name=f"category {n}", slug=f"slug-{n}") for n in (1, 2, 3))
    for number in (ONE, ONE + 1, OTHER, OTHER + 1):
        with transaction.atomic():
            user = User.objects.create(id=number, handle=f"user{number}", email=f"{number}@example.com", country="DE", interests=["a"])
            for n in (1, 2, 3):
                Order.objects.create(user=user, id=n, tracking=uuid.UUID(int=number * 100 + n), total=n * 5)
            Post.objects.bulk_create([Post(user=user, id=n, public_id=uuid.UUID(int=number * 1000 + n), body=f"post {n}") for n in (1, 2)])
        say("user", (user.pk, user.balance))
    attempt("bulk on both", lambda: len(User.objects.bulk_create([
        User(id=n, handle="bulk", email="b", country="FR") for n in (40, 140)])))  # fmt: skip
    attempt("gone", lambda: User.objects.filter(id__in=[40, 140]).delete())


def one_user():
    print("part => one user")
    for number in (ONE, OTHER):
        user = User.objects.get(pk=number)
        say("get", (user.handle, user.balance, user.interests, user.settings))
        attempt("no such", lambda: User.objects.filter(pk=number, handle="nobody").first())
        say("related", list(user.orders.order_by("id").values_list("id", "status", "total")))
        say("exists", user.orders.filter(total__gt=10).exists())
        say("count", user.orders.count())
        say("last", user.orders.order_by("id").last().pk)
        say("aggregate", user.orders.aggregate(Sum("total"), Avg("total"), Count("id")))
        say("grouped", list(user.orders.values("status").annotate(n=Count("id")).order_by("status")))
        say("joined", [(order.id, order.user.handle) for order in Order.objects.select_related("user").filter(user_id=number).order_by("id")])
        say("prefetched", [len(user.orders.all()) + len(user.posts.all()) for user in User.objects.filter(pk=number).prefetch_related("orders", "posts")])
        say("get or create", Post.objects.get_or_create(user=user, id=9, defaults={"public_id": uuid.UUID(int=number), "body": "made"})[1])
        say("again", Post.objects.get_or_create(user=user, id=9, defaults={"public_id": uuid.UUID(int=number), "body": "made"})[1])
        say("update or create", Post.objects.update_or_create(user=user, id=9, defaults={"body": "changed", "public_id": uuid.UUID(int=number)})[1])
        user.full_name = "Updated"
        user.save()
        user.save(update_fields=["settings"])
        say("updated", User.objects.filter(pk=number).update(balance=F("balance") + 5))
        user.refresh_from_db()
        say("refreshed", (user.full_name, user.balance))
        with transaction.atomic():
            say("locked", User.objects.select_for_update().get(pk=number).pk)
        attempt("only", lambda: User.objects.only("handle").get(pk=number).email)
        say("values", list(User.objects.filter(pk=number).values("handle", "country")))
        say("json", User.objects.filter(pk=number, settings__theme="dark").count())
        say("array", User.objects.filter(pk=number, interests__contains=["a"]).count())
        say("deleted", Order.objects.filter(user_id=number, id=3).delete())
        say("raw", [user.handle for user in User.objects.raw("select id, handle from users where id = %s", [number])])
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from posts where user_id = %s", [number])
            say("cursor", cursor.fetchone())
        say("iterated", [post.id for post in Post.objects.filter(user_id=number).order_by("id").iterator(chunk_size=2)])


def transactions():
    print("part => transactions")
    try:
        with transaction.atomic():
            User.objects.filter(pk=ONE).update(balance=1)
            User.objects.filter(pk=OTHER).update(balance=1)
            raise ZeroDivisionError
    except ZeroDivisionError:
        say("neither", list(User.objects.filter(pk__in=[ONE, OTHER]).order_by("pk").values_list("balance", flat=True)))
    with transaction.atomic():
        User.objects.filter(pk=ONE).update(balance=2)
        User.objects.filter(pk=OTHER).update(balance=2)
        try:
            with transaction.atomic():
                User.objects.create(pk=ONE, handle="twice", email="t", country="DE")
        except IntegrityError as cause:
            say("nested", cause.__cause__.sqlstate)
    say("both", list(User.objects.filter(pk__in=[ONE, OTHER]).order_by("pk").values_list("balance", flat=True)))
    heard = []
    with transaction.atomic():
        transaction.on_commit(lambda: heard.append("committed"))
        User.objects.filter(pk=ONE).update(balance=3)
    say("hook", heard)


def all_users():
    print("part => all users")
    say("ordered", list(User.objects.order_by("pk").values_list("pk", flat=True)))
    say("page", list(User.objects.order_by("-pk").values_list("pk", flat=True)[1:3]))
    say("count", User.objects.count())
    attempt("distinct", lambda: list(User.objects.order_by("country").values_list("country", flat=True).distinct()))
    attempt("count of distinct", lambda: User.objects.values("country").distinct().count())
    attempt("sliced count", lambda: User.objects.order_by("pk")[:2].count())
    attempt("prefetched", lambda: [(user.pk, len(user.orders.all())) for user in User.objects.order_by("pk").prefetch_related("orders")])
    attempt("prefetched by a query", lambda: [
        (user.pk, len(user.cheap)) for user in User.objects.order_by("pk").prefetch_related(
            Prefetch("orders", Order.objects.filter(total__lt=10), to_attr="cheap"))])  # fmt: skip
    attempt("annotated", lambda: list(User.objects.annotate(n=Count("orders")).order_by("pk").values_list("pk", "n")))
    attempt("joined", lambda: list(Order.objects.filter(user__country="DE", id=1).order_by("user_id").values_list("user_id", flat=True)))
    attempt("exists", lambda: list(User.objects.filter(Exists(Order.objects.filter(user=OuterRef("pk"), total__gt=5))).order_by("pk").values_list("pk", flat=True)))
    attempt("subquery", lambda: list(User.objects.annotate(
        last=Subquery(Order.objects.filter(user=OuterRef("pk")).order_by("-id").values("id")[:1])).order_by("pk").values_list("pk", "last")))  # fmt: skip
    attempt("either", lambda: list(User.objects.filter(Q(pk=ONE) | Q(pk=OTHER)).order_by("pk").values_list("pk", flat=True)))
    attempt("dates", lambda: list(Order.objects.dates("placed_at", "month")))
    attempt("earliest", lambda: Order.objects.earliest("placed_at", "user_id", "id").pk)
    attempt("in bulk", lambda: sorted(User.objects.in_bulk([ONE, OTHER])))
    attempt("sum", lambda: Order.objects.aggregate(Sum("total"), Count("id")))
    attempt("updated", lambda: Post.objects.filter(likes=0).update(likes=1))
    attempt("union", lambda: sorted(User.objects.values_list("pk").union(Order.objects.values_list("id"))))


def migrations():
    print("part => migrations")
    with connection.schema_editor() as editor:
        editor.create_model(Review)
    for number in (ONE, OTHER):
        Review.objects.create(user_id=number, id=1, body="fine")
    stars = models.IntegerField(default=5)
    stars.set_attributes_from_name("stars")
    stars.model = Review
    with connection.schema_editor() as editor:
        editor.add_field(Review, stars)
    with connection.schema_editor() as editor:
        editor.add_index(Review, models.Index(fields=["body"], name="reviews_body"))
    with connection.cursor() as cursor:
        cursor.execute("select user_id, stars from reviews order by user_id")
        say("made", cursor.fetchall())
        say("tables", sorted(table.name for table in connection.introspection.get_table_list(cursor) if table.name in ("orders", "reviews")))
        say("columns", [column.name for column in connection.introspection.get_table_description(cursor, "reviews")])
        constraints = connection.introspection.get_constraints(cursor, "reviews")
        say("constraints", sorted(name for name in constraints))
        say("relations", sorted(connection.introspection.get_relations(cursor, "orders")))
    with connection.schema_editor() as editor:
        editor.remove_field(Review, stars)
    with connection.schema_editor() as editor:
        editor.delete_model(Review)
    say("gone", "reviews" in connection.introspection.table_names())
    from django.db.migrations.recorder import MigrationRecorder
    recorder = MigrationRecorder(connection)
    attempt("recorder", lambda: (recorder.ensure_schema(), recorder.record_applied("shop", "0001"), sorted(recorder.applied_migrations()))[2])
    with connection.schema_editor() as editor:
        attempt("no recorder", lambda: editor.delete_model(recorder.Migration))


def deleting():
    print("part => deleting")
    say("user", User.objects.get(pk=ONE).delete())
    say("posts", Post.objects.filter(user_id=OTHER).delete())
    say("left", list(Order.objects.order_by("user_id", "id").values_list("user_id", "id")))


fill()
one_user()
transactions()
all_users()
migrations()
deleting()
