//! TLS and HTTP/2 towards clients: real handshakes, and a client that speaks frames.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bookend::{
    config::lb::{ClientAuth, Lb, Listener, ListenerTls},
    tls::{Accept, Connect, Connected, Identity, Roots, Verify, Versions},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::client::SendRequest;
use http::{Request, Response, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    front::{Rig, lb},
    http::{Client, PATIENCE, Script, ask, eventually, get, header},
};

/// An authority and what it has signed.
struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["authority".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    fn roots(&self) -> Roots {
        Roots::parse(self.issuer.pem().as_bytes()).unwrap()
    }

    fn identity(&self, name: &str) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    /// Shakes hands as a client that asks for `name`, offers `protocols` and shows `own`.
    async fn dial(
        &self,
        address: SocketAddr,
        name: &str,
        protocols: &[&[u8]],
        own: Option<Identity>,
    ) -> std::io::Result<Connected<TcpStream>> {
        let connect = Connect::new(Verify::AuthorityAndName(self.roots()), own, Versions::Both, protocols).unwrap();
        let stream = TcpStream::connect(address).await?;
        connect.handshake(name, stream).await
    }
}

/// A listener's TLS with these certificates.
fn tls(identities: Vec<Identity>, clients: Option<Roots>, client_auth: ClientAuth) -> ListenerTls {
    let optional = client_auth == ClientAuth::Optional;
    ListenerTls {
        certificates: vec![],
        client_ca_file: None,
        client_auth,
        protocols: None,
        handshake_timeout: Duration::from_secs(10),
        hsts: None,
        accept: Accept::by_name(identities, clients, optional, Versions::Both, &[b"h2", b"http/1.1"]).unwrap(),
    }
}

fn https(servers: &[SocketAddr], tls: ListenerTls) -> Lb {
    let mut lb = lb(servers);
    lb.listeners[0] = Listener { tls: Some(tls), http2: true, ..lb.listeners[0].clone() };
    lb
}

fn for_localhost(authority: &Authority, servers: &[SocketAddr]) -> Lb {
    https(servers, tls(vec![authority.identity("localhost")], None, ClientAuth::None))
}

/// A connection of HTTP/2, and what drives it until it ends.
type Http2 = (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>);

async fn http2(authority: &Authority, rig: &Rig) -> Http2 {
    let stream = authority.dial(rig.address, "localhost", &[b"h2"], None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    (send, tokio::spawn(connection))
}

/// Asks, and returns head and body.
async fn fetch(send: &SendRequest<Bytes>, request: Request<()>, body: &'static str) -> (Response<()>, String) {
    let mut send = send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    }
    let (head, mut body) = timeout(PATIENCE, response).await.expect("an answer").unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(part) = timeout(PATIENCE, body.data()).await.expect("the whole answer") {
        let part = part.unwrap();
        let _ = body.flow_control().release_capacity(part.len());
        text.extend_from_slice(&part);
    }
    (Response::from_parts(head, ()), String::from_utf8(text).unwrap())
}

fn request(path: &str) -> http::request::Builder {
    Request::builder().version(Version::HTTP_2).uri(format!("https://localhost{path}"))
}

#[tokio::test]
async fn a_client_by_tls_is_said_to_be_one_and_told_to_stay() {
    let server = Script::mirror().await;
    let authority = Authority::new();
    let mut own = tls(vec![authority.identity("localhost")], None, ClientAuth::None);
    own.hsts = Some("max-age=60".parse().unwrap());
    let rig = Rig::start(https(&[server.address], own)).await;
    let mut stream = authority.dial(rig.address, "localhost", &[], None).await.unwrap();
    for last in [false, true] {
        let connection = if last { "close" } else { "keep-alive" };
        let text = format!(
            "GET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: http\r\nConnection: {connection}\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        if !last {
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains("x-forwarded-proto: https") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
            }
        }
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.to_lowercase().contains("strict-transport-security: max-age=60\r\n"), "{rest}");
    assert!(rest.contains(&format!("x-forwarded-port: {}", rig.address.port())), "{rest}");
}

#[tokio::test]
async fn an_http2_request_reaches_a_server_as_one_of_http1() {
    let server = Script::start(|mut served| async move {
        while let Some((head, body)) = served.request().await {
            served.answer("200 OK", &(head + &String::from_utf8(body).unwrap())).await;
        }
    })
    .await;
    let authority = Authority::new();
    let rig = Rig::start(for_localhost(&authority, &[server.address])).await;
    let (send, _connection) = http2(&authority, &rig).await;
    let asked = request("/a?b=c").header("cookie", "a=b").header("cookie", "c=d").header("x-forwarded-for", "6.6.6.6");
    let (head, seen) = fetch(&send, asked.body(()).unwrap(), "").await;
    assert_eq!(head.status(), 200);
    assert!(head.headers().contains_key("x-request-id"));
    assert!(!head.headers().contains_key("connection"));
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(&seen, "host"), Some("localhost"));
    assert_eq!(header(&seen, "cookie"), Some("a=b; c=d"));
    assert_eq!(header(&seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(header(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    let line = rig.log.find("the request", |line| line["uri"] == "/a?b=c").await;
    assert_eq!(line["protocol"], "HTTP/2.0");
    // A body without a length goes on in chunks.
    let posted = request("/p").method("POST").body(()).unwrap();
    let (_, seen) = fetch(&send, posted, "hello").await;
    assert!(seen.starts_with("POST /p HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert_eq!(header(&seen, "transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn requests_on_one_connection_do_not_wait_for_each_other() {
    let server = Script::start(|mut served| async move {
        while let Some((head, _)) = served.request().await {
            if head.contains("/slow") {
                std::future::pending::<()>().await;
            }
            served.answer("200 OK", "quick").await;
        }
    })
    .await;
    let authority = Authority::new();
    let rig = Rig::start(for_localhost(&authority, &[server.address])).await;
    let (send, _connection) = http2(&authority, &rig).await;
    let mut ready = send.clone().ready().await.unwrap();
    let (slow, _) = ready.send_request(request("/slow").body(()).unwrap(), true).unwrap();
    for _ in 0..3 {
        assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.1, "quick");
    }
    // One that is given up takes its request to the server with it.
    eventually("the slow request is in flight", || rig.metric("bookend_http_requests_in_flight", &[]) > 0.0).await;
    drop(slow);
    eventually("the slow request has ended", || rig.metric("bookend_http_requests_in_flight", &[]) == 0.0).await;
}

#[tokio::test]
async fn a_plain_listener_serves_http2_by_prior_knowledge_beside_http1() {
    let server = Script::saying("here").await;
    let mut lb = lb(&[server.address]);
    lb.listeners[0].http2 = true;
    let rig = Rig::start(lb).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.1, "here");
    assert_eq!(ask(rig.address, get("/")).await.body, "here");
    // Not the preface after all, and byte by byte.
    let mut client = Client::connect(rig.address).await;
    for byte in b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" {
        client.send([*byte]).await;
    }
    assert_eq!(client.answer().await.body, "here");
}

#[tokio::test]
async fn a_websocket_goes_through_tls() {
    let server = Script::start(|mut served| async move {
        let Some(head) = served.head().await else { return };
        let key = header(&head, "sec-websocket-key").unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let agrees = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        served.send(agrees.as_bytes()).await;
        let stream = served.io.into_inner();
        let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    })
    .await;
    let authority = Authority::new();
    let rig = Rig::start(for_localhost(&authority, &[server.address])).await;
    // Browsers offer HTTP/1.1 alone for a WebSocket where the server did not agree to RFC 8441.
    let stream = authority.dial(rig.address, "localhost", &[b"http/1.1"], None).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://localhost/ws/", stream).await.unwrap();
    let text = "x".repeat(100_000);
    socket.send(Message::text(text.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), text.as_str());
}

#[tokio::test]
async fn leaving_says_so_finishes_what_is_begun_and_ends_the_connection() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let server = Script::start(move |mut served| {
        let mut wait = wait.clone();
        async move {
            while served.request().await.is_some() {
                let _ = wait.wait_for(|go| *go).await;
                served.answer("200 OK", "finished").await;
            }
        }
    })
    .await;
    let authority = Authority::new();
    let rig = Rig::start(for_localhost(&authority, &[server.address])).await;
    let (send, connection) = http2(&authority, &rig).await;
    let idle = http2(&authority, &rig).await;
    let asked = tokio::spawn({
        let send = send.clone();
        async move { fetch(&send, request("/").body(()).unwrap(), "").await }
    });
    eventually("the request is under way", || server.requests() == 1).await;
    rig.leave(Duration::from_secs(30));
    timeout(PATIENCE, idle.1).await.expect("an idle connection ends at once").unwrap().unwrap();
    go.send_replace(true);
    assert_eq!(asked.await.unwrap().1, "finished");
    timeout(PATIENCE, connection).await.expect("the connection ends with its last answer").unwrap().unwrap();
    drop((send, idle.0));
    rig.ended().await;
}

#[tokio::test]
async fn a_connection_has_so_many_requests_and_no_more() {
    let server = Script::saying("here").await;
    let authority = Authority::new();
    let mut lb = for_localhost(&authority, &[server.address]);
    lb.client.keepalive_requests = 2;
    let rig = Rig::start(lb).await;
    let (send, connection) = http2(&authority, &rig).await;
    for _ in 0..2 {
        assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.1, "here");
    }
    timeout(PATIENCE, connection).await.expect("it ends in order").unwrap().unwrap();
}

#[tokio::test]
async fn a_body_of_which_nothing_comes_ends_its_request_alone() {
    let server = Script::mirror().await;
    let authority = Authority::new();
    let mut lb = for_localhost(&authority, &[server.address]);
    lb.client.body_timeout = Duration::from_millis(200);
    let rig = Rig::start(lb).await;
    let (send, _connection) = http2(&authority, &rig).await;
    let mut ready = send.clone().ready().await.unwrap();
    let post = request("/").method("POST").body(()).unwrap();
    let (response, mut stream) = ready.send_request(post, false).unwrap();
    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
    assert!(timeout(PATIENCE, response).await.expect("it ends").is_err());
    rig.log.find("the slow body", |line| line["reason"] == "body_timeout").await;
    assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.0.status(), 200);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    let server = Script::saying("here").await;
    let authority = Authority::new();
    let mut lb = for_localhost(&authority, &[server.address]);
    lb.client.keepalive_timeout = Duration::from_millis(100);
    let rig = Rig::start(lb).await;
    let (send, connection) = http2(&authority, &rig).await;
    assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.1, "here");
    timeout(PATIENCE, connection).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn too_many_headers_are_refused_by_their_number_and_size() {
    let server = Script::saying("here").await;
    let authority = Authority::new();
    let mut lb = for_localhost(&authority, &[server.address]);
    lb.client.max_headers = 10;
    let rig = Rig::start(lb).await;
    let (send, _connection) = http2(&authority, &rig).await;
    let mut many = request("/");
    for number in 0..11 {
        many = many.header(format!("x-{number}"), "x");
    }
    assert_eq!(fetch(&send, many.body(()).unwrap(), "").await.0.status(), 431);
    let large = request("/").header("x", "x".repeat(70_000));
    assert_eq!(fetch(&send, large.body(()).unwrap(), "").await.0.status(), 431);
}

#[tokio::test]
async fn a_reload_shows_new_certificates_to_who_comes_and_keeps_who_is_there() {
    let server = Script::saying("here").await;
    let (old, new) = (Authority::new(), Authority::new());
    let rig = Rig::start(for_localhost(&old, &[server.address])).await;
    let (send, _connection) = http2(&old, &rig).await;
    let mut next = for_localhost(&new, &[server.address]);
    next.listeners[0].address = rig.address;
    let summary = rig.front.reload(&Arc::new(next)).await;
    assert_eq!(summary.changed, [format!("listener {}: certificates changed", rig.address)]);
    assert!(old.dial(rig.address, "localhost", &[], None).await.is_err());
    let (_new_send, _new_connection) = http2(&new, &rig).await;
    assert_eq!(fetch(&send, request("/").body(()).unwrap(), "").await.1, "here", "on the old connection");
}

#[tokio::test]
async fn each_name_has_its_certificate() {
    let server = Script::saying("here").await;
    let authority = Authority::new();
    let identities = ["localhost", "*.example.com"].map(|name| authority.identity(name));
    let rig = Rig::start(https(&[server.address], tls(identities.into(), None, ClientAuth::None))).await;
    // The client verifies the name.
    for name in ["localhost", "a.example.com", "b.example.com"] {
        authority.dial(rig.address, name, &[], None).await.unwrap();
    }
    for name in ["example.com", "a.b.example.com"] {
        assert!(authority.dial(rig.address, name, &[], None).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_asked_for_is_not_served() {
    let server = Script::saying("here").await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = tls(vec![authority.identity("localhost")], Some(authority.roots()), ClientAuth::Required);
    let rig = Rig::start(https(&[server.address], own)).await;
    let served = async |own: Option<Identity>| -> bool {
        // With TLS 1.3 the client learns of it at its first read.
        let Ok(mut stream) = authority.dial(rig.address, "localhost", &[], own).await else { return false };
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.is_ok() && answer.contains("here")
    };
    assert!(served(Some(authority.identity("client"))).await);
    assert!(!served(None).await);
    assert!(!served(Some(stranger.identity("client"))).await);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_in_time_and_is_counted() {
    let server = Script::saying("here").await;
    let authority = Authority::new();
    let mut own = tls(vec![authority.identity("localhost")], None, ClientAuth::None);
    own.handshake_timeout = Duration::from_millis(100);
    let rig = Rig::start(https(&[server.address], own)).await;
    let failed = || rig.metric("bookend_client_connections_refused_total", &[("reason", "tls_handshake")]);
    let before = failed();
    for said in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::connect(rig.address).await;
        client.send(said).await;
        // At most an alert.
        assert!(timeout(PATIENCE, client.rest()).await.expect("it is closed").len() <= 7);
    }
    eventually("both are counted", || failed() >= before + 2.0).await;
}

#[tokio::test]
async fn plain_http_leads_to_https() {
    let server = Script::saying("here").await;
    let mut lb = lb(&[server.address]);
    lb.listeners[0].redirect_https = Some(8443);
    let rig = Rig::start(lb).await;
    let answer = ask(rig.address, "POST /a?b HTTP/1.1\r\nHost: Example.com:80\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.head.starts_with("HTTP/1.1 308"), "{}", answer.head);
    assert_eq!(answer.header("location"), Some("https://example.com:8443/a?b"));
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_eq!(ask(rig.address, get("/.well-known/acme-challenge/token")).await.body, "here");
    assert_eq!(server.requests(), 1);
}

const FROM: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\r\n";

#[tokio::test]
async fn a_proxy_in_front_says_whose_connection_it_is() {
    let server = Script::mirror().await;
    let mut lb = lb(&[server.address]);
    lb.listeners[0].proxy_protocol = true;
    let rig = Rig::start(lb).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x01\x0a\0\0\x01\x12\x34\x01\xbb";
    for (header_sent, expected) in
        [(FROM, "192.0.2.1"), (version2, "198.51.100.1"), (b"PROXY UNKNOWN\r\n", "127.0.0.1")]
    {
        let mut client = Client::connect(rig.address).await;
        // The header once for the connection, its requests as often as they come.
        client.send([header_sent, request].concat()).await;
        for _ in 0..2 {
            let answer = client.answer().await;
            assert_eq!(header(&answer.body, "x-forwarded-for"), Some(expected));
            assert_eq!(header(&answer.body, "x-forwarded-port"), Some(&*rig.address.port().to_string()));
            client.send(request).await;
        }
    }
    let mut slow = Client::connect(rig.address).await;
    for byte in [FROM, request].concat() {
        slow.send([byte]).await;
    }
    assert_eq!(header(&slow.answer().await.body, "x-forwarded-for"), Some("192.0.2.1"));
    rig.log.find("the client", |line| line["client"] == "192.0.2.1").await;
}

#[tokio::test]
async fn a_connection_that_does_not_say_whose_it_is_is_refused_and_counted() {
    let server = Script::saying("here").await;
    let mut lb = lb(&[server.address]);
    lb.listeners[0].proxy_protocol = true;
    lb.client.header_timeout = Duration::from_millis(200);
    let rig = Rig::start(lb).await;
    let refused = || rig.metric("bookend_client_connections_refused_total", &[("reason", "proxy_protocol")]);
    // The rig looks whether anybody listens.
    eventually("that is counted", || refused() == 1.0).await;
    for (number, said) in [(2.0, get("/")), (3.0, "PROXY TCP4 192.0.2.1".to_owned()), (4.0, String::new())] {
        let mut client = Client::connect(rig.address).await;
        client.send(said).await;
        assert_eq!(timeout(PATIENCE, client.rest()).await.expect("it is closed"), b"");
        eventually("it is counted", || refused() >= number).await;
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_proxy_in_front_is_heard_before_tls() {
    let server = Script::mirror().await;
    let authority = Authority::new();
    let mut lb = for_localhost(&authority, &[server.address]);
    lb.listeners[0].proxy_protocol = true;
    let rig = Rig::start(lb).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(FROM).await.unwrap();
    let roots = Verify::AuthorityAndName(authority.roots());
    let connect = Connect::new(roots, None, Versions::Both, &[b"h2"]).unwrap();
    let (send, connection) =
        h2::client::handshake(connect.handshake("localhost", stream).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let (_, seen) = fetch(&send, request("/").body(()).unwrap(), "").await;
    assert_eq!(header(&seen, "x-forwarded-for"), Some("192.0.2.1"));
    assert_eq!(header(&seen, "x-forwarded-proto"), Some("https"));
}
