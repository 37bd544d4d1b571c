//! What clients are told, and what counts it.

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn query_wait_timeout_names_what_to_change_and_counts_as_too_many_connections() {
    let e = PoolError::QueryWaitTimeout { limit: LIMIT, login: None };
    assert!(e.message().starts_with("query_wait_timeout: "), "{e}");
    assert!(e.message().contains("30s"), "{e}");
    assert_eq!(e.sqlstate(), "53300");
    assert!(e.hint().unwrap().contains("default_pool_size"));
}

#[test]
fn query_wait_timeout_carries_the_last_login_error_of_the_server() {
    let login =
        ServerError::Refused { sqlstate: Some("57P03".into()), message: "the database system is starting up".into() };
    let e = PoolError::QueryWaitTimeout { limit: LIMIT, login: Some(login) };
    assert!(e.message().contains("the database system is starting up"), "{e}");
    assert_eq!(e.sqlstate(), "57P03");
}

#[test]
fn each_limit_says_which_setting_to_change() {
    for (e, setting) in [
        (PoolError::LoginTimeout { limit: LIMIT }, "client_login_timeout"),
        (PoolError::TooManyClients { limit: 9 }, "max_client_conn"),
        (PoolError::TooManyDatabaseClients { limit: 9 }, "max_db_client_connections"),
        (PoolError::TooManyUserClients { limit: 9 }, "max_user_client_connections"),
        (PoolError::QueryTimeout { limit: LIMIT }, "query_timeout"),
        (PoolError::TransactionTimeout { limit: LIMIT }, "transaction_timeout"),
        (PoolError::IdleTransactionTimeout { limit: LIMIT }, "idle_transaction_timeout"),
        (PoolError::ClientIdleTimeout { limit: LIMIT }, "client_idle_timeout"),
        (PoolError::PacketTooLarge { len: 9, limit: 8 }, "max_packet_size"),
        (PoolError::HeldMessageTooLarge { len: 9, limit: 8 }, "max_held_message"),
        (PoolError::NotificationQueue { limit: 8 }, "notification_queue"),
        (PoolError::StatementMemory { limit: 8 }, "max_statement_memory"),
    ] {
        assert!(e.hint().is_some_and(|h| h.contains(setting)), "{e:?}");
    }
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::HashSet<_> = Kind::ALL.iter().map(|k| k.as_str()).collect();
    assert_eq!(labels.len(), Kind::ALL.len());
}
