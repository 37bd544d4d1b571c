use std::time::Instant;

use pingora::{
    apps::ServerApp, prelude::*, protocols::Stream, server::RunArgs, server::ShutdownSignal,
    server::ShutdownSignalWatch, server::configuration::ServerConf, services::listening::Service,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use crate::{
    app::listen::{self, Wanted},
    health::drain::{self, Phase},
};

/// Answers each connection with `hi` once the client has sent a byte.
struct Greeter {
    drain: Drain,
}

#[async_trait]
impl ServerApp for Greeter {
    async fn process_new(self: &Arc<Self>, mut session: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        let _token = self.drain.token();
        let _ = session.read_u8().await;
        let _ = session.write_all(b"hi").await;
        let _ = session.flush().await;
        None
    }
}

struct Until(parking_lot::Mutex<Option<oneshot::Receiver<()>>>);

#[async_trait]
impl ShutdownSignalWatch for Until {
    async fn recv(&self) -> ShutdownSignal {
        let over = self.0.lock().take();
        if let Some(over) = over {
            let _ = over.await;
        }
        ShutdownSignal::GracefulTerminate
    }
}

#[tokio::test]
async fn listeners_close_when_draining_begins_and_open_connections_finish() {
    let (phases, drain) = drain::channel();
    let socket = listen::bind(&Wanted::tcp("127.0.0.1:0".parse().unwrap(), "test")).unwrap().unwrap();
    let address = SockRef::from(&socket.socket).local_addr().unwrap().as_socket().unwrap();
    let mut service = Service::new("greeter".into(), Greeter { drain: drain.clone() });
    service.add_tcp(&address.to_string());
    let governed =
        Governed::new(Box::new(service), vec![(address.to_string(), socket)], 1, Stops::WhenClosed, drain.clone());
    let (end, over) = oneshot::channel();
    let server = std::thread::spawn(move || {
        let conf = ServerConf {
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.add_service(governed);
        server.run(RunArgs { shutdown_signal: Box::new(Until(parking_lot::Mutex::new(Some(over)))) });
    });

    // The socket listens already, so this connects even before pingora has started.
    let mut open = TcpStream::connect(address).await.unwrap();
    let begin = Instant::now();
    while drain.in_flight() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the connection was never accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    phases.advance(Phase::Draining { deadline: tokio::time::Instant::now() + Duration::from_secs(30) });
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the listener never closed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // What was open is still served, and is what the process waits for.
    assert!(tokio::time::timeout(Duration::from_millis(100), drain.idle()).await.is_err());
    let mut answer = [0; 2];
    open.write_all(b"x").await.unwrap();
    open.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hi");
    tokio::time::timeout(Duration::from_secs(5), drain.idle()).await.expect("all is finished");

    let begin = Instant::now();
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || server.join().unwrap()).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "took {:?} to leave", begin.elapsed());
}
