//! From a host name to a connection that is ready for its first query, within `server_connect_timeout`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::{
    credential::ServerLogin,
    error::ServerError,
    login::{Fresh, Greeting, login},
    secure::secure,
    stream::ServerStream,
};
use crate::{
    config::pool::ServerTls,
    pool::auth::{derive::Deriver, scram::NONCE_LEN},
    tls::server_end_point,
};

/// When an idle connection is probed, how often, and when it is given up: a server that vanished without a word is noticed
/// after two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// Where to connect and as whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub host: Arc<str>,
    pub port: u16,
    /// The database's name on the server.
    pub dbname: Arc<str>,
    pub login: ServerLogin,
    /// Settings for the startup packet (`application_name`, …); `client_encoding` is UTF8 unless it is among them.
    pub params: Vec<(String, String)>,
    pub tls: Option<Arc<ServerTls>>,
    /// `server_connect_timeout`: lookup, connect, TLS and login together.
    pub connect_timeout: Duration,
}

/// Opens and logs in a connection. `nonce` must be random.
///
/// Cancel safe: an abandoned call closes the connection.
pub async fn open(spec: &Spec, deriver: &Deriver, nonce: [u8; NONCE_LEN]) -> Result<Fresh<ServerStream>, ServerError> {
    let deadline = Instant::now() + spec.connect_timeout;
    let socket = connect(&spec.host, spec.port, deadline).await?;
    let talk = async {
        let stream = secure(socket, &spec.host, spec.tls.as_deref()).await?;
        let end_point = match &stream {
            ServerStream::Plain(_) => None,
            ServerStream::Tls(stream) => server_end_point(stream),
        };
        let greeting = Greeting {
            dbname: &spec.dbname,
            login: &spec.login,
            params: &spec.params,
            end_point: end_point.as_deref(),
        };
        login(stream, greeting, deriver, nonce).await
    };
    timeout_at(deadline, talk).await.unwrap_or(Err(ServerError::Timeout))
}

/// Connects to the first address of `host` that answers. Each address has its share of the time that is left, so that
/// one that swallows packets does not keep the others from being tried.
pub async fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ServerError> {
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(), // bound: the resolver's answer
        Ok(Err(e)) => return Err(ServerError::Resolve { why: e.to_string() }),
        Err(_) => return Err(ServerError::Resolve { why: "the resolver did not answer in time".into() }),
    };
    let mut last = ServerError::Resolve { why: "the name has no address".into() };
    for (tried, &address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return tune(&stream).map(|()| stream).map_err(unreachable),
            Ok(Err(e)) => last = unreachable(e),
            Err(_) => last = ServerError::Timeout,
        }
    }
    Err(last)
}

/// Small messages leave at once, and a dead peer is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Says what the system said without the address, which is not for clients.
fn unreachable(error: io::Error) -> ServerError {
    ServerError::Connect { why: error.kind().to_string() }
}
