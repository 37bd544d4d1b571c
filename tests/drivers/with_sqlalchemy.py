"""SQLAlchemy over psycopg2, psycopg and asyncpg: its pool, ORM, streamed results, savepoints, isolation levels, reflection."""
import asyncio

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cases import case, run

OPTIONS = {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True}
ENGINES = [
    sa.create_engine("postgresql+psycopg2://", **OPTIONS),
    sa.create_engine("postgresql+psycopg://", **OPTIONS),
    # Two thresholds: each execution prepared, and none.
    sa.create_engine("postgresql+psycopg://", connect_args={"prepare_threshold": 0}, **OPTIONS),
]


class Base(orm.DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "sa_shelf"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    owner: orm.Mapped[str]
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="shelf", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "sa_book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str] = orm.mapped_column(sa.String(200))
    pages: orm.Mapped[int]
    shelf_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Shelf.id))
    shelf: orm.Mapped[Shelf] = orm.relationship(back_populates="books")


class Nothing:
    """A worker's connection: the engines have pools of their own."""

    def close(self):
        pass


@case
def units_of_work(_, me):
    for engine in ENGINES:
        with orm.Session(engine, expire_on_commit=False) as session, session.begin():
            shelf = Shelf(owner=f"{me}", books=[Book(title=f"{me}.{n}", pages=n) for n in range(50)])
            session.add(shelf)
        with orm.Session(engine) as session:
            found = session.scalars(sa.select(Shelf).where(Shelf.id == shelf.id).options(orm.selectinload(Shelf.books))).one()
            assert sorted(book.pages for book in found.books) == list(range(50))
            assert {book.title.split(".")[0] for book in found.books} == {f"{me}"}
            found.books[0].title = "changed"
            session.flush()
            session.rollback()
            assert session.scalar(sa.select(sa.func.count()).where(Book.shelf_id == found.id, Book.title == "changed")) == 0
            session.delete(found)
            session.commit()


@case
def savepoints_after_an_error(_, me):
    for engine in ENGINES:
        with orm.Session(engine) as session, session.begin():
            session.add(Shelf(owner=f"{me}"))
            try:
                with session.begin_nested():
                    session.execute(sa.text("SELECT 1 / :zero"), {"zero": 0})
                raise AssertionError("no error")
            except sa.exc.DBAPIError:
                pass
            assert session.scalar(sa.text("SELECT CAST(:me AS int)"), {"me": me}) == me


@case
def many_rows_at_once_and_streamed(_, me):
    table = sa.Table(f"sa_rows_{me}", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True), sa.Column("who", sa.Integer))
    for engine in ENGINES:
        table.drop(engine, checkfirst=True)
        table.create(engine)
        with engine.begin() as connection:
            rows = connection.execute(table.insert().returning(table.c.n), [{"n": n, "who": me} for n in range(1500)])
            assert len(rows.all()) == 1500
        with engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=100).execute(sa.select(table).order_by(table.c.n))
            assert list(streamed) == [(n, me) for n in range(1500)]
        with engine.begin() as connection:
            assert connection.execute(table.update().values(who=me + 1)).rowcount == 1500


@case
def isolation_levels_of_their_own(_, me):
    for engine in ENGINES:
        for level in ("SERIALIZABLE", "READ COMMITTED", "AUTOCOMMIT", "REPEATABLE READ"):
            with engine.connect().execution_options(isolation_level=level) as connection:
                shown = connection.scalar(sa.text("SHOW transaction_isolation"))
                assert level == "AUTOCOMMIT" or shown == level.lower(), (level, shown)


@case
def tables_are_reflected(_, me):
    for engine in ENGINES:
        inspector = sa.inspect(engine)
        assert {"sa_shelf", "sa_book"} <= set(inspector.get_table_names())
        assert [key["referred_table"] for key in inspector.get_foreign_keys("sa_book")] == ["sa_shelf"]
        reflected = sa.Table("sa_book", sa.MetaData(), autoload_with=engine)
        assert set(reflected.c.keys()) == {"id", "title", "pages", "shelf_id"}


@case
def asyncpg_under_the_orm(_, me):
    async def work():
        engine = create_async_engine("postgresql+asyncpg://", **OPTIONS)
        sessions = async_sessionmaker(engine, expire_on_commit=False)

        async def one(n):
            async with sessions() as session, session.begin():
                shelf = Shelf(owner=f"{me}.{n}")
                session.add(shelf)
                await session.flush()
                assert await session.scalar(sa.select(Shelf.owner).where(Shelf.id == shelf.id)) == f"{me}.{n}"
            async with engine.connect() as connection:
                rows = await connection.stream(sa.select(sa.func.generate_series(1, 100), sa.literal(me)))
                assert [row async for row in rows] == [(n, me) for n in range(1, 101)]

        await asyncio.gather(*(one(n) for n in range(6)))
        await engine.dispose()

    asyncio.run(work())


Base.metadata.drop_all(ENGINES[0])
Base.metadata.create_all(ENGINES[0])
run(Nothing)
