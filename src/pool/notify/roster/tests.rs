use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn channel(name: &str) -> Channel {
    name.as_bytes().into()
}

/// Joins, has the server do it, and crosses.
fn listens(roster: &mut Roster, client: u64, names: &[&str]) {
    let ticket = roster.join(client, names.iter().map(|name| channel(name)).collect());
    while roster.command().is_some() {
        roster.answered(true);
    }
    assert!(roster.begin(ticket));
    roster.crossed(ticket);
}

fn to(roster: &Roster, name: &str) -> Vec<u64> {
    roster.listeners(name.as_bytes()).collect()
}

#[test]
fn nobody_is_given_anything_before_the_marker() {
    let mut roster = Roster::default();
    let ticket = roster.join(1, vec![channel("a")]);
    assert!(!roster.begin(ticket), "the server does not listen yet");
    assert_eq!(roster.command().unwrap().listen, [channel("a")]);
    assert_eq!(roster.command(), None, "one at a time");
    assert_eq!(roster.answered(true), BTreeSet::from([1]));
    assert!(roster.begin(ticket));
    assert!(to(&roster, "a").is_empty());
    roster.crossed(ticket);
    assert_eq!(to(&roster, "a"), [1]);
}

#[test]
fn a_channel_is_left_with_the_last_who_wants_it() {
    let mut roster = Roster::default();
    listens(&mut roster, 1, &["a", "b"]);
    listens(&mut roster, 2, &["a"]);
    roster.leave(1, &[channel("a")]);
    assert_eq!(roster.command(), None, "another one listens");
    roster.gone(2);
    assert_eq!(roster.command(), Some(Command { listen: vec![], unlisten: vec![channel("a")] }));
    // Somebody wants it again before the server has let go of it.
    let ticket = roster.join(3, vec![channel("a")]);
    assert_eq!(roster.answered(true), BTreeSet::new());
    assert!(!roster.is_ready(ticket));
    assert_eq!(roster.command(), Some(Command { listen: vec![channel("a")], unlisten: vec![] }));
    assert_eq!(roster.answered(true), BTreeSet::from([3]));
    assert!(roster.is_ready(ticket));
}

#[test]
fn what_the_server_refused_is_asked_again() {
    let mut roster = Roster::default();
    let ticket = roster.join(1, vec![channel("a")]);
    roster.command().unwrap();
    assert_eq!(roster.answered(false), BTreeSet::new());
    assert!(!roster.is_ready(ticket));
    assert_eq!(roster.command().unwrap().listen, [channel("a")]);
    roster.answered(true);
    roster.withdraw(ticket);
    assert!(roster.is_idle());
    assert_eq!(roster.command().unwrap().unlisten, [channel("a")]);
}

#[test]
fn with_the_connection_go_those_who_listened_and_those_who_moved_and_nobody_else() {
    let mut roster = Roster::default();
    listens(&mut roster, 1, &["a"]);
    let moves = roster.join(2, vec![channel("a")]);
    assert!(roster.begin(moves));
    let waits = roster.join(3, vec![channel("a"), channel("b")]);
    assert_eq!(roster.lost(), BTreeSet::from([1, 2]));
    assert!(!roster.begin(waits), "the next connection does not listen yet");
    let command = roster.command().unwrap();
    assert_eq!(command.listen, [channel("a"), channel("b")]);
    roster.answered(true);
    assert!(roster.begin(waits));
    roster.crossed(moves);
    assert!(to(&roster, "a").is_empty(), "a marker of the connection before");
}

#[derive(Debug, Clone)]
enum Step {
    Join(u64, Vec<u8>),
    Begin(usize),
    Crossed(usize),
    Withdraw(usize),
    Leave(u64, u8),
    Gone(u64),
    Command,
    Answered(bool),
    Lost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 1..5u64;
    let step = prop_oneof![
        4 => (client.clone(), prop::collection::vec(0..4u8, 1..3)).prop_map(|(client, names)| Step::Join(client, names)),
        4 => any::<prop::sample::Index>().prop_map(|index| Step::Begin(index.index(8))),
        4 => any::<prop::sample::Index>().prop_map(|index| Step::Crossed(index.index(8))),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Withdraw(index.index(8))),
        2 => (client.clone(), 0..4u8).prop_map(|(client, name)| Step::Leave(client, name)),
        1 => client.prop_map(Step::Gone),
        6 => Just(Step::Command),
        6 => prop::bool::weighted(0.9).prop_map(Step::Answered),
        1 => Just(Step::Lost),
    ];
    prop::collection::vec(step, 1..120)
}

/// A server that does as it is told, and a plain list of who listens.
#[derive(Default)]
struct Model {
    roster: Roster,
    /// What the server surely listens to.
    server: BTreeSet<Channel>,
    under_way: Option<Command>,
    /// Tickets with their client, channels, and whether the marker was sent.
    tickets: Vec<(u64, u64, Vec<Channel>, bool)>,
    live: BTreeMap<(u64, Channel), ()>,
    /// Wanted by a join or given.
    wanted: BTreeSet<(u64, Channel)>,
}

impl Model {
    fn forget(&mut self, client: u64) {
        self.tickets.retain(|(_, owner, ..)| *owner != client);
        self.live.retain(|(owner, _), ()| *owner != client);
        self.wanted.retain(|(owner, _)| *owner != client);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(client, names) => {
                if self.tickets.iter().any(|(_, owner, ..)| *owner == client) {
                    return; // one at a time
                }
                let names: BTreeSet<u8> = names.into_iter().collect();
                let channels: Vec<_> = names.iter().map(|name| channel(&name.to_string())).collect();
                self.wanted.extend(channels.iter().map(|channel| (client, channel.clone())));
                let ticket = self.roster.join(client, channels.clone());
                self.tickets.push((ticket, client, channels, false));
            }
            Step::Begin(index) => {
                let Some((ticket, _, channels, begun)) = self.tickets.get_mut(index) else { return };
                if self.roster.begin(*ticket) {
                    *begun = true;
                    assert!(channels.iter().all(|channel| self.server.contains(channel)), "ready too early");
                }
            }
            Step::Crossed(index) => {
                if self.tickets.get(index).is_none_or(|(.., begun)| !begun) {
                    return; // no marker without a beginning
                }
                let (ticket, client, channels, _) = self.tickets.remove(index);
                self.roster.crossed(ticket);
                for channel in channels {
                    if self.wanted.contains(&(client, channel.clone())) {
                        self.live.insert((client, channel), ());
                    }
                }
            }
            Step::Withdraw(index) => {
                if index >= self.tickets.len() {
                    return;
                }
                let (ticket, client, channels, _) = self.tickets.remove(index);
                self.roster.withdraw(ticket);
                for channel in channels {
                    if !self.live.contains_key(&(client, channel.clone())) {
                        self.wanted.remove(&(client, channel));
                    }
                }
            }
            Step::Leave(client, name) => {
                if self.tickets.iter().any(|(_, owner, ..)| *owner == client) {
                    return; // what is under way is withdrawn first
                }
                let channel = channel(&name.to_string());
                self.roster.leave(client, std::slice::from_ref(&channel));
                self.live.remove(&(client, channel.clone()));
                self.wanted.remove(&(client, channel));
            }
            Step::Gone(client) => {
                self.roster.gone(client);
                self.forget(client);
            }
            Step::Command => {
                if let Some(command) = self.roster.command() {
                    assert!(self.under_way.is_none());
                    command.unlisten.iter().for_each(|channel| assert!(self.server.remove(channel)));
                    command.listen.iter().for_each(|channel| assert!(!self.server.contains(channel)));
                    self.under_way = Some(command);
                }
            }
            Step::Answered(done) => {
                self.roster.answered(done);
                if let Some(command) = self.under_way.take() {
                    self.server.extend(if done { command.listen } else { command.unlisten });
                }
            }
            Step::Lost => {
                let begun = self.tickets.iter().filter(|(.., begun)| *begun).map(|(_, client, ..)| *client);
                let expected: BTreeSet<u64> = begun.chain(self.live.keys().map(|(client, _)| *client)).collect();
                assert_eq!(self.roster.lost(), expected);
                expected.into_iter().for_each(|client| self.forget(client));
                (self.server, self.under_way) = (BTreeSet::new(), None);
            }
        }
        self.check();
    }

    fn check(&self) {
        for name in 0..4u8 {
            let channel = channel(&name.to_string());
            let live: Vec<u64> =
                self.live.keys().filter(|(_, heard)| *heard == channel).map(|(client, _)| *client).collect();
            assert_eq!(self.roster.listeners(&channel).collect::<Vec<_>>(), live);
            assert!(live.is_empty() || self.server.contains(&channel), "lost in silence");
        }
    }
}

proptest! {
    #[test]
    fn the_server_listens_to_all_that_anybody_is_given_and_in_the_end_to_nothing_else(steps in steps()) {
        let mut model = Model::default();
        steps.into_iter().for_each(|step| model.step(step));
        model.step(Step::Answered(true));
        for _ in 0..4 {
            model.step(Step::Command);
            model.step(Step::Answered(true));
        }
        let wanted: BTreeSet<Channel> = model.wanted.iter().map(|(_, channel)| channel.clone()).collect();
        prop_assert_eq!(&model.server, &wanted);
        prop_assert_eq!(model.roster.is_idle(), wanted.is_empty());
        prop_assert!(model.tickets.iter().all(|(ticket, ..)| model.roster.is_ready(*ticket)));
    }
}
