//! `LISTEN` without a server of one's own: one connection of each pool listens for all its clients.
//!
//! A client's LISTEN runs on whatever server it has, with PostgreSQL's own rules for transactions. Once it is committed, the
//! client's channels move: the pool's listening connection ([`Hub`]) listens to them too, the server is told `UNLISTEN *` and
//! goes back, and from then on the client gets its notifications from here. PostgreSQL keeps all notifications of a cluster in
//! one queue, and every session reads it in the same order. So a marker decides what comes from where: when the hub listens,
//! the client's server listens to a channel of the hub's as well and notifies it with the move's number. What the server
//! reads before the marker is the client's from there; what the hub reads behind it is the client's from here. Nothing is lost
//! in between, nothing comes twice, and the order is PostgreSQL's.
//!
//! Nothing is lost in silence afterwards either: when the hub's connection ends, or more waits for a client than
//! `notification_queue`, the client is ended with an error that says so, as it would have been with the session that listened.
//!
//! | file | one idea |
//! |---|---|
//! | `roster` | who listens to what, and what the connection must be told for it; pure |
//! | `mailbox` | what waits for one client |
//! | `hub` | where sessions and the connection meet |
//! | `connection` | the connection itself |

mod connection;
mod hub;
mod mailbox;
mod roster;

pub use self::{
    hub::{Census, Hub, Listening, Post, Ticket},
    mailbox::{Loss, Mailbox},
    roster::Channel,
};
