//! One client of the pool, from its first byte.

pub mod deadline;
pub mod refuse;
pub mod startup;
pub mod welcome;
