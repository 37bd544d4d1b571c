//! One file for each idea of the relay; `model` is PostgreSQL as far as its messages go, `script` says what a client sends.

mod driver;
