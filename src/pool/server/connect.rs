//! From a host name to a connection that is ready for its first query, within `server_connect_timeout`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{
    ask::ask,
    credential::ServerLogin,
    error::ServerError,
    hosts::{Host, Hosts},
    login::{Fresh, Greeting, login},
    secure::secure,
    stream::ServerStream,
};
use crate::{
    config::pool::{Protocol, RequireAuth, ServerTls, Tcp},
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
    pub hosts: Arc<Hosts>,
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
    pub require_auth: RequireAuth,
    /// The newest version of the protocol that is asked for.
    pub protocol: Protocol,
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
    pub host: Host,
}

/// A socket that is connected, and where it leads.
#[derive(Debug)]
pub struct Reached {
    pub socket: Socket,
    pub peer: Peer,
    pub endpoint: Endpoint,
}

/// Opens and logs in a connection, to the first of the hosts that is there. `nonce` must be random.
///
/// Cancel safe: an abandoned call closes the connection.
pub async fn open(spec: &Spec, deriver: &Deriver, nonce: [u8; NONCE_LEN]) -> Result<Opened, ServerError> {
    let deadline = Instant::now() + spec.connect_timeout;
    let mut last = ServerError::Resolve { why: "there is no host".into() };
    let mut hosts = spec.hosts.in_turn();
    while let Some((at, host)) = hosts.next() {
        match open_at(host, spec, deriver, nonce, share(deadline, hosts.len() + 1)).await {
            Err(error) if error.is_transient() => {
                spec.hosts.failed(at);
                last = error;
            }
            decided => return decided,
        }
    }
    Err(last)
}

/// Returns when the next of so many that are left must be done, so that one that swallows packets does not keep the others
/// from being tried.
pub fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX).max(1)
}

async fn open_at(
    host: &Host,
    spec: &Spec,
    deriver: &Deriver,
    nonce: [u8; NONCE_LEN],
    deadline: Instant,
) -> Result<Opened, ServerError> {
    let Reached { socket, peer, endpoint } = connect(host, spec.port, &spec.tcp, deadline).await?;
    let talk = async {
        let stream = secure(socket, &host.text, spec.tls.as_deref()).await?;
        let end_point = match &stream {
            ServerStream::Plain(_) => None,
            ServerStream::Tls(stream) => server_end_point(stream),
        };
        let greeting = Greeting {
            dbname: &spec.dbname,
            login: &spec.login,
            params: &spec.params,
            require_auth: spec.require_auth,
            protocol: spec.protocol,
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
        Ok(Opened { fresh, peer, endpoint, host: host.clone() })
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
/// share of the time that is left.
pub async fn connect(host: &Host, port: u16, tcp: &Tcp, deadline: Instant) -> Result<Reached, ServerError> {
    let Some(name) = &host.name else {
        let endpoint = Endpoint::unix(&host.text, port).ok_or(ServerError::Resolve { why: "no Unix socket".into() })?;
        return reach(endpoint, tcp, deadline).await;
    };
    let found = timeout_at(deadline, name.addresses()).await;
    let slow = || ServerError::Resolve { why: "the resolver did not answer in time".into() };
    let addresses: Vec<IpAddr> = found.unwrap_or_else(|_| Err(slow()))?; // bound: the resolver's answer
    let mut last = ServerError::Resolve { why: "the name has no address".into() };
    for (tried, address) in addresses.iter().enumerate() {
        let endpoint = Endpoint::Tcp(SocketAddr::new(*address, port));
        let reached = reach(endpoint, tcp, share(deadline, addresses.len() - tried)).await;
        name.tried(*address, reached.is_ok(), Instant::now());
        match reached {
            Ok(reached) => return Ok(reached),
            Err(error) => last = error,
        }
    }
    name.doubt(Instant::now());
    Err(last)
}

async fn reach(endpoint: Endpoint, tcp: &Tcp, deadline: Instant) -> Result<Reached, ServerError> {
    let (socket, peer) = match timeout_at(deadline, endpoint.connect()).await {
        Ok(connected) => connected.map_err(unreachable)?,
        Err(_) => return Err(ServerError::Timeout),
    };
    if let Socket::Tcp(stream) = &socket {
        tune(stream, tcp).map_err(unreachable)?;
    }
    Ok(Reached { socket, peer, endpoint })
}

/// Says what the system said without the address, which is not for clients.
fn unreachable(error: io::Error) -> ServerError {
    ServerError::Connect { why: error.kind().to_string() }
}
