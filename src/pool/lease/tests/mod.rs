//! The store against servers that stall, refuse, die and speak out of turn, on a clock that only moves when told.

mod budget;
mod checks;
mod fake;
mod handover;
mod logins;
mod upkeep;
