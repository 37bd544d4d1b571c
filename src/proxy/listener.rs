//! The front's sockets: `app` binds them, pingora accepts, [`Accept`] serves.

use std::{sync::Arc, time::Duration};

use pingora::{
    listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions},
    protocols::l4::ext::TcpKeepalive,
    services::listening::Service,
};

use super::accept::{Accept, limit::Limit};

/// Finds clients that vanished without a word: a first probe after a minute of silence, gone after five unanswered ones.
/// Without it a WebSocket whose client lost its network stays until the idle timeout.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const KEEPALIVE_PROBES: u32 = 5;

/// Returns the service for pingora to run.
pub(super) fn service<H>(accept: Accept<H>, limits: &[Arc<Limit>], threads: usize) -> Service<Accept<H>> {
    let mut service = Service::new("front".to_owned(), accept);
    service.threads = Some(threads);
    for limit in limits {
        let mut options = TcpSocketOptions::default();
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: KEEPALIVE_IDLE,
            interval: KEEPALIVE_INTERVAL,
            count: KEEPALIVE_PROBES as usize,
            user_timeout: Duration::ZERO,
        });
        // No buffers of pingora's: 64 KiB per connection is most of what an idle one would cost, and `Conn` has its own
        // way of gathering small writes.
        let config = ListenerConfig::tcp(limit.address().to_string())
            .tcp_socket_options(options)
            .l4_buffer(L4BufferSettings::unbuffered());
        service.add_listener(config);
    }
    service
}
