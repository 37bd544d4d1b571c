"""psycopg2: simple queries only, named cursors, COPY, large objects by FunctionCall, cancel, notifications."""
import io
import select
import threading
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errors

from cases import case, run

listening = threading.Lock()


def connect(**more):
    return psycopg2.connect("", **more)


def one(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


@case
def commits_and_rolls_back(connection, me):
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS psycopg2_{me}; CREATE TABLE psycopg2_{me} (id int primary key, value text)")
        cursor.execute(f"INSERT INTO psycopg2_{me} VALUES (1, %s) RETURNING value", (f"it's {me}",))
        assert cursor.fetchone() == (f"it's {me}",)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO psycopg2_{me} VALUES (2, 'gone')")
    connection.rollback()
    assert one(connection, f"SELECT array_agg(id) FROM psycopg2_{me}") == ([1],)
    connection.commit()


@case
def an_error_leaves_the_transaction_failed_until_rollback(connection, me):
    for _ in range(5):
        try:
            one(connection, "SELECT 1/(%s-%s)", (me, me))
            raise AssertionError("no error")
        except errors.DivisionByZero as error:
            assert error.pgcode == "22012" and error.diag.severity == "ERROR"
        try:
            one(connection, "SELECT 1")
            raise AssertionError("no error")
        except errors.InFailedSqlTransaction:
            pass
        assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR
        connection.rollback()
        assert one(connection, "SELECT %s", (me,)) == (me,)
        connection.commit()


@case
def savepoints(connection, me):
    with connection, connection.cursor() as cursor:
        cursor.execute("SAVEPOINT a")
        try:
            cursor.execute("SELECT nothing FROM nowhere")
            raise AssertionError("no error")
        except errors.UndefinedTable:
            cursor.execute("ROLLBACK TO a")
        cursor.execute("RELEASE a; SELECT %s", (me,))
        assert cursor.fetchone() == (me,)


@case
def a_named_cursor_reads_in_pieces(connection, me):
    with connection, connection.cursor(f"pieces_{me}") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT n, %s FROM generate_series(1, 1000) n", (me,))
        rows = list(cursor)
    assert rows == [(n, me) for n in range(1, 1001)]


@case
def a_cursor_with_hold_outlives_its_transaction(connection, me):
    cursor = connection.cursor(f"held_{me}", withhold=True)
    cursor.itersize = 10
    cursor.execute("SELECT n * 10 + %s FROM generate_series(1, 100) n", (me,))
    first = cursor.fetchmany(10)
    connection.commit()
    rest = cursor.fetchall()
    cursor.close()
    connection.commit()
    assert first + rest == [(n * 10 + me,) for n in range(1, 101)]


@case
def a_scrollable_cursor_goes_back(connection, me):
    with connection, connection.cursor(f"scroll_{me}", scrollable=True) as cursor:
        cursor.execute("SELECT n + %s FROM generate_series(1, 20) n", (me,))
        cursor.scroll(10)
        assert cursor.fetchone() == (11 + me,)
        cursor.scroll(-5)
        assert cursor.fetchone() == (7 + me,)


@case
def copies_in_and_out(connection, me):
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS copied2_{me}; CREATE TABLE copied2_{me} (n int, who int)")
        cursor.copy_expert(f"COPY copied2_{me} FROM STDIN", io.StringIO("".join(f"{n}\t{me}\n" for n in range(20_000))))
        assert cursor.rowcount == 20_000
        out = io.StringIO()
        cursor.copy_expert(f"COPY copied2_{me} TO STDOUT", out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 20_000 and all(line.endswith(f"\t{me}") for line in lines)


@case
def a_copy_that_fails_leaves_the_connection_usable(connection, me):
    for text in ["1\t2\nnot a number\t3\n", "1\n", "1\t2\t3\n"]:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS broken2_{me} (n int, who int)")
            connection.commit()
            try:
                cursor.copy_expert(f"COPY broken2_{me} FROM STDIN", io.StringIO(text * 1000))
                raise AssertionError("no error")
            except (errors.InvalidTextRepresentation, errors.BadCopyFileFormat):
                connection.rollback()

    class Broken(io.StringIO):
        def read(self, size=-1):
            raise OSError("the disk is gone")

    with connection.cursor() as cursor:
        try:
            cursor.copy_expert(f"COPY broken2_{me} FROM STDIN", Broken())
            raise AssertionError("no error")
        except (psycopg2.Error, OSError):
            connection.rollback()
    assert one(connection, "SELECT %s", (me,)) == (me,)
    connection.commit()


@case
def large_objects_by_function_call(connection, me):
    data = (b"%d" % me) * 100_000
    with connection:
        large = connection.lobject(0, "wb")
        oid = large.oid
        large.write(data)
        large.close()
    with connection:
        large = connection.lobject(oid, "rb")
        large.seek(50)
        assert large.tell() == 50 and large.read(20) == data[50:70]
        large.seek(0)
        assert large.read() == data
        large.unlink()
    try:
        connection.lobject(oid, "rb")
        raise AssertionError("no error")
    except psycopg2.Error:
        connection.rollback()


@case
def session_characteristics_and_encodings(connection, me):
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
    with connection:
        assert one(connection, "SHOW transaction_isolation") == ("serializable",)
        assert one(connection, "SHOW transaction_read_only") == ("on",)
    connection.set_session(isolation_level="DEFAULT", readonly=False)
    connection.set_client_encoding("LATIN1")
    for _ in range(3):
        assert one(connection, "SELECT %s, length('ü')", (f"größe {me}",)) == (f"größe {me}", 1)
        connection.commit()
    assert connection.encoding == "LATIN1" and connection.get_parameter_status("client_encoding") == "LATIN1"
    connection.set_client_encoding("UTF8")
    assert one(connection, "SELECT %s", (f"größe {me} €",)) == (f"größe {me} €",)
    connection.commit()


@case
def notices_reach_the_client_that_raised_them(connection, me):
    for turn in range(5):
        del connection.notices[:]
        one(connection, f"DO $$ BEGIN RAISE NOTICE 'n {me} {turn}'; END $$; SELECT 1")
        connection.commit()
        assert [notice for notice in connection.notices if f"n {me} {turn}" in notice], connection.notices


@case
def notifications_arrive(connection, me):
    with listening:
        listener = connect()
        listener.autocommit = True
        with listener.cursor() as cursor:
            cursor.execute(f"LISTEN channel_{me}")
        for turn in range(3):
            one(connection, f"SELECT pg_notify('channel_{me}', '{turn}')")
            connection.commit()
        deadline = time.monotonic() + 10
        while len(listener.notifies) < 3 and time.monotonic() < deadline:
            select.select([listener], [], [], 0.2)
            listener.poll()
        assert [notify.payload for notify in listener.notifies] == ["0", "1", "2"], listener.notifies
        assert all(notify.channel == f"channel_{me}" for notify in listener.notifies)
        with listener.cursor() as cursor:
            cursor.execute("UNLISTEN *")
        listener.close()


@case
def a_query_is_cancelled(connection, me):
    timer = threading.Timer(0.15, connection.cancel)
    timer.start()
    try:
        one(connection, "SELECT pg_sleep(20)")
        raise AssertionError("no error")
    except errors.QueryCanceled:
        connection.rollback()
    timer.join()
    assert one(connection, "SELECT %s", (me,)) == (me,)
    connection.commit()


@case
def values_and_rows_of_many_sizes(connection, me):
    for size in (0, 1, 8_000, 8_192, 70_000, 3_000_000):
        value = str(me) * size
        assert one(connection, "SELECT %s, length(%s)", (value, value)) == (value, size)
        assert one(connection, "SELECT repeat(%s, %s)", (str(me), size)) == (value,)
        connection.commit()


@case
def batches_and_values(connection, me):
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS batch2_{me}; CREATE TABLE batch2_{me} (a int, b text)")
        psycopg2.extras.execute_batch(cursor, f"INSERT INTO batch2_{me} VALUES (%s, %s)", [(n, f"{me}") for n in range(300)])
        psycopg2.extras.execute_values(cursor, f"INSERT INTO batch2_{me} VALUES %s", [(n, f"{me}") for n in range(300)])
        cursor.execute(f"SELECT count(*), min(b), max(b) FROM batch2_{me}")
        assert cursor.fetchone() == (600, f"{me}", f"{me}")


@case
def reset_and_deallocate(connection, me):
    connection.reset()
    with connection, connection.cursor() as cursor:
        cursor.execute(f"PREPARE mine AS SELECT $1::int + {me}; EXECUTE mine(1)")
        assert cursor.fetchone() == (me + 1,)
        cursor.execute("DEALLOCATE mine")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("DISCARD ALL")
        cursor.execute("DEALLOCATE ALL")
    connection.autocommit = False


@case
def an_asynchronous_connection(_, me):
    connection = psycopg2.connect("", async_=True)
    psycopg2.extras.wait_select(connection)
    cursor = connection.cursor()
    for turn in range(10):
        cursor.execute("SELECT %s, pg_sleep(0.005)", (me * 100 + turn,))
        psycopg2.extras.wait_select(connection)
        assert cursor.fetchone()[0] == me * 100 + turn
    connection.close()


@case
def settings_given_at_connect(_, me):
    with connect(application_name=f"app {me}", options=f"-c statement_timeout={5000 + me} -c search_path=pg_catalog") as other:
        for _ in range(5):
            assert one(other, "SHOW application_name") == (f"app {me}",)
            assert one(other, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'") == (5000 + me,)
            assert one(other, "SHOW search_path") == ("pg_catalog",)
            other.commit()
    other.close()


@case
def settings_made_by_set_stay(connection, me):
    connection.autocommit = True
    one(connection, f"SET statement_timeout = {7000 + me}; SET search_path = pg_catalog, public; SELECT 1")
    for _ in range(5):
        assert one(connection, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'") == (7000 + me,)
        assert one(connection, "SHOW search_path") == ("pg_catalog, public",)
    one(connection, "RESET statement_timeout; RESET search_path; SELECT 1")
    assert one(connection, "SHOW statement_timeout") == ("0",)
    connection.autocommit = False


run(connect)
