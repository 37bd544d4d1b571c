"""psycopg 3: prepared statements at every threshold, pipelines, COPY, server-side cursors, single rows, notifications."""
import threading

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo, register_enum

from cases import case, run

listening = threading.Lock()


def connect(**more):
    return psycopg.connect("", autocommit=True, **more)


@case
def prepares_from_the_given_execution_on(_, me):
    for threshold in (0, 1, 5, None):
        with connect(prepare_threshold=threshold) as connection:
            for turn in range(12):
                row = connection.execute("SELECT %s::int + 1, %s::text", (me * 100 + turn, f"{me}")).fetchone()
                assert row == (me * 100 + turn + 1, f"{me}")
            if threshold is not None:
                # Parameters of other types are another statement.
                assert connection.execute("SELECT %s::int + 1, %s::text", (2**40 and None, None)).fetchone() == (None, None)


@case
def evicts_prepared_statements(_, me):
    with connect(prepare_threshold=0) as connection:
        connection.prepared_max = 2
        for turn in range(20):
            assert connection.execute(f"SELECT %s::int + {turn % 5}", (me,)).fetchone() == (me + turn % 5,)
        connection.execute("DEALLOCATE ALL")
        for turn in range(5):
            assert connection.execute(f"SELECT %s::int + {turn}", (me,)).fetchone() == (me + turn,)


@case
def a_statement_prepared_in_a_transaction_that_fails(_, me):
    with connect(prepare_threshold=0) as connection:
        for turn in range(4):
            try:
                with connection.transaction():
                    assert connection.execute("SELECT %s::int * 2", (me,)).fetchone() == (me * 2,)
                    connection.execute("SELECT 1 / %s::int", (0,))
            except errors.DivisionByZero:
                pass
            assert connection.execute("SELECT %s::int * 2", (me,)).fetchone() == (me * 2,)
            assert connection.execute("SELECT 4 / %s::int", (2,)).fetchone() == (2,)


@case
def statements_that_cannot_be_prepared_say_so(connection, me):
    for prepare in (True, False):
        try:
            connection.execute("SELECT nothing FROM nowhere WHERE x = %s", (me,), prepare=prepare)
            raise AssertionError("no error")
        except errors.UndefinedTable as error:
            assert error.diag.statement_position == "21", error.diag.statement_position
    assert connection.execute("SELECT %s", (me,)).fetchone() == (me,)


@case
def pipelines(connection, me):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (me * 1000 + n,)) for n in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == [me * 1000 + n for n in range(50)]
    with connection.pipeline() as pipeline, connection.transaction():
        connection.execute("SET LOCAL work_mem = '5MB'")
        pipeline.sync()
        cursor = connection.execute("SHOW work_mem")
        assert cursor.fetchone() == ("5MB",)


@case
def a_pipeline_with_an_error_aborts_up_to_its_sync(connection, me):
    for _ in range(3):
        with connection.pipeline() as pipeline:
            good = connection.execute("SELECT %s::int", (me,))
            # Whoever reads first is told; that may be the next to write.
            try:
                bad = connection.execute("SELECT 1 / %s::int", (0,))
                connection.execute("SELECT 'not run'")
                pipeline.sync()
                bad.fetchone()
                raise AssertionError("no error")
            except (errors.DivisionByZero, errors.PipelineAborted):
                pass
            try:
                pipeline.sync()
            except (errors.DivisionByZero, errors.PipelineAborted):
                pass
            assert connection.execute("SELECT %s::int + 1", (me,)).fetchone() == (me + 1,)
            assert good.fetchone() == (me,)


@case
def executemany_is_a_pipeline(connection, me):
    connection.execute(f"DROP TABLE IF EXISTS many3_{me}")
    connection.execute(f"CREATE TABLE many3_{me} (n int primary key, who int)")
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO many3_{me} VALUES (%s, %s) RETURNING n", [(n, me) for n in range(300)], returning=True)
        seen = [cursor.fetchone()[0]]
        while cursor.nextset():
            seen.append(cursor.fetchone()[0])
        assert seen == list(range(300))
        try:
            cursor.executemany(f"INSERT INTO many3_{me} VALUES (%s, %s)", [(n, me) for n in range(290, 310)])
            raise AssertionError("no error")
        except errors.UniqueViolation:
            pass
    assert connection.execute(f"SELECT count(*) FROM many3_{me} WHERE who = %s", (me,)).fetchone() == (300,)


@case
def copies_in_and_out(connection, me):
    connection.execute(f"DROP TABLE IF EXISTS copied3_{me}")
    connection.execute(f"CREATE TABLE copied3_{me} (n int, who text)")
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY copied3_{me} FROM STDIN") as copy:
            for n in range(5_000):
                copy.write_row((n, f"{me}"))
        with cursor.copy(f"COPY copied3_{me} (n, who) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "text"])
            for n in range(5_000):
                copy.write_row((n, f"{me}"))
        with cursor.copy(f"COPY copied3_{me} TO STDOUT") as copy:
            rows = list(copy.rows())
        assert len(rows) == 10_000 and all(who == str(me) for _, who in rows)
        with cursor.copy(f"COPY (SELECT n FROM copied3_{me} ORDER BY n LIMIT %s) TO STDOUT (FORMAT BINARY)", (6,)) as copy:
            copy.set_types(["int4"])
            assert [n for n, in copy.rows()] == [0, 0, 1, 1, 2, 2]


@case
def copies_that_fail(connection, me):
    connection.execute(f"DROP TABLE IF EXISTS failing3_{me}")
    connection.execute(f"CREATE TABLE failing3_{me} (n int primary key)")

    def failing(write):
        with connection.cursor() as cursor, cursor.copy(f"COPY failing3_{me} FROM STDIN") as copy:
            write(copy)

    def raises(copy):
        copy.write("1\n" * 10)
        raise ValueError("changed my mind")

    for write, error in [
        (lambda copy: copy.write("1\nx\n"), errors.InvalidTextRepresentation),
        (lambda copy: copy.write("1\n" * 100_000), errors.UniqueViolation),
        (raises, ValueError),
    ]:
        try:
            failing(write)
            raise AssertionError("no error")
        except error:
            pass
        assert connection.execute(f"SELECT count(*) + %s FROM failing3_{me}", (me,)).fetchone() == (me,)


@case
def server_side_cursors(connection, me):
    with connection.transaction():
        with connection.cursor(f"server_{me}") as cursor:
            cursor.itersize = 70
            cursor.execute("SELECT n, %s::int FROM generate_series(1, 1000) n", (me,))
            assert list(cursor) == [(n, me) for n in range(1, 1001)]
        with connection.cursor(f"scroll_{me}", scrollable=True) as cursor:
            cursor.execute("SELECT n + %s FROM generate_series(0, 100) n", (me,))
            cursor.scroll(50, mode="absolute")
            assert cursor.fetchone() == (50 + me,)
            cursor.scroll(-20)
            assert cursor.fetchone() == (31 + me,)


@case
def a_cursor_with_hold_in_autocommit(connection, me):
    with connection.cursor(f"hold_{me}", withhold=True) as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT n * 10 + %s FROM generate_series(1, 500) n", (me,))
        assert list(cursor) == [(n * 10 + me,) for n in range(1, 501)]
    assert connection.execute("SELECT count(*) FROM pg_cursors WHERE name = %s", (f"hold_{me}",)).fetchone() == (0,)


@case
def rows_one_by_one(connection, me):
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.stream("SELECT n, %s::int AS who FROM generate_series(1, 2000) n", (me,))
    assert [row["n"] for row in rows if row["who"] == me] == list(range(1, 2001))
    if psycopg.pq.version() >= 170000:
        rows = cursor.stream("SELECT n, %s::int AS who FROM generate_series(1, 2000) n", (me,), size=128)
        assert [row["n"] for row in rows if row["who"] == me] == list(range(1, 2001))


@case
def transactions_within_transactions(connection, me):
    connection.execute(f"DROP TABLE IF EXISTS nested3_{me}")
    connection.execute(f"CREATE TABLE nested3_{me} (n int)")
    with connection.transaction():
        connection.execute(f"INSERT INTO nested3_{me} VALUES (1)")
        try:
            with connection.transaction():
                connection.execute(f"INSERT INTO nested3_{me} VALUES (2)")
                connection.execute("SELECT 1/0")
        except errors.DivisionByZero:
            pass
        with connection.transaction("named"):
            connection.execute(f"INSERT INTO nested3_{me} VALUES (3)")
        with connection.transaction():
            connection.execute(f"INSERT INTO nested3_{me} VALUES (4)")
            raise psycopg.Rollback
    assert connection.execute(f"SELECT array_agg(n ORDER BY n) FROM nested3_{me}").fetchone() == ([1, 3],)


@case
def types_are_looked_up_and_used(connection, me):
    connection.execute(f"DROP TYPE IF EXISTS mood_{me}")
    connection.execute(f"CREATE TYPE mood_{me} AS ENUM ('sad', 'glad')")
    info = EnumInfo.fetch(connection, f"mood_{me}")
    register_enum(info, connection)
    assert connection.execute(f"SELECT %s::mood_{me}", ("glad",), binary=True).fetchone()[0].name == "glad"
    assert TypeInfo.fetch(connection, "no_such_type") is None
    value = {"who": me, "list": [1, 2, None]}
    assert connection.execute("SELECT %s", (psycopg.types.json.Jsonb(value),)).fetchone() == (value,)
    assert connection.execute("SELECT %s::int[]", ([1, 2, me],), binary=True).fetchone() == ([1, 2, me],)


@case
def client_side_and_raw_cursors(connection, me):
    assert psycopg.ClientCursor(connection).execute("SELECT %s; SELECT 2", (me,)).fetchone() == (me,)
    assert psycopg.RawCursor(connection).execute("SELECT $1::int", (me,)).fetchone() == (me,)
    cursor = connection.execute("SELECT 1; SELECT 2")
    assert cursor.nextset() and cursor.fetchone() == (2,)
    connection.execute("")


@case
def notifications_arrive(connection, me):
    with listening, connect() as listener:
        listener.execute(f"LISTEN news_{me}")
        for turn in range(3):
            connection.execute("SELECT pg_notify(%s, %s)", (f"news_{me}", f"{turn}"))
        seen = [(notify.channel, notify.payload) for notify in listener.notifies(timeout=10, stop_after=3)]
        assert seen == [(f"news_{me}", str(turn)) for turn in range(3)], seen
        listener.execute(f"UNLISTEN news_{me}")


@case
def a_query_is_cancelled(connection, me):
    timer = threading.Timer(0.15, connection.cancel_safe)
    timer.start()
    try:
        connection.execute("SELECT pg_sleep(20)")
        raise AssertionError("no error")
    except errors.QueryCanceled:
        pass
    timer.join()
    assert connection.execute("SELECT %s", (me,)).fetchone() == (me,)


@case
def a_time_zone_and_an_isolation_level_of_its_own(_, me):
    zone = ["Asia/Seoul", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata"][me]
    with connect() as connection:
        connection.execute(sql.SQL("SET TIME ZONE {}").format(zone))
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for _ in range(5):
            assert connection.info.timezone.key == zone
            assert connection.execute("SHOW TimeZone").fetchone() == (zone,)
            with connection.transaction():
                assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)


@case
def a_temporary_table_while_it_is_there(connection, me):
    connection.execute(f"CREATE TEMP TABLE mine (who int); INSERT INTO mine VALUES ({me})")
    for _ in range(4):
        assert connection.execute("SELECT who FROM mine").fetchone() == (me,)
    connection.execute("DROP TABLE mine")


@case
def an_advisory_lock_while_it_is_held(connection, me):
    connection.execute("SELECT pg_advisory_lock(%s)", (1000 + me,))
    for _ in range(3):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connection.execute("SELECT pg_advisory_unlock(%s)", (1000 + me,)).fetchone() == (True,)


@case
def settings_made_by_set_stay(connection, me):
    connection.execute(f"SET lock_timeout = {7000 + me}")
    connection.execute("SELECT set_config('my.own', %s, false)", (f"{me}",))
    for _ in range(5):
        assert connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'").fetchone() == (7000 + me,)
        assert connection.execute("SELECT current_setting('my.own')").fetchone() == (f"{me}",)
    connection.execute("RESET lock_timeout")
    assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)


@case
def prepare_and_execute_in_sql(connection, me):
    connection.execute(f"PREPARE mine (int) AS SELECT $1 + {me}")
    for turn in range(5):
        assert connection.execute(f"EXECUTE mine({turn})").fetchone() == (turn + me,)
    connection.execute("DEALLOCATE mine")
    try:
        connection.execute("EXECUTE mine(1)")
        raise AssertionError("no error")
    except errors.InvalidSqlStatementName:
        pass


run(connect)
