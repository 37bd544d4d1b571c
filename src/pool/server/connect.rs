//! From a host name to a connection that is ready for its first query, within `server_connect_timeout`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    time::{Instant, timeout_at},
};

use super::{
    ask::ask,
    credential::ServerLogin,
    error::ServerError,
    login::{Fresh, Greeting, login},
    secure::secure,
    stream::ServerStream,
};
use crate::{
    config::pool::{ServerTls, Tcp},
    pool::{
        auth::{derive::Deriver, scram::NONCE_LEN},
        peer::Peer,
        socket::{Endpoint, Socket, tune},
    },
    tls::server_end_point,
};

/// Where to connect and as whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// A name, an address, or the folder of a Unix socket.
    pub host: Arc<str>,
    pub port: u16,
    /// The database's name on the server.
    pub dbname: Arc<str>,
    pub login: ServerLogin,
    /// Settings for the startup packet (`application_name`, …); `client_encoding` is UTF8 unless it is among them.
    pub params: Vec<(String, String)>,
    /// Run on each new connection before any client has it.
    pub connect_query: Option<Arc<str>>,
    /// Run on a connection that has rested for long before a client has it.
    pub check_query: Option<Arc<str>>,
    pub tls: Option<Arc<ServerTls>>,
    pub tcp: Tcp,
    /// `server_connect_timeout`: lookup, connect, TLS, login and `connect_query` together; and one check.
    pub connect_timeout: Duration,
}

/// A connection that is logged in, and where it leads.
#[derive(Debug)]
pub struct Opened {
    pub fresh: Fresh<ServerStream>,
    pub peer: Peer,
    pub endpoint: Endpoint,
}

/// A socket that is connected, and where it leads.
#[derive(Debug)]
pub struct Reached {
    pub socket: Socket,
    pub peer: Peer,
    pub endpoint: Endpoint,
}

/// Opens and logs in a connection. `nonce` must be random.
///
/// Cancel safe: an abandoned call closes the connection.
pub async fn open(spec: &Spec, deriver: &Deriver, nonce: [u8; NONCE_LEN]) -> Result<Opened, ServerError> {
    let deadline = Instant::now() + spec.connect_timeout;
    let Reached { socket, peer, endpoint } = connect(&spec.host, spec.port, &spec.tcp, deadline).await?;
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
        let mut fresh = login(stream, greeting, deriver, nonce).await?;
        if let Some(query) = &spec.connect_query {
            let reported = ask(&mut fresh.stream, query, deadline).await.map_err(named)?;
            for (name, value) in reported {
                fresh.params.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
                fresh.params.push((name, value));
            }
        }
        Ok(Opened { fresh, peer, endpoint })
    };
    timeout_at(deadline, talk).await.unwrap_or(Err(ServerError::Timeout))
}

/// Says that what failed was `connect_query`.
fn named(error: ServerError) -> ServerError {
    match error {
        ServerError::Refused { sqlstate, message } => ServerError::ConnectQuery { sqlstate, message },
        other => other,
    }
}

/// Connects to `host`: the Unix socket that it names, or the first of its addresses that answers. Each address has its
/// share of the time that is left, so that one that swallows packets does not keep the others from being tried.
pub async fn connect(host: &str, port: u16, tcp: &Tcp, deadline: Instant) -> Result<Reached, ServerError> {
    let endpoints: Vec<Endpoint> = match Endpoint::unix(host, port) {
        Some(endpoint) => vec![endpoint],
        None => lookup(host, port, deadline).await?.into_iter().map(Endpoint::Tcp).collect(),
    };
    let mut last = ServerError::Resolve { why: "the name has no address".into() };
    let mut left = endpoints.len();
    for endpoint in endpoints {
        let time = deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + time / u32::try_from(left).unwrap_or(u32::MAX);
        left -= 1;
        match timeout_at(share, endpoint.connect()).await {
            Ok(Ok((socket, peer))) => {
                if let Socket::Tcp(stream) = &socket {
                    tune(stream, tcp).map_err(unreachable)?;
                }
                return Ok(Reached { socket, peer, endpoint });
            }
            Ok(Err(e)) => last = unreachable(e),
            Err(_) => last = ServerError::Timeout,
        }
    }
    Err(last)
}

/// Returns the addresses of a name.
async fn lookup(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, ServerError> {
    match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()), // bound: the resolver's answer
        Ok(Err(e)) => Err(ServerError::Resolve { why: e.to_string() }),
        Err(_) => Err(ServerError::Resolve { why: "the resolver did not answer in time".into() }),
    }
}

/// Says what the system said without the address, which is not for clients.
fn unreachable(error: io::Error) -> ServerError {
    ServerError::Connect { why: error.kind().to_string() }
}
