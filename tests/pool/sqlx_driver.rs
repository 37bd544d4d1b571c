//! sqlx through the pool: its cache of statements, which it closes one by one, statements it does not keep, transactions that it
//! rolls back when they are dropped, COPY both ways, LISTEN.

use bookend::config::pool::Pool;
use sqlx::{
    ConnectOptions, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::support::{postgres::PASSWORD, *};

fn options(pooled: &Pooled) -> PgConnectOptions {
    let server = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(pooled.port);
    server.database(DATABASE).username(USER).password(PASSWORD).extra_float_digits(2)
}

async fn two_servers(cluster: &Cluster) -> Pooled {
    start(Pool { default_pool_size: 2, max_prepared_statements: 5, ..config(cluster) }).await
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_sqlx_are_its_connections_own_on_servers_that_all_share() {
    let cluster = postgres::shared();
    let pooled = two_servers(&cluster).await;
    let connections = (0..8_i64).map(|id| {
        // A cache of three, so that it closes what it has prepared.
        let options = options(&pooled).statement_cache_capacity(3);
        async move {
            let mut connection = options.connect().await.unwrap();
            for round in 0..20_i64 {
                let sql = format!("SELECT $1::int8 + $2, 'text {}' || $3::text", round % 7);
                let row = sqlx::query(&sql).bind(id).bind(1_000 * round).bind(id.to_string());
                let row = row.persistent(round % 3 != 0).fetch_one(&mut connection).await.unwrap();
                assert_eq!(row.get::<i64, _>(0), id + 1_000 * round);
                assert_eq!(row.get::<String, _>(1), format!("text {}{id}", round % 7));
            }
            connection.clear_cached_statements().await.unwrap();
            connection.ping().await.unwrap();
            connection.close().await.unwrap();
        }
    });
    futures_util::future::join_all(connections).await;
    assert!(pooled.servers() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_sqlx_is_kept_whole_and_a_dropped_one_rolled_back() {
    let cluster = postgres::shared();
    let pooled = two_servers(&cluster).await;
    let (mut one, mut other) = (options(&pooled).connect().await.unwrap(), options(&pooled).connect().await.unwrap());
    sqlx::raw_sql("DROP TABLE IF EXISTS by_sqlx; CREATE TABLE by_sqlx (id int8 PRIMARY KEY)")
        .execute(&mut one)
        .await
        .unwrap();
    let insert = "INSERT INTO by_sqlx VALUES ($1)";
    let mut kept = one.begin().await.unwrap();
    sqlx::query(insert).bind(1_i64).execute(&mut *kept).await.unwrap();
    assert_eq!(number(&mut other, "SELECT count(*) FROM by_sqlx").await, 0);
    let mut inner = kept.begin().await.unwrap();
    let twice = sqlx::query(insert).bind(1_i64).execute(&mut *inner).await.unwrap_err();
    assert_eq!(twice.as_database_error().and_then(|error| error.code()).as_deref(), Some("23505"));
    inner.rollback().await.unwrap();
    kept.commit().await.unwrap();
    let mut dropped = one.begin().await.unwrap();
    sqlx::query(insert).bind(2_i64).execute(&mut *dropped).await.unwrap();
    drop(dropped);
    assert_eq!(number(&mut one, "SELECT count(*) FROM by_sqlx").await, 1);
    assert_eq!(number(&mut other, "SELECT count(*) FROM by_sqlx").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_copies_in_and_out_and_goes_on_after_it_gave_up() {
    use futures_util::TryStreamExt;
    let cluster = postgres::shared();
    let pooled = two_servers(&cluster).await;
    let mut connection = options(&pooled).connect().await.unwrap();
    sqlx::raw_sql("DROP TABLE IF EXISTS copied_by_sqlx; CREATE TABLE copied_by_sqlx (id int8)")
        .execute(&mut connection)
        .await
        .unwrap();
    let mut copy = connection.copy_in_raw("COPY copied_by_sqlx FROM STDIN").await.unwrap();
    copy.send(&b"1\n2\n"[..]).await.unwrap();
    copy.send(&b"3\n"[..]).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 3);
    let mut given_up = connection.copy_in_raw("COPY copied_by_sqlx FROM STDIN").await.unwrap();
    given_up.send(&b"4\n"[..]).await.unwrap();
    given_up.abort("changed its mind").await.unwrap();
    let out = connection.copy_out_raw("COPY copied_by_sqlx TO STDOUT").await.unwrap();
    let lines = out.try_fold(Vec::new(), async |mut all, bytes| {
        all.extend_from_slice(&bytes);
        Ok(all)
    });
    assert_eq!(lines.await.unwrap(), b"1\n2\n3\n");
    assert_eq!(number(&mut connection, "SELECT sum(id)::int8 FROM copied_by_sqlx").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_of_sqlx_hears_without_a_server_of_its_own() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options(&pooled)).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("by_sqlx").await.unwrap();
    for text in ["one", "two"] {
        // The only server is free for others, though somebody listens.
        sqlx::query("SELECT pg_notify('by_sqlx', $1)").bind(text).execute(&pool).await.unwrap();
        let heard = tokio::time::timeout(10 * SECOND, listener.recv()).await.unwrap().unwrap();
        assert_eq!((heard.channel(), heard.payload()), ("by_sqlx", text));
    }
    listener.unlisten_all().await.unwrap();
}
