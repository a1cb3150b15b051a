"""The shop by SQLAlchemy and Alembic: models, migrations, CRUD by user, transactions, eager loading, aggregates."""

import contextlib
import datetime
import decimal
import os
import uuid

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import (
    DeclarativeBase, Mapped, Session, contains_eager, joinedload, mapped_column, relationship, selectinload, sessionmaker,
    subqueryload,
)  # fmt: skip

# On either shard.
ONE, OTHER = 7, 150
THEN = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


def say(label, came):
    print(f"{label} => {came!r}".replace("\n", " "), flush=True)


def attempt(label, work, session=None):
    """In a savepoint of the session, so that what is refused does not end its transaction."""
    try:
        with session.begin_nested() if session else contextlib.nullcontext():
            say(label, work())
    except sa.exc.SQLAlchemyError as cause:
        inner = getattr(cause, "orig", None)
        say(label, (type(cause).__name__, getattr(inner, "sqlstate", None), str(inner or cause).splitlines()[0]))


class Base(DeclarativeBase):
    pass


class Category(Base):
    __tablename__ = "categories"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str]


class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[uuid.UUID]
    category_id: Mapped[int] = mapped_column(sa.ForeignKey("categories.id"))
    name: Mapped[str]
    price: Mapped[decimal.Decimal]
    created_at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    category: Mapped[Category] = relationship()


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    handle: Mapped[str]
    email: Mapped[str]
    full_name: Mapped[str | None]
    country: Mapped[str] = mapped_column(sa.CHAR(2))
    balance: Mapped[decimal.Decimal] = mapped_column(server_default="0")
    interests: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), server_default="{}")
    settings: Mapped[dict] = mapped_column(JSONB, server_default="{}")
    created_at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    orders: Mapped[list["Order"]] = relationship(back_populates="user", cascade="all, delete-orphan", order_by="Order.id")
    posts: Mapped[list["Post"]] = relationship(cascade="all, delete-orphan", order_by="Post.id")


class Order(Base):
    __tablename__ = "orders"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    tracking: Mapped[uuid.UUID]
    status: Mapped[str] = mapped_column(server_default="placed")
    total: Mapped[decimal.Decimal]
    placed_at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    user: Mapped[User] = relationship(back_populates="orders")
    items: Mapped[list["Item"]] = relationship(cascade="all, delete-orphan", order_by="Item.line")


class Item(Base):
    __tablename__ = "order_items"
    user_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    line: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    product_id: Mapped[int] = mapped_column(sa.ForeignKey("products.id"))
    quantity: Mapped[int]
    unit_price: Mapped[decimal.Decimal]
    product: Mapped[Product] = relationship()
    __table_args__ = (sa.ForeignKeyConstraint(["user_id", "order_id"], ["orders.user_id", "orders.id"]),)


class Post(Base):
    __tablename__ = "posts"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    public_id: Mapped[uuid.UUID]
    body: Mapped[str]
    likes: Mapped[int] = mapped_column(server_default="0")


def fill(sessions):
    print("part => filling")
    with sessions.begin() as session:
        session.add_all(Category(id=n, name=f"category {n}", slug=f"slug-{n}") for n in (1, 2))
        session.flush()
        session.add_all(
            Product(id=n, sku=uuid.UUID(int=n), category_id=1 + n % 2, name=f"product {n}", price=n * 10, created_at=THEN)
            for n in range(1, 6)
        )
    for number in (ONE, ONE + 1, OTHER, OTHER + 1):
        with sessions.begin() as session:
            user = User(id=number, handle=f"user{number}", email=f"{number}@example.com", country="DE", interests=["a", "b"])
            user.orders = [
                Order(id=n, tracking=uuid.UUID(int=number * 100 + n), total=n * 5, placed_at=THEN, items=[
                    Item(line=line, product_id=line, quantity=line, unit_price=3) for line in range(1, n + 1)
                ])
                for n in (1, 2, 3)
            ]  # fmt: skip
            user.posts = [Post(id=n, public_id=uuid.UUID(int=number * 1000 + n), body=f"post {n}") for n in (1, 2)]
            session.add(user)
            session.flush()
            say("user", (user.id, user.balance, [order.status for order in user.orders]))


def one_user(sessions):
    print("part => one user")
    for number in (ONE, OTHER):
        with sessions() as session:
            user = session.get(User, number)
            say("get", (user.handle, user.balance, user.interests, user.settings))
            say("lazy", [(order.id, order.status, [item.product.name for item in order.items]) for order in user.orders])
        with sessions() as session:
            for loading in (joinedload, selectinload, subqueryload):
                query = sa.select(User).where(User.id == number).options(loading(User.orders).options(loading(Order.items)))
                session.expunge_all()
                attempt(loading.__name__, lambda: [len(order.items) for order in session.scalars(query).unique().one().orders], session)
            query = sa.select(Order).join(Order.items).join(Item.product).where(Order.user_id == number, Item.user_id == number)
            query = query.options(contains_eager(Order.items).contains_eager(Item.product)).order_by(Order.id, Item.line)
            attempt("joined", lambda: [[item.product.name for item in order.items] for order in session.scalars(query).unique()], session)
        with sessions.begin() as session:
            user = session.get(User, number)
            user.full_name = "Updated"
            user.settings = {"theme": "dark"}
            user.orders.append(Order(id=4, tracking=uuid.UUID(int=number * 100 + 4), total=1))
            session.delete(user.orders[0])
        with sessions() as session:
            say("after", session.execute(sa.select(User.full_name, User.settings).where(User.id == number)).one())
            orders = sa.select(Order.id).where(Order.user_id == number).order_by(Order.id)
            say("orders", session.scalars(orders).all())
            say("first", session.scalars(orders.limit(1)).first())
            say("one or none", session.scalars(orders.where(Order.id == 99)).one_or_none())
            say("exists", session.scalar(sa.select(sa.exists().where(Order.user_id == number))))
            counted = sa.select(sa.func.count()).select_from(sa.select(Order).where(Order.user_id == number).subquery())
            say("counted", session.scalar(counted))
            status = sa.select(Order.status, sa.func.count(), sa.func.sum(Order.total)).where(Order.user_id == number).group_by(Order.status)
            say("grouped", session.execute(status).all())
            say("locked", session.scalars(sa.select(User.id).where(User.id == number).with_for_update()).one())
            window = sa.select(Order.id, sa.func.row_number().over(order_by=Order.total.desc())).where(Order.user_id == number)
            say("window", session.execute(window.order_by(Order.id)).all())
            session.rollback()


def transactions(sessions):
    print("part => transactions")
    with sessions() as session:
        session.add(User(id=20, handle="temporary", email="t", country="FR"))
        session.flush()
        session.rollback()
        say("rolled back", session.get(User, 20))
    with sessions.begin() as session:
        session.add(User(id=21, handle="outer", email="o", country="FR"))
        session.flush()
        try:
            with session.begin_nested():
                session.add(User(id=ONE, handle="twice", email="o", country="FR"))
        except sa.exc.IntegrityError as cause:
            say("nested", cause.orig.sqlstate)
    with sessions.begin() as session:
        say("kept", session.get(User, 21).handle)
        session.execute(sa.delete(User).where(User.id == 21))
    with sessions.begin() as session:
        for number in (ONE, OTHER):
            session.execute(sa.update(User).where(User.id == number).values(balance=User.balance + 5))
    with sessions() as session:
        both = sa.select(User.id, User.balance).where(User.id.in_([ONE, OTHER])).order_by(User.id)
        say("both shards", session.execute(both).all())
        session.execute(sa.update(User).where(User.id == ONE).values(balance=0))
        session.execute(sa.update(User).where(User.id == OTHER).values(balance=0))
        session.rollback()
        say("neither", session.execute(both).all())
        statement = insert(User).values(id=ONE, handle="upsert", email="u", country="JP").on_conflict_do_update(
            index_elements=[User.id], set_={"handle": "upserted"}
        )
        say("upsert", session.execute(statement.returning(User.handle)).all())
        many = sa.insert(User).returning(User.id, sort_by_parameter_order=True)
        attempt("many", lambda: session.scalars(many, [{"id": n, "handle": "m", "email": "m", "country": "DE"} for n in (30, 31, 32)]).all(), session)
        session.rollback()
        attempt("many on both", lambda: sorted(session.scalars(sa.insert(User).returning(User.id), [
            {"id": n, "handle": "m", "email": "m", "country": "DE", "balance": 0, "interests": [], "settings": {}, "created_at": THEN}
            for n in (40, 140)
        ])), session)  # fmt: skip
        session.rollback()
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        say("serializable", session.get(User, OTHER).handle)
        say("level", session.scalar(sa.text("show transaction_isolation")))


def all_users(sessions):
    print("part => all users")
    with sessions() as session:
        say("ordered", session.scalars(sa.select(User.id).order_by(User.id)).all())
        say("page", session.scalars(sa.select(User.id).order_by(User.id.desc()).limit(2).offset(1)).all())
        say("count", session.scalar(sa.select(sa.func.count(User.id))))
        attempt("count of a subquery", lambda: session.scalar(sa.select(sa.func.count()).select_from(sa.select(User).subquery())), session)
        attempt("distinct", lambda: session.scalars(sa.select(User.country).distinct().order_by(User.country)).all(), session)
        attempt("grouped", lambda: session.execute(sa.select(Order.status, sa.func.count()).group_by(Order.status).order_by(Order.status)).all(), session)
        attempt("joined on the user", lambda: session.execute(
            sa.select(User.id, sa.func.count(Order.id)).join(Order).group_by(User.id).order_by(User.id)).all(), session)
        attempt("eager", lambda: [
            (user.id, len(user.orders)) for user in session.scalars(sa.select(User).options(selectinload(User.orders)).order_by(User.id))], session)
        session.expunge_all()
        attempt("eager by a join", lambda: [
            (user.id, len(user.posts)) for user in session.scalars(sa.select(User).options(joinedload(User.posts)).order_by(User.id)).unique()], session)
        attempt("in a subquery", lambda: session.scalars(
            sa.select(User.id).where(User.id.in_(sa.select(Order.user_id).where(Order.total > 10))).order_by(User.id)).all(), session)
        attempt("streamed", lambda: len(session.scalars(sa.select(Order), execution_options={"yield_per": 2}).all()), session)
        attempt("union", lambda: sorted(session.scalars(sa.union_all(sa.select(User.id), sa.select(Order.id)))), session)
        say("products", session.scalars(sa.select(Product.name).join(Product.category).where(Category.slug == "slug-1").order_by(Product.id)).all())


def migrations(engine):
    print("part => migrations")
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        operations.create_table(
            "reviews", sa.Column("user_id", sa.BigInteger, nullable=False), sa.Column("id", sa.BigInteger, nullable=False),
            sa.Column("body", sa.Text), sa.PrimaryKeyConstraint("user_id", "id", name="reviews_pkey"),
        )  # fmt: skip
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        operations.add_column("reviews", sa.Column("stars", sa.Integer, server_default="5", nullable=False))
        operations.create_index("reviews_stars", "reviews", ["stars"])
    with engine.begin() as connection:
        connection.execute(sa.text("insert into reviews (user_id, id, body) values (:user, 1, 'fine')"), [{"user": ONE}])
        connection.execute(sa.text("insert into reviews (user_id, id, body) values (:user, 1, 'good')"), [{"user": OTHER}])
        say("made", connection.execute(sa.text("select user_id, stars from reviews order by user_id")).all())
    inspector = sa.inspect(engine)
    say("columns", [(column["name"], str(column["type"])) for column in inspector.get_columns("reviews")])
    say("indexes", [index["name"] for index in inspector.get_indexes("reviews")])
    say("key", inspector.get_pk_constraint("orders")["constrained_columns"])
    say("foreign keys", sorted(key["referred_table"] for key in inspector.get_foreign_keys("order_items")))
    with engine.begin() as connection:
        Operations(MigrationContext.configure(connection)).drop_table("reviews")
    say("gone", sa.inspect(engine).has_table("reviews"))
    extra = sa.MetaData()
    sa.Table("visits", extra, sa.Column("user_id", sa.BigInteger, primary_key=True), sa.Column("at", sa.DateTime))
    attempt("create all", lambda: extra.create_all(engine))
    say("there", sa.inspect(engine).has_table("visits"))
    attempt("drop all", lambda: extra.drop_all(engine))
    reflected = sa.MetaData()
    reflected.reflect(engine, only=["users", "orders"])
    say("reflected", sorted(column.name for column in reflected.tables["orders"].columns))
    with engine.connect() as connection:
        version = MigrationContext.configure(connection)
        attempt("version table", lambda: (version._ensure_version_table(), connection.commit(), version.get_current_heads()))
        connection.rollback()
        connection.execute(sa.text("drop table if exists alembic_version"))
        connection.commit()


def deleting(sessions):
    print("part => deleting")
    with sessions.begin() as session:
        session.delete(session.get(User, ONE))
        session.execute(sa.delete(Post).where(Post.user_id == OTHER))
    with sessions() as session:
        say("orders", session.scalars(sa.select(Order.user_id).distinct().order_by(Order.user_id)).all())
        say("posts", session.scalar(sa.select(sa.func.count()).select_from(Post)))


def main():
    url = sa.URL.create(
        "postgresql+psycopg", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"],
        int(os.environ["PGPORT"]), os.environ["PGDATABASE"],
    )  # fmt: skip
    # One connection: what a session of the application wrote, its next one sees at once.
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
    sessions = sessionmaker(engine, class_=Session)
    fill(sessions)
    one_user(sessions)
    transactions(sessions)
    all_users(sessions)
    engine.dispose()
    migrations(engine)
    deleting(sessions)


main()
