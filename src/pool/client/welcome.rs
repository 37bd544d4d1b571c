//! What a client is told between AuthenticationOk and its first query.

use crate::pool::wire::backend::{self, TxStatus};

/// Appends the parameters, the key by which the session can be cancelled, and ReadyForQuery.
pub fn welcome<'a>(out: &mut Vec<u8>, params: impl IntoIterator<Item = (&'a str, &'a [u8])>, pid: i32, secret: &[u8]) {
    for (name, value) in params {
        backend::parameter_status(out, name, value);
    }
    backend::backend_key_data(out, pid, secret);
    backend::ready_for_query(out, TxStatus::Idle);
}
