//! A configuration file as a tree that remembers where everything stood.
//!
//! Scalars keep their text as written: `password: 1e5` is the password `1e5`, and `port: "${DB_PORT}"` is a number once
//! the variable is replaced. What a scalar means is for the reader of its key to say.

use crate::config::error::Position;

/// A value and the place of its first character.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`: as if the key were not there.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
    /// Already reported; readers say no more about it.
    Broken,
}

impl Value {
    /// Returns what an operator calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Broken => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub text: String,
    /// Errors may quote it: false when any of it came from the environment, which is where secrets come from.
    pub quotable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub at: Position,
    pub name: String,
}
