//! What the SHOW commands show, and under which names.

use std::time::{Duration, Instant};

use super::{Fixed, ask, console, rows};
use crate::pool::console::{
    Rights,
    averages::{Averager, Totals},
    command::{self, Command},
    show,
};

#[tokio::test]
async fn show_pools_has_pgbouncers_columns_and_microseconds() {
    let (mut client, _) = console(Rights::Stats);
    let (tags, text) = ask(&mut client, "SHOW POOLS;").await;
    assert_eq!(tags, "TDCZ");
    for column in ["cl_active", "cl_waiting", "sv_being_canceled", "maxwait_us", "pool_mode", "load_balance_hosts"] {
        assert!(text.contains(column), "{column}");
    }
    assert!(text.contains("345"), "microseconds beside the seconds: {text}");
}

#[tokio::test]
async fn every_show_command_answers_with_a_table() {
    let (mut client, _) = console(Rights::Stats);
    for what in [
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "CLIENTS",
        "SERVERS",
        "DATABASES",
        "USERS",
        "LISTS",
        "CONFIG",
        "STATE",
        "VERSION",
        "TOTALS",
        "SOCKETS",
        "ACTIVE_SOCKETS",
        "MEM",
        "PEERS",
        "PEER_POOLS",
        "DNS_HOSTS",
        "DNS_ZONES",
        "client_encoding",
    ] {
        let (tags, text) = ask(&mut client, &format!("SHOW {what}")).await;
        assert!(tags.starts_with('T') && tags.ends_with("CZ"), "SHOW {what}: {tags}");
        assert!(text.contains("SHOW"), "its command tag");
    }
    let (tags, text) = ask(&mut client, "SHOW HELP").await;
    assert_eq!(tags, "NCZ");
    assert!(text.contains("RECONNECT"));
}

#[tokio::test]
async fn a_client_row_links_to_its_server_and_shows_when_it_came() {
    let (mut client, _) = console(Rights::Stats);
    let (_, text) = ask(&mut client, "SHOW CLIENTS").await;
    for value in ["10.0.0.5", "4242", "2024-02-29 12:34:56 UTC", "c5", "s9", "web-1", "temp,listen"] {
        assert!(text.contains(value), "{value} in {text}");
    }
}

#[tokio::test]
async fn columns_have_pgbouncers_names_and_order() {
    let (mut client, _) = console(Rights::Stats);
    for (what, columns) in [
        ("PEERS", "peer_id host port pool_size"),
        ("PEER_POOLS", "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"),
        ("DNS_HOSTS", "hostname ttl addrs"),
        ("DNS_ZONES", "zonename serial count"),
        ("MEM", "name size used free memtotal"),
        ("TOTALS", "name value"),
        ("timezone", "timezone"),
        (
            "STATS_TOTALS",
            "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
             wait_time client_parse_count server_parse_count bind_count client_login_count",
        ),
        (
            "STATS_AVERAGES",
            "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
             wait_time avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count",
        ),
        (
            "SOCKETS",
            "type user database replication state addr port local_addr local_port connect_time request_time wait \
             wait_us close_needed ptr link remote_pid tls application_name prepared_statements id recv_pos pkt_pos \
             pkt_remain send_pos send_remain pkt_avail send_avail",
        ),
    ] {
        assert_eq!(rows(&mut client, &format!("SHOW {what}")).await[0].join(" "), columns, "SHOW {what}");
    }
}

#[tokio::test]
async fn totals_are_those_of_all_databases_and_averages_are_weighed() {
    let (mut client, _) = console(Rights::Stats);
    let totals = rows(&mut client, "SHOW TOTALS").await;
    let value = |name: &str| totals.iter().find(|row| row[0] == name).unwrap()[1].clone();
    assert_eq!((value("total_xact_count"), value("total_query_count")), ("7".into(), "3".into()));
    // 10 transactions of 100 microseconds together, in two seconds.
    assert_eq!((value("avg_xact_count"), value("avg_xact_time")), ("5".into(), "10".into()));
    assert_eq!(value("total_client_bytes"), "0");
    assert_eq!(totals.len(), 25);
}

#[tokio::test]
async fn sockets_are_clients_servers_and_strangers_and_active_ones_have_something_under_way() {
    let (mut client, _) = console(Rights::Stats);
    let states = |rows: Vec<Vec<String>>| rows.iter().skip(1).map(|row| row[4].clone()).collect::<Vec<_>>();
    let all = rows(&mut client, "SHOW SOCKETS").await;
    assert!(all[1][21..].iter().all(|value| value == "NULL"), "nothing is known of buffers: {all:?}");
    assert_eq!(states(all), ["cl_active", "cl_active", "sv_active", "cl_login"]);
    let active = rows(&mut client, "SHOW ACTIVE_SOCKETS").await;
    assert_eq!(states(active), ["cl_active", "sv_active", "cl_login"]);
}

#[tokio::test]
async fn lists_count_strangers_among_the_clients() {
    let (mut client, _) = console(Rights::Stats);
    let lists = rows(&mut client, "SHOW LISTS").await;
    let items = |list: &str| lists.iter().find(|row| row[0] == list).unwrap()[1].clone();
    assert_eq!(
        (items("used_clients"), items("login_clients"), items("used_servers")),
        ("4".into(), "1".into(), "1".into())
    );
    assert_eq!(rows(&mut client, "SHOW MEM").await[1], ["client_cache", "300", "7", "0", "2100"]);
}

#[tokio::test]
async fn peers_are_listed_and_requests_go_to_the_others_alone() {
    let (mut client, _) = console(Rights::Stats);
    let peers = rows(&mut client, "SHOW PEERS").await;
    assert_eq!(peers[1..], [["1", "/run/1", "6432", "20"], ["2", "10.0.0.7", "6432", "20"]]);
    assert_eq!(rows(&mut client, "SHOW PEER_POOLS").await[1..], [["2", "3", "5", "3", "1"]]);
    let lists = rows(&mut client, "SHOW LISTS").await;
    let items = |list: &str| lists.iter().find(|row| row[0] == list).unwrap()[1].clone();
    assert_eq!((items("peers"), items("peer_pools")), ("2".into(), "1".into()));
}

#[test]
fn averages_are_per_second_and_times_per_item() {
    let mut averager = Averager::default();
    let start = Instant::now();
    averager.tick(start, Totals::default());
    assert_eq!(averager.period().averages(), Totals::default());
    let waits = Totals { server_assignment_count: 120, wait_time: 240, ..Totals::default() };
    let totals = Totals { xact_count: 120, xact_time: 6_000, received: 60_000, ..waits };
    averager.tick(start + Duration::from_secs(60), totals);
    let averages = averager.period().averages();
    assert_eq!(averages.wait_time, 2, "per assignment");
    assert_eq!((averages.xact_count, averages.xact_time, averages.received), (2, 50, 1_000));
}

/// `columns.tsv` and `rows.tsv` are what PgBouncer 1.26.1 answered.
#[tokio::test]
async fn every_table_has_pgbouncers_columns_and_every_list_its_rows() {
    let columns = include_str!("../../../../tests/data/pgbouncer/columns.tsv");
    let listed = include_str!("../../../../tests/data/pgbouncer/rows.tsv");
    let source = Fixed::default();
    for line in columns.lines() {
        let mut words = line.split('\t');
        let what = words.next().unwrap();
        let Ok(Command::Show(show)) = command::parse(&format!("SHOW {what}")) else { panic!("{what} is not known") };
        let table = show::table(show, &source);
        let own: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        // What PgBouncer has not stands behind what it has.
        let more: &[&str] = if what == "CLIENTS" { &["pinned"] } else { &[] };
        assert_eq!(own, words.chain(more.iter().copied()).collect::<Vec<_>>(), "SHOW {what}");
        let rows: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix(&format!("{what}\t"))).collect();
        if !rows.is_empty() {
            let own: Vec<_> = table.rows.iter().map(|row| row[0].clone().unwrap()).collect();
            assert_eq!(own, rows, "SHOW {what}");
        }
    }
}
