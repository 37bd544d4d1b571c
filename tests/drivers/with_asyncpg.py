"""asyncpg: its cache of prepared statements, type introspection, portals, binary COPY, transactions, notifications, its pool."""
import asyncio
import io

import asyncpg

from cases import case, case_of_a_session, run_async


async def connect(**more):
    return await asyncpg.connect(**more)


async def raises(error, awaitable):
    try:
        await awaitable
    except error as seen:
        return seen
    raise AssertionError(f"no {error.__name__}")


@case
async def fetches_with_the_statement_cache(connection, me):
    for turn in range(20):
        assert await connection.fetchval("SELECT $1::int + 1", me * 100 + turn) == me * 100 + turn + 1
        row = await connection.fetchrow("SELECT $1::text AS who, $2::numeric AS n", f"{me}", turn)
        assert row["who"] == f"{me}" and row["n"] == turn
    assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"
    assert len(await connection.fetch("SELECT n FROM generate_series(1, $1) n", 3000)) == 3000


@case
async def small_and_no_caches(_, me):
    for size in (0, 1, 2):
        connection = await connect(statement_cache_size=size)
        for turn in range(12):
            assert await connection.fetchval(f"SELECT $1::int + {turn % 4}", me) == me + turn % 4
        await connection.close()


@case
async def statements_prepared_by_hand(connection, me):
    statement = await connection.prepare("SELECT n, $1::int AS who FROM generate_series(1, 10) n")
    assert [attribute.name for attribute in statement.get_attributes()] == ["n", "who"]
    for _ in range(5):
        assert [row["who"] for row in await statement.fetch(me)] == [me] * 10
    assert "Plan" in (await statement.explain(me))[0]
    named = await connection.prepare("SELECT $1::text", name=f"mine_{me}")
    assert await named.fetchval("x") == "x" and named.get_name() == f"mine_{me}"


@case
async def errors_keep_the_connection(connection, me):
    await raises(asyncpg.DivisionByZeroError, connection.fetchval("SELECT 1 / $1::int", 0))
    await raises(asyncpg.UndefinedTableError, connection.fetch("SELECT nothing FROM nowhere WHERE x = $1", 1))
    await raises(asyncpg.PostgresSyntaxError, connection.execute("SELEKT 1"))
    await raises(asyncpg.DataError, connection.fetchval("SELECT $1::int", "no number"))
    assert await connection.fetchval("SELECT $1::int", me) == me


@case
async def transactions_and_savepoints(connection, me):
    await connection.execute(f"DROP TABLE IF EXISTS asyncpg_{me}; CREATE TABLE asyncpg_{me} (n int)")
    async with connection.transaction(isolation="serializable"):
        await connection.execute(f"INSERT INTO asyncpg_{me} VALUES ($1)", 1)
        try:
            async with connection.transaction():
                await connection.execute(f"INSERT INTO asyncpg_{me} VALUES ($1)", 2)
                await connection.fetchval("SELECT 1 / $1::int", 0)
        except asyncpg.DivisionByZeroError:
            pass
        assert connection.is_in_transaction()
    rows = await connection.fetch(f"SELECT n FROM asyncpg_{me}")
    assert [row["n"] for row in rows] == [1] and not connection.is_in_transaction()


@case
async def cursors_are_portals(connection, me):
    async with connection.transaction():
        seen = [row["n"] async for row in connection.cursor("SELECT n + $1 AS n FROM generate_series(1, 500) n", me, prefetch=33)]
        assert seen == [n + me for n in range(1, 501)]
        cursor = await connection.cursor("SELECT n + $1 AS n FROM generate_series(1, 100) n", me)
        assert (await cursor.fetchrow())["n"] == 1 + me
        assert await cursor.forward(10) == 10
        assert [row["n"] for row in await cursor.fetch(2)] == [12 + me, 13 + me]
    try:
        async for _ in connection.cursor("SELECT 1"):
            raise AssertionError("no error")
    except asyncpg.NoActiveSQLTransactionError:
        pass
    except asyncpg.InterfaceError:
        pass


@case
async def copies(connection, me):
    await connection.execute(f"DROP TABLE IF EXISTS pgcopied_{me}; CREATE TABLE pgcopied_{me} (n int, who text)")
    records = [(n, f"{me}") for n in range(5000)]
    assert await connection.copy_records_to_table(f"pgcopied_{me}", records=records) == "COPY 5000"
    out = io.BytesIO()
    assert await connection.copy_from_table(f"pgcopied_{me}", output=out, format="csv") == "COPY 5000"
    assert all(line.endswith(b",%d" % me) for line in out.getvalue().splitlines())
    out = io.BytesIO()
    await connection.copy_from_query("SELECT $1::text", f"q{me}", output=out)
    assert out.getvalue() == b"q%d\n" % me
    bad = io.BytesIO(b"1,a\nx,b\n")
    await raises(asyncpg.InvalidTextRepresentationError, connection.copy_to_table(f"pgcopied_{me}", source=bad, format="csv"))

    async def breaks():
        yield b"1,a\n"
        raise ValueError("changed my mind")

    await raises(ValueError, connection.copy_to_table(f"pgcopied_{me}", source=breaks(), format="csv"))
    assert await connection.fetchval(f"SELECT count(*) FROM pgcopied_{me} WHERE who = $1", f"{me}") == 5000


@case
async def executemany(connection, me):
    await connection.execute(f"DROP TABLE IF EXISTS pgmany_{me}; CREATE TABLE pgmany_{me} (n int primary key)")
    await connection.executemany(f"INSERT INTO pgmany_{me} VALUES ($1)", [(n,) for n in range(1000)])
    doubled = [(n,) for n in range(995, 1010)]
    await raises(asyncpg.UniqueViolationError, connection.executemany(f"INSERT INTO pgmany_{me} VALUES ($1)", doubled))
    assert await connection.fetchval(f"SELECT count(*) FROM pgmany_{me}") == 1000


@case
async def custom_types_are_looked_up(_, me):
    connection = await connect()
    await connection.execute(f"DROP TYPE IF EXISTS pair_{me}; CREATE TYPE pair_{me} AS (a int, b text)")
    assert tuple(await connection.fetchval(f"SELECT $1::pair_{me}", (me, "b"))) == (me, "b")
    assert await connection.fetchval(f"SELECT ARRAY[$1::pair_{me}]", (me, "b")) == [(me, "b")]
    await connection.set_type_codec("json", encoder=str, decoder=lambda text: ("decoded", text), schema="pg_catalog")
    assert await connection.fetchval("SELECT '1'::json") == ("decoded", "1")
    await connection.reload_schema_state()
    assert await connection.fetchval(f"SELECT ($1::pair_{me}).a", (me, "b")) == me
    assert await connection.fetchval("SHOW jit") == await connection.fetchval("SELECT boot_val FROM pg_settings WHERE name = 'jit'")
    await connection.close()


@case
async def settings_given_at_connect(_, me):
    settings = {"application_name": f"asyncpg {me}", "search_path": "pg_catalog", "statement_timeout": f"{6000 + me}"}
    connection = await connect(server_settings=settings)
    for _ in range(5):
        assert await connection.fetchval("SHOW application_name") == f"asyncpg {me}"
        assert await connection.fetchval("SHOW search_path") == "pg_catalog"
        assert await connection.fetchval("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'") == f"{6000 + me}"
    assert connection.get_settings().application_name == f"asyncpg {me}"
    await connection.close()


@case
async def a_timeout_cancels_the_query(connection, me):
    await raises(asyncio.TimeoutError, connection.fetchval("SELECT pg_sleep(20)", timeout=0.15))
    assert await connection.fetchval("SELECT $1::int", me) == me


@case
async def its_pool_resets_what_it_gives_back(_, me):
    async with asyncpg.create_pool(min_size=1, max_size=3) as pool:

        async def ask(n):
            async with pool.acquire() as connection:
                return await connection.fetchval("SELECT $1::int", n)

        assert await asyncio.gather(*(ask(me * 100 + n) for n in range(20))) == [me * 100 + n for n in range(20)]


@case
async def it_is_greeted_with_the_servers_words(_, me):
    # It asks for 'utf-8', quotes included.
    fresh = await connect()
    assert fresh.get_settings().client_encoding == "UTF8", fresh.get_settings()
    await fresh.close()


@case
async def notifications_arrive(connection, me):
    listener = await connect()
    seen = asyncio.Queue()
    await listener.add_listener(f"pgnews_{me}", lambda _connection, _pid, channel, payload: seen.put_nowait((channel, payload)))
    for turn in range(3):
        await connection.execute("SELECT pg_notify($1, $2)", f"pgnews_{me}", f"{turn}")
    for turn in range(3):
        assert await asyncio.wait_for(seen.get(), 10) == (f"pgnews_{me}", f"{turn}")
    await listener.execute("UNLISTEN *")
    await listener.close()


@case
async def a_table_that_changes_under_its_statement(connection, me):
    await connection.execute(f"DROP TABLE IF EXISTS changing_{me}; CREATE TABLE changing_{me} (a int)")
    await connection.execute(f"INSERT INTO changing_{me} VALUES ({me})")
    for column in "bcd":
        rows = await connection.fetch(f"SELECT * FROM changing_{me}")
        assert rows[0]["a"] == me
        await connection.execute(f"ALTER TABLE changing_{me} ADD COLUMN {column} int DEFAULT {me}")
        # asyncpg prepares again by itself outside a transaction.
        rows = await connection.fetch(f"SELECT * FROM changing_{me}")
        assert rows[0][column] == me, rows


run_async(connect)
