//! Random pipelines of several clients over one server, against what each would see on a connection of its own.

use proptest::prelude::*;

use super::{
    link::{Pool, Schedule},
    script::{Script, script},
};

/// What clients ask for when they connect; the first one takes what there is.
const ASKED: [&[(&str, &str)]; 3] = [
    &[],
    &[("application_name", "web-1"), ("statement_timeout", "30000")],
    &[("timezone", "America/Lima"), ("statement_timeout", "5s")],
];

#[derive(Debug, Clone)]
enum Ext {
    Parse(u8, u8),
    Bind(u8, bool),
    Describe(u8),
    DescribePortal(bool),
    Execute(bool),
    Close(u8),
    ClosePortal(bool),
    Text(u8),
    /// Described before it is bound.
    DescribedText(u8),
    /// Bound twice, the second time after a Flush.
    TextTwice(u8),
    Run(u8),
    /// Of the statement without a name, whatever it is by then.
    ParseNameless(u8),
    RunNameless,
    DescribeNameless,
    CloseNameless,
    Query(Vec<u8>),
    Flush,
}

#[derive(Debug, Clone)]
enum Turn {
    Simple(Vec<u8>),
    Batch(Vec<Ext>),
    /// Kind, extended, a Sync before the data, rows, how it ends.
    Copy(u8, bool, bool, u8, bool),
    Late,
    DeallocateAll,
    /// Described in a batch, run in the next.
    Split(u8),
}

/// `who` keeps the rows of clients apart.
fn command(kind: u8, who: usize) -> String {
    match kind {
        0 => "error".to_owned(),
        1 => "begin".to_owned(),
        2 => "commit".to_owned(),
        3 => "rollback".to_owned(),
        4 => format!("insert {who}"),
        5 => format!("rows {who}"),
        6 => "set TimeZone Europe/Oslo".to_owned(),
        7 => "show TimeZone".to_owned(),
        8 => "out copied".to_owned(),
        9 => "syntax".to_owned(),
        10 => "set TimeZone Asia/Tokyo".to_owned(),
        11 => "show statement_timeout".to_owned(),
        12 => "show application_name".to_owned(),
        13 => "set statement_timeout = 7s".to_owned(),
        16 => "deallocate all".to_owned(),
        n => format!("select {n}"),
    }
}

/// Shared texts, so that clients meet on statements; those of rows are each client's own.
fn prepared(kind: u8, who: usize) -> String {
    command(kind % 17, who)
}

fn portal(named: bool) -> &'static str {
    if named { "p" } else { "" }
}

fn write(ext: &Ext, who: usize, to: Script) -> Script {
    let name = |n: &u8| format!("s{n}");
    match ext {
        Ext::Parse(n, kind) => to.parse(&name(n), &prepared(*kind, who)),
        Ext::Bind(n, named) => to.bind(portal(*named), &name(n)),
        Ext::Describe(n) => to.describe_statement(&name(n)),
        Ext::DescribePortal(named) => to.describe_portal(portal(*named)),
        Ext::Execute(named) => to.execute(portal(*named)),
        Ext::Close(n) => to.close_statement(&name(n)),
        Ext::ClosePortal(named) => to.close_portal(portal(*named)),
        Ext::Text(kind) => to.run_text(&prepared(*kind, who)),
        Ext::DescribedText(kind) => {
            to.parse("", &prepared(*kind, who)).describe_statement("").bind("", "").describe_portal("").execute("")
        }
        Ext::TextTwice(kind) => to.run_text(&prepared(*kind, who)).flush().run(""),
        Ext::Run(n) => to.run(&name(n)),
        Ext::ParseNameless(kind) => to.parse("", &prepared(*kind, who)),
        Ext::RunNameless => to.run(""),
        Ext::DescribeNameless => to.describe_statement(""),
        Ext::CloseNameless => to.close_statement(""),
        Ext::Query(kinds) => to.query(&sql(kinds, who)),
        Ext::Flush => to.flush(),
    }
}

fn sql(kinds: &[u8], who: usize) -> String {
    kinds.iter().filter(|&&kind| kind != 9).map(|kind| command(*kind, who)).collect::<Vec<_>>().join(";")
}

fn turn(turn: &Turn, who: usize, to: Script) -> Script {
    match turn {
        Turn::Simple(kinds) => to.query(&sql(kinds, who)),
        Turn::Batch(batch) => batch.iter().fold(to, |to, ext| write(ext, who, to)).sync(),
        Turn::Copy(kind, extended, sync_first, rows, ends_well) => {
            let text = format!("copy {}", ["ok", "early", "data", "end"][usize::from(*kind % 4)]);
            let mut to = if *extended { to.run_text(&text) } else { to.query(&text) };
            if *extended && *sync_first {
                to = to.sync();
            }
            for _ in 0..*rows {
                to = to.copy_data("row");
            }
            to = if *ends_well { to.copy_done() } else { to.copy_fail() };
            // Or a later Bind of it would begin a COPY that nobody feeds.
            if *extended { to.sync().close_statement("").sync() } else { to }
        }
        Turn::Late => to.copy_data("late").copy_done(),
        Turn::DeallocateAll => to.query("deallocate all"),
        Turn::Split(kind) => to.parse("", &prepared(*kind, who)).describe_statement("").sync().run("").sync(),
    }
}

fn whole(turns: &[Turn], who: usize) -> Script {
    turns.iter().fold(script(), |to, each| turn(each, who, to)).sync().query("rollback")
}

fn ext() -> impl Strategy<Value = Ext> {
    let name = 0u8..3;
    prop_oneof![
        3 => (name.clone(), 0u8..17).prop_map(|(n, kind)| Ext::Parse(n, kind)),
        2 => (name.clone(), any::<bool>()).prop_map(|(n, named)| Ext::Bind(n, named)),
        2 => name.clone().prop_map(Ext::Describe),
        1 => any::<bool>().prop_map(Ext::DescribePortal),
        2 => any::<bool>().prop_map(Ext::Execute),
        2 => name.clone().prop_map(Ext::Close),
        1 => any::<bool>().prop_map(Ext::ClosePortal),
        3 => (0u8..17).prop_map(Ext::Text),
        1 => (0u8..16).prop_map(Ext::DescribedText),
        1 => (0u8..16).prop_map(Ext::TextTwice),
        4 => name.prop_map(Ext::Run),
        2 => (0u8..16).prop_map(Ext::ParseNameless),
        2 => Just(Ext::RunNameless),
        1 => Just(Ext::DescribeNameless),
        1 => Just(Ext::CloseNameless),
        1 => proptest::collection::vec(0u8..17, 0..3).prop_map(Ext::Query),
        1 => Just(Ext::Flush),
    ]
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => proptest::collection::vec(0u8..14, 0..4).prop_map(Turn::Simple),
        6 => proptest::collection::vec(ext(), 0..6).prop_map(Turn::Batch),
        2 => (any::<u8>(), any::<bool>(), any::<bool>(), 0u8..3, any::<bool>())
            .prop_map(|(kind, extended, first, rows, well)| Turn::Copy(kind, extended, first, rows, well)),
        1 => Just(Turn::Late),
        1 => Just(Turn::DeallocateAll),
        1 => (0u8..16).prop_map(Turn::Split),
    ]
}

/// A client that names nothing: a plan that no longer holds is none of its business.
fn nameless_turn() -> impl Strategy<Value = Turn> {
    let ext = prop_oneof![
        4 => (0u8..16).prop_map(Ext::Text),
        1 => (0u8..16).prop_map(Ext::DescribedText),
        1 => (0u8..16).prop_map(Ext::TextTwice),
        1 => proptest::collection::vec(0u8..14, 0..3).prop_map(Ext::Query),
        1 => Just(Ext::Flush),
    ];
    prop_oneof![
        1 => proptest::collection::vec(0u8..14, 0..4).prop_map(Turn::Simple),
        8 => proptest::collection::vec(ext, 0..4).prop_map(Turn::Batch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 6, ..ProptestConfig::default() })]

    /// The heart of the product: a client cannot tell the pool from PostgreSQL, whoever used the server before it.
    #[test]
    fn each_client_sees_what_it_would_see_alone(
        clients in proptest::collection::vec(proptest::collection::vec(any_turn(), 1..6), 1..4),
        seed: u64,
        piece in prop_oneof![Just(1usize), Just(7), Just(64), Just(4096)],
    ) {
        let mut pool = Pool::new();
        let scripts: Vec<_> = clients.iter().enumerate().map(|(who, turns)| whole(turns, who)).collect();
        let asked = |who: usize| &ASKED[who % ASKED.len()];
        for (who, script) in scripts.iter().enumerate() {
            pool.client_asking(asked(who), script.clone());
        }
        pool.serve_all(&mut Schedule::new(seed, piece));
        for (who, script) in scripts.iter().enumerate() {
            prop_assert_eq!(pool.clients[who].lines(), Pool::alone_asking(asked(who), script), "client {}", who);
        }
    }
    /// While somebody changes the tables, who prepares nothing sees nothing of it, and who does, at most PostgreSQL's error.
    #[test]
    fn changed_tables_reach_only_those_who_named_statements(
        clients in proptest::collection::vec(proptest::collection::vec(any_turn(), 1..6), 1..3),
        nameless in proptest::collection::vec(nameless_turn(), 1..8),
        seed: u64,
        piece in prop_oneof![Just(1usize), Just(7), Just(64), Just(4096)],
    ) {
        let mut pool = Pool::new();
        pool.altered = true;
        let mut scripts: Vec<_> = clients.iter().enumerate().map(|(who, turns)| whole(turns, who)).collect();
        scripts.push(whole(&nameless, scripts.len()));
        for script in &scripts {
            pool.client(script.clone());
        }
        pool.serve_all(&mut Schedule::new(seed, piece));
        let last = scripts.len() - 1;
        prop_assert_eq!(pool.clients[last].lines(), Pool::alone(&scripts[last]));
        for (who, script) in scripts.iter().enumerate() {
            let (got, alone) = (pool.clients[who].lines(), Pool::alone(script));
            let told = got.iter().any(|line| line.starts_with("E 0A000"));
            prop_assert!(told || got == alone, "client {}: {:?} for {:?}", who, got, alone);
            let ready = |lines: &[String]| lines.iter().filter(|line| line.starts_with('Z')).count();
            prop_assert!(told || ready(&got) == ready(&alone), "client {}", who);
        }
    }
}
