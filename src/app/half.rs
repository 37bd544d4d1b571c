//! What the composition root needs of a half of the program, so that both are tied in the same way.

use std::sync::Arc;

use pingora::services::ServiceWithDependents;

use crate::{
    app::{
        listen::Wanted,
        pages::Section,
        reload::{Databases, Part, Servers},
    },
    health::drain::Drain,
};

/// The front or the pool, built and not started.
pub struct Half {
    pub services: Vec<Box<dyn ServiceWithDependents>>,
    /// When it leaves, and what it still has to do.
    pub drain: Drain,
    /// Of each listening service.
    pub threads: usize,
    /// Every address its services listen on.
    pub listens: Vec<Wanted>,
    pub part: Arc<dyn Part>,
    /// The front has them.
    pub servers: Option<Arc<dyn Servers>>,
    /// Of the pool alone.
    pub databases: Option<Arc<dyn Databases>>,
    /// Its part of the status page.
    pub sections: Vec<(&'static str, Section)>,
}
