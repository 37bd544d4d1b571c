//! `model` is PostgreSQL as far as its messages go, `script` what a client sends, `link` moves bytes between a client, the
//! core and the model without sockets. The rest are tests, one file for each idea.

mod columns;
mod driver;
mod flow;
mod freed;
mod heal;
mod leftovers;
mod limits;
mod link;
mod model;
mod named_unasked;
mod random;
mod script;
mod settings;
mod spill;
mod traps;
mod unnamed;
