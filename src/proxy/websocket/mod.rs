//! WebSockets: a handshake that is passed on strictly, then a tunnel that costs next to nothing.
mod frame;
pub(super) mod handshake;
pub(super) mod tunnel;
