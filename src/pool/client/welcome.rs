//! What a client is told between AuthenticationOk and its first query.

use crate::pool::{
    registry::ClientEntry,
    wire::backend::{self, TxStatus},
};

/// Appends the parameters, the key by which the session can be cancelled, and ReadyForQuery.
pub fn welcome<'a>(out: &mut Vec<u8>, params: impl IntoIterator<Item = (&'a str, &'a [u8])>, client: &ClientEntry) {
    for (name, value) in params {
        backend::parameter_status(out, name, value);
    }
    backend::backend_key_data(out, client.key().pid(), &client.secret());
    backend::ready_for_query(out, TxStatus::Idle);
}
