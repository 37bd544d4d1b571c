"""psycopg 3 under asyncio: the same connection from many tasks, pipelines, COPY, cursors, cancelled tasks."""
import asyncio

import psycopg
from psycopg import errors

from cases import case, run_async


async def connect(**more):
    return await psycopg.AsyncConnection.connect("", autocommit=True, prepare_threshold=1, **more)


async def one(connection, query, parameters=None):
    return await (await connection.execute(query, parameters)).fetchone()


@case
async def tasks_share_a_connection(connection, me):
    async def ask(n):
        return await one(connection, "SELECT %s::int", (me * 1000 + n,))

    assert await asyncio.gather(*(ask(n) for n in range(30))) == [(me * 1000 + n,) for n in range(30)]


@case
async def pipelines(connection, me):
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int, repeat('x', 3000)", (me * 100 + n,)) for n in range(100)]
        assert [(await cursor.fetchone())[0] for cursor in cursors] == [me * 100 + n for n in range(100)]


@case
async def a_pipeline_whose_transaction_fails(connection, me):
    try:
        async with connection.pipeline(), connection.transaction():
            await connection.execute("SELECT %s::int", (me,))
            await connection.execute("SELECT 1 / %s::int", (0,))
            await connection.execute("SELECT 2")
        raise AssertionError("no error")
    except errors.DivisionByZero:
        pass
    assert await one(connection, "SELECT %s::int", (me,)) == (me,)


@case
async def copies(connection, me):
    await connection.execute(f"DROP TABLE IF EXISTS acopied_{me}")
    await connection.execute(f"CREATE TABLE acopied_{me} (n int, who int)")
    cursor = connection.cursor()
    async with cursor.copy(f"COPY acopied_{me} FROM STDIN") as copy:
        for n in range(3000):
            await copy.write_row((n, me))
    async with cursor.copy(f"COPY acopied_{me} TO STDOUT") as copy:
        rows = [row async for row in copy.rows()]
    assert len(rows) == 3000 and all(who == str(me) for _, who in rows)


@case
async def server_side_cursors(connection, me):
    async with connection.transaction(), connection.cursor(f"async_{me}") as cursor:
        await cursor.execute("SELECT n + %s FROM generate_series(1, 500) n", (me,))
        assert await cursor.fetchmany(10) == [(n + me,) for n in range(1, 11)]
        assert len(await cursor.fetchall()) == 490


@case
async def a_task_that_is_cancelled_cancels_its_query(connection, me):
    task = asyncio.create_task(one(connection, "SELECT pg_sleep(20)"))
    await asyncio.sleep(0.15)
    task.cancel()
    try:
        await task
        raise AssertionError("no error")
    except (asyncio.CancelledError, errors.QueryCanceled):
        pass
    assert await one(connection, "SELECT %s::int", (me,)) == (me,)


@case
async def nested_transactions(connection, me):
    async with connection.transaction():
        assert await one(connection, "SELECT %s::int", (me,)) == (me,)
        try:
            async with connection.transaction():
                await connection.execute("SELECT nothing FROM nowhere")
        except errors.UndefinedTable:
            pass
        assert await one(connection, "SELECT %s::int + 1", (me,)) == (me + 1,)


@case
async def notifications_arrive(connection, me):
    async with await connect() as listener:
        await listener.execute(f"LISTEN anews_{me}")
        await connection.execute("SELECT pg_notify(%s, 'one')", (f"anews_{me}",))
        seen = [notify.payload async for notify in listener.notifies(timeout=10, stop_after=1)]
        assert seen == ["one"], seen
        await listener.execute("UNLISTEN *")


run_async(connect)
