//! Who listens to what, and what the one connection must be told for it. Pure: told what happens, it says what to do.
//!
//! A channel is listened to while anybody wants it. A client joins in three steps: it asks, it is ready when the server has
//! confirmed all of its channels, and it is given what comes behind its marker. The server is told one command at a time, so
//! what it listens to is never in doubt but for that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A channel's name, as the server keeps it.
pub type Channel = Arc<[u8]>;

/// Channels that one command names.
const COMMAND_MAX: usize = 100;

/// What the server does about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Off,
    /// Named by the command under way.
    Turning,
    On,
}

#[derive(Debug)]
struct Heard {
    side: Side,
    /// By client: whether it is given what comes, or only joins.
    listeners: BTreeMap<u64, bool>,
}

#[derive(Debug)]
struct Join {
    client: u64,
    channels: Vec<Channel>,
    /// Its marker may have been sent.
    begun: bool,
}

/// What the server is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub listen: Vec<Channel>,
    pub unlisten: Vec<Channel>,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// Those that somebody wants, or the server has. bound: `max_notification_channels` of each client.
    channels: BTreeMap<Channel, Heard>,
    /// Those of which the server may have to be told. bound: as `channels`
    due: BTreeSet<Channel>,
    /// What each client wants. bound: as `channels`
    wants: BTreeMap<u64, BTreeSet<Channel>>,
    /// bound: one for each client
    joins: BTreeMap<u64, Join>,
    tickets: u64,
    under_way: Option<Command>,
}

impl Roster {
    /// A client wants these channels. Returns the number of its join, which is its marker.
    pub fn join(&mut self, client: u64, channels: Vec<Channel>) -> u64 {
        for channel in &channels {
            let fresh = || Heard { side: Side::Off, listeners: BTreeMap::new() };
            let heard = self.channels.entry(channel.clone()).or_insert_with(fresh);
            heard.listeners.entry(client).or_insert(false);
            self.wants.entry(client).or_default().insert(channel.clone());
            self.due.insert(channel.clone());
        }
        self.tickets += 1;
        self.joins.insert(self.tickets, Join { client, channels, begun: false });
        self.tickets
    }

    /// Returns whether the server listens to all that a join asked for.
    pub fn is_ready(&self, ticket: u64) -> bool {
        self.joins.get(&ticket).is_some_and(|join| join.channels.iter().all(|channel| self.is_on(channel)))
    }

    fn is_on(&self, channel: &Channel) -> bool {
        self.channels.get(channel).is_some_and(|heard| heard.side == Side::On)
    }

    /// The marker of a join is about to be sent, if it is ready; returns whether it is. From now on a loss is the client's.
    pub fn begin(&mut self, ticket: u64) -> bool {
        let ready = self.is_ready(ticket);
        if ready && let Some(join) = self.joins.get_mut(&ticket) {
            join.begun = true;
        }
        ready
    }

    /// A marker came: its client is given what comes behind it.
    pub fn crossed(&mut self, ticket: u64) {
        let Some(join) = self.joins.remove(&ticket) else { return };
        for channel in &join.channels {
            if let Some(live) = self.channels.get_mut(channel).and_then(|heard| heard.listeners.get_mut(&join.client)) {
                *live = true;
            }
        }
    }

    /// A join is given up.
    pub fn withdraw(&mut self, ticket: u64) {
        let Some(Join { client, channels, .. }) = self.joins.remove(&ticket) else { return };
        let only_joins = |heard: &Heard| heard.listeners.get(&client) == Some(&false);
        for channel in channels {
            if self.channels.get(&channel).is_some_and(only_joins) {
                self.drop_want(client, &channel);
            }
        }
    }

    /// A client does not want these channels any more.
    pub fn leave(&mut self, client: u64, channels: &[Channel]) {
        channels.iter().for_each(|channel| self.drop_want(client, channel));
    }

    /// A client has gone.
    pub fn gone(&mut self, client: u64) {
        self.joins.retain(|_, join| join.client != client);
        for channel in self.wants.remove(&client).unwrap_or_default() {
            self.drop_want(client, &channel);
        }
    }

    fn drop_want(&mut self, client: u64, channel: &Channel) {
        if let Some(wants) = self.wants.get_mut(&client) {
            wants.remove(channel);
            if wants.is_empty() {
                self.wants.remove(&client);
            }
        }
        if let Some(heard) = self.channels.get_mut(channel) {
            heard.listeners.remove(&client);
        }
        self.look_at(channel);
    }

    /// Notes that the server may have to be told of a channel, or forgets one that nobody knows any more.
    fn look_at(&mut self, channel: &Channel) {
        let Some(heard) = self.channels.get(channel) else { return };
        if heard.side == Side::Off && heard.listeners.is_empty() {
            self.channels.remove(channel);
            self.due.remove(channel);
        } else {
            self.due.insert(channel.clone());
        }
    }

    /// Returns what to tell the server next, if anything. Nothing while it is at the last command.
    pub fn command(&mut self) -> Option<Command> {
        if self.under_way.is_some() {
            return None;
        }
        let mut command = Command::default();
        while command.listen.len() + command.unlisten.len() < COMMAND_MAX
            && let Some(channel) = self.due.pop_first()
        {
            let Some(heard) = self.channels.get_mut(&channel) else { continue };
            match (heard.side, heard.listeners.is_empty()) {
                (Side::Off, false) => command.listen.push(channel),
                (Side::On, true) => command.unlisten.push(channel),
                _ => continue,
            }
            heard.side = Side::Turning;
        }
        if command == Command::default() {
            return None;
        }
        self.under_way = Some(command.clone());
        Some(command)
    }

    /// The server has answered the last command: it did all of it, or nothing. Returns the clients that may be ready now.
    pub fn answered(&mut self, done: bool) -> BTreeSet<u64> {
        let mut joining = BTreeSet::new();
        let Some(Command { listen, unlisten }) = self.under_way.take() else { return joining };
        for (channels, now) in [(listen, done), (unlisten, !done)] {
            for channel in channels {
                if let Some(heard) = self.channels.get_mut(&channel) {
                    heard.side = if now { Side::On } else { Side::Off };
                    let waits = heard.listeners.iter().filter(|(_, live)| now && !**live);
                    joining.extend(waits.map(|(client, _)| *client));
                }
                self.look_at(&channel);
            }
        }
        joining
    }

    /// Iterates over the clients that are given what comes on a channel.
    pub fn listeners(&self, channel: &[u8]) -> impl Iterator<Item = u64> {
        let heard = self.channels.get(channel);
        heard.into_iter().flat_map(|heard| &heard.listeners).filter(|(_, live)| **live).map(|(client, _)| *client)
    }

    /// The connection is gone. Returns the clients that may have missed something, which are forgotten; who has not begun to
    /// move waits for the next connection.
    pub fn lost(&mut self) -> BTreeSet<u64> {
        self.under_way = None;
        let begun = self.joins.values().filter(|join| join.begun).map(|join| join.client);
        let live = self.channels.values().flat_map(|heard| &heard.listeners).filter(|(_, live)| **live);
        let ended: BTreeSet<u64> = begun.chain(live.map(|(client, _)| *client)).collect();
        for heard in self.channels.values_mut() {
            heard.side = Side::Off;
        }
        ended.iter().for_each(|client| self.gone(*client));
        for channel in self.channels.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&channel);
        }
        ended
    }

    /// Returns whether nobody wants anything.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    /// Returns how many channels the server listens to.
    pub fn on_server(&self) -> usize {
        self.channels.values().filter(|heard| heard.side == Side::On).count()
    }
}

#[cfg(test)]
mod tests;
