//! A client that was told columns gets rows of those, or an error that says that they changed.

use proptest::prelude::*;

use super::{
    super::ServerState,
    link::{Pool, Schedule},
    model::Model,
    script::{Script, lines, script},
};
use crate::pool::wire::{frame, read::ErrorFields};

const STALE: &str = "E 0A000 cached plan must not change result type";

/// A pool of two servers, one of which is in use.
struct Two {
    pool: Pool,
    model: Model,
    server: ServerState,
    piece: usize,
    seed: u64,
}

impl Two {
    fn new(piece: usize) -> Self {
        let (mut pool, other) = (Pool::new(), Pool::new());
        pool.limits.max_prepared_statements = 10;
        pool.client(script());
        let mut two = Self { pool, model: other.model, server: other.server, piece, seed: 5 };
        (two.pool.model.telling, two.model.telling) = (true, true);
        two
    }

    /// The other server's turn.
    fn swap(&mut self) {
        std::mem::swap(&mut self.pool.model, &mut self.model);
        std::mem::swap(&mut self.pool.server, &mut self.server);
    }

    /// Changes the tables. Returns false when a transaction holds them.
    fn alter(&mut self) -> bool {
        let done = self.pool.model.alter();
        self.model.schema = self.pool.model.schema;
        done
    }

    fn another_client(&mut self) -> usize {
        self.pool.client(script())
    }

    /// Returns the messages that a client gets for what it sends.
    fn bytes(&mut self, client: usize, sent: &Script) -> Vec<u8> {
        let before = self.pool.clients[client].got.len();
        self.pool.clients[client].unsent.clone_from(&sent.0);
        self.seed += 1;
        let mut schedule = Schedule::new(self.seed, self.piece);
        while !self.pool.clients[client].unsent.is_empty() {
            self.pool.serve(client, &mut schedule).unwrap();
        }
        self.pool.clients[client].got[before..].to_vec()
    }

    fn ask(&mut self, sent: &Script) -> Vec<String> {
        lines(&self.bytes(0, sent))
    }
}

fn parse_and_describe() -> Script {
    script().parse("a", "select 1").describe_statement("a").sync()
}

fn each_piece(test: impl Fn(Two)) {
    for piece in [1, 5, 4096] {
        test(Two::new(piece));
    }
}

#[test]
fn a_client_that_was_told_columns_is_told_on_another_server_that_they_changed() {
    each_piece(|mut two| {
        two.ask(&parse_and_describe());
        assert!(two.alter());
        two.swap();
        for _ in 0..3 {
            assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"]);
        }
        assert_eq!(two.pool.interner.refused(), (0, 3));
    });
}

#[test]
fn the_error_is_as_postgresqls_own_to_drivers_that_look_at_who_says_it() {
    let mut two = Two::new(4096);
    two.ask(&parse_and_describe());
    assert!(two.alter());
    two.swap();
    let got = two.bytes(0, &script().run("a").sync());
    let message = frame::whole(&got, 10_000).unwrap().unwrap();
    let fields = ErrorFields::parse(message.body);
    assert_eq!((fields.severity, fields.routine), (&b"ERROR"[..], &b"RevalidateCachedQuery"[..]));
}

#[test]
fn a_client_that_was_told_columns_is_told_where_they_changed() {
    each_piece(|mut two| {
        two.ask(&parse_and_describe());
        assert!(two.alter());
        assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"]);
        assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"], "nor later, when the server has it anew");
    });
}

#[test]
fn a_client_that_was_told_by_a_portal_is_told_as_well() {
    each_piece(|mut two| {
        two.ask(&script().parse("a", "select 1").bind("p", "a").describe_portal("p").execute("p").sync());
        two.ask(&script().run("a").sync());
        assert!(two.alter());
        two.swap();
        assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"]);
    });
}

#[test]
fn a_client_that_prepares_anew_gets_what_there_is() {
    each_piece(|mut two| {
        two.ask(&parse_and_describe());
        two.swap();
        two.ask(&script().run("a").sync());
        assert!(two.alter());
        assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"]);
        for name in ["b", "c"] {
            // The second time in a transaction, on the server that has it as it was.
            two.swap();
            let again = script().query("begin").parse(name, "select 1").describe_statement(name).flush().run(name);
            let got = two.ask(&again.sync().query("rollback"));
            assert_eq!(got[2..], ["1", "t", "T", "2", "D 1 of 1", "C SELECT 1", "Z T", "C ROLLBACK", "Z I"]);
        }
    });
}

#[test]
fn a_client_that_describes_what_it_binds_sees_nothing_of_it() {
    each_piece(|mut two| {
        let batch = script().bind("", "a").describe_portal("").execute("").sync();
        two.ask(&parse_and_describe());
        for change in 1..5 {
            assert!(two.alter());
            if change % 2 == 0 {
                two.swap();
            }
            let row = format!("D 1 of {change}");
            assert_eq!(two.ask(&batch), ["2", "T", &row, "C SELECT 1", "Z I"]);
            two.swap();
            let by_name = script().describe_statement("a").bind("", "a").execute("").sync();
            assert_eq!(two.ask(&by_name), ["t", "T", "2", &row, "C SELECT 1", "Z I"]);
        }
        assert_eq!(two.pool.interner.refused().1, 0);
    });
}

#[test]
fn a_client_that_never_asked_sees_nothing_of_it() {
    each_piece(|mut two| {
        two.ask(&script().parse("a", "select 1").sync());
        for change in 1..4 {
            assert!(two.alter());
            two.swap();
            let row = format!("D 1 of {change}");
            assert_eq!(two.ask(&script().run("a").sync()), ["2", &row, "C SELECT 1", "Z I"]);
        }
    });
}

#[test]
fn columns_that_are_the_same_elsewhere_cost_a_question_once() {
    each_piece(|mut two| {
        two.ask(&script().parse("b", "insert me").parse("a", "select 1").describe_statement("a").sync());
        two.swap();
        assert_eq!(two.ask(&script().run("a").run("b").sync())[..2], ["2", "D 1 of 0"]);
        let parses = two.pool.model.parses;
        let client = two.another_client();
        two.bytes(client, &script().parse("x", "select 1").describe_statement("x").sync());
        for _ in 0..3 {
            assert_eq!(two.ask(&script().run("a").sync()), ["2", "D 1 of 0", "C SELECT 1", "Z I"]);
            assert_eq!(lines(&two.bytes(client, &script().run("x").sync()))[..2], ["2", "D 1 of 0"]);
        }
        assert_eq!(two.pool.model.parses, parses);
    });
}

#[test]
fn a_close_that_is_skipped_leaves_what_the_client_was_told_before_it() {
    each_piece(|mut two| {
        two.ask(&script().parse("a", "select 1").sync());
        two.ask(&script().describe_statement("a").describe_portal("nope").close_statement("a").sync());
        two.swap();
        assert_eq!(two.ask(&script().run("a").sync()), ["2", "D 1 of 0", "C SELECT 1", "Z I"]);
        assert!(two.alter());
        two.swap();
        assert_eq!(two.ask(&script().run("a").sync()), [STALE, "Z I"]);
    });
}

#[test]
fn what_was_bound_before_it_is_answered_and_its_transaction_fails() {
    each_piece(|mut two| {
        two.ask(&script().parse("b", "insert me").sync().then(parse_and_describe()));
        assert!(two.alter());
        two.swap();
        let got = two.ask(&script().run("b").run("a").run("b").sync().query("rows me"));
        assert_eq!(got, ["2", "C INSERT 0 1", STALE, "Z I", "T", "D 0", "C SELECT 1", "Z I"]);
        let inside = script().query("begin").run("b").run("a").sync().run("a").sync().query("rollback");
        let aborted = "E 25P02 current transaction is aborted";
        assert_eq!(two.ask(&inside)[2..7], ["2", "C INSERT 0 1", STALE, "Z E", aborted]);
    });
}

#[test]
fn a_bind_too_long_to_be_held_is_settled_where_it_is() {
    each_piece(|mut two| {
        two.pool.limits.max_held_message = 100;
        let long = format!("p{}", "x".repeat(200));
        let run = || script().bind(&long, "a").execute(&long).sync();
        two.ask(&parse_and_describe());
        two.swap();
        assert_eq!(two.ask(&run()), ["2", "D 1 of 0", "C SELECT 1", "Z I"]);
        assert!(two.alter());
        two.swap();
        assert_eq!(two.ask(&run()), [STALE, "Z I"]);
    });
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Parse(u8),
    Close(u8),
    Describe(u8),
    Run(u8),
    RunDescribed(u8),
    DescribeAndRun(u8),
    Alter,
    Swap,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0u8..2;
    prop_oneof![
        2 => name.clone().prop_map(Op::Parse),
        1 => name.clone().prop_map(Op::Close),
        2 => name.clone().prop_map(Op::Describe),
        4 => name.clone().prop_map(Op::Run),
        2 => name.clone().prop_map(Op::RunDescribed),
        1 => name.prop_map(Op::DescribeAndRun),
        3 => Just(Op::Alter),
        3 => Just(Op::Swap),
    ]
}

fn batch(op: Op) -> Script {
    let name = |n| format!("s{n}");
    match op {
        Op::Parse(n) => script().parse(&name(n), "select 1").sync(),
        Op::Close(n) => script().close_statement(&name(n)).sync(),
        Op::Describe(n) => script().describe_statement(&name(n)).sync(),
        Op::Run(n) => script().run(&name(n)).sync(),
        Op::RunDescribed(n) => script().bind("", &name(n)).describe_portal("").execute("").sync(),
        Op::DescribeAndRun(n) => script().describe_statement(&name(n)).run(&name(n)).sync(),
        Op::Alter | Op::Swap => script(),
    }
}

proptest! {
    /// Two servers whose tables change: rows are of the columns that were told last, and of a name that was told nothing,
    /// or is described with its rows, no client hears anything.
    #[test]
    fn rows_are_of_the_columns_that_were_told(ops in proptest::collection::vec(op(), 1..25), piece in 1usize..40) {
        let mut two = Two::new(piece);
        let mut told: [Option<String>; 2] = [None, None];
        for op in ops {
            match op {
                Op::Swap => two.swap(),
                Op::Alter => drop(two.alter()),
                _ => {}
            }
            let n = match op {
                Op::Parse(n) | Op::Close(n) | Op::Describe(n) | Op::Run(n) | Op::RunDescribed(n) | Op::DescribeAndRun(n) => {
                    usize::from(n)
                }
                _ => 0,
            };
            let got = two.bytes(0, &batch(op));
            let mut rest = &got[..];
            while let Some(message) = frame::whole(rest, 10_000).unwrap() {
                rest = &rest[message.total_len()..];
                let text = String::from_utf8_lossy(message.body).into_owned();
                let of = || text.split(" of ").nth(1).unwrap().split('\0').next().unwrap().to_owned();
                match message.tag {
                    b'1' | b'3' => told[n] = None,
                    b'T' => told[n] = Some(of()),
                    b'D' => prop_assert!(told[n].as_ref().is_none_or(|told| *told == of()), "{:?} {}", told, text),
                    b'E' if text.contains("0A000") => {
                        prop_assert!(matches!(op, Op::Run(_)) && told[n].is_some(), "{:?}", op);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The setting is known between the Describe and the Bind; from then on the name stands for the text as read under it.
#[test]
fn a_setting_that_changes_before_what_was_asked_is_answered_changes_nothing_of_the_answer() {
    for seed in 0..300 {
        let mut pool = Pool::new();
        let sent = script()
            .run_text("set TimeZone Europe/Oslo")
            .parse("a", "select 1")
            .sync()
            .run_text("set TimeZone Asia/Tokyo")
            .describe_statement("a")
            .run("a")
            .sync();
        let client = pool.client(sent.clone());
        pool.serve_all(&mut Schedule::new(seed, 7));
        assert_eq!(pool.clients[client].lines(), Pool::alone(&sent), "seed {seed}");
    }
}
