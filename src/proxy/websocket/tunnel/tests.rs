use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::health::drain::{self, DrainControl, Phase};

const HOUR: Duration = Duration::from_secs(3600);
const KEY: [u8; 4] = [1, 2, 3, 4];

struct Rig {
    client: DuplexStream,
    server: DuplexStream,
    control: DrainControl,
    tunnel: JoinHandle<Summary>,
}

fn rig_with(early: (&'static [u8], &'static [u8]), buffer: usize, moment: f32) -> Rig {
    let (client, ours) = duplex(buffer);
    let (server, theirs) = duplex(buffer);
    let (control, drain) = drain::channel();
    let early = (Bytes::from_static(early.0), Bytes::from_static(early.1));
    let tunnel = tokio::spawn(run(ours, theirs, early, HOUR, Lot { moment, key: KEY }, drain));
    Rig { client, server, control, tunnel }
}

fn rig() -> Rig {
    rig_with((b"", b""), 64 * 1024, 0.5)
}

async fn read(from: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

fn draining(rig: &Rig, grace: Duration) {
    rig.control.advance(Phase::Draining { deadline: Instant::now() + grace });
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_unchanged_and_in_order_through_a_slow_reader() {
    let mut rig = rig_with((b"", b""), 7, 0.5);
    let sent: Vec<u8> = (0..100_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        rig.client.write_all(&copy).await.unwrap();
        rig.client
    });
    assert_eq!(read(&mut rig.server, sent.len()).await, sent);
    drop(writer.await.unwrap());
    drop(rig.server);
    let summary = rig.tunnel.await.unwrap();
    assert_eq!((summary.to_server, summary.to_client), (100_000, 0));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_with_the_handshake_go_first() {
    let mut rig = rig_with((b"from client ", b"from server "), 64, 0.5);
    rig.client.write_all(b"later").await.unwrap();
    assert_eq!(read(&mut rig.server, 17).await, b"from client later");
    assert_eq!(read(&mut rig.client, 12).await, b"from server ");
}

#[tokio::test(start_paused = true)]
async fn one_side_may_finish_while_the_other_goes_on() {
    let mut rig = rig();
    rig.client.shutdown().await.unwrap();
    assert_eq!(rig.server.read(&mut [0; 8]).await.unwrap(), 0);
    rig.server.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut rig.client, 10).await, b"still here");
    rig.server.shutdown().await.unwrap();
    assert_eq!(rig.client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(rig.tunnel.await.unwrap().end, End::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_stays_after_the_close_handshake_is_not_waited_for() {
    let mut rig = rig();
    let close = frame::close_to_client(1000);
    rig.server.write_all(&close).await.unwrap();
    rig.server.shutdown().await.unwrap();
    let mut seen = Vec::new();
    rig.client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, close);
    let since = Instant::now();
    assert_eq!(rig.tunnel.await.unwrap().end, End::Closed);
    assert!(since.elapsed() <= CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_tunnel_ends_after_the_idle_timeout_and_not_before() {
    let mut rig = rig();
    tokio::time::sleep(HOUR - Duration::from_secs(1)).await;
    rig.server.write_all(&[0x82, 1, b'x']).await.unwrap();
    assert_eq!(read(&mut rig.client, 3).await.len(), 3);
    let since = Instant::now();
    assert_eq!(read(&mut rig.client, 4).await, frame::close_to_client(1001));
    assert_eq!(since.elapsed().as_secs(), HOUR.as_secs());
    assert_eq!(read(&mut rig.server, 8).await, frame::close_to_server(1001, KEY));
    assert_eq!(rig.tunnel.await.unwrap().end, End::Idle);
}

#[tokio::test(start_paused = true)]
async fn leaving_closes_at_the_drawn_moment_and_between_two_frames() {
    let mut rig = rig();
    rig.server.write_all(&[0x82, 4, b'a', b'b']).await.unwrap();
    assert_eq!(read(&mut rig.client, 4).await.len(), 4);
    let since = Instant::now();
    draining(&rig, Duration::from_secs(30));
    tokio::time::sleep(Duration::from_secs(15)).await;
    // The moment (half of 28 s) is past, but a frame is under way; the next one must not follow the Close.
    rig.server.write_all(&[b'c', b'd', 0x82, 1, b'x']).await.unwrap();
    assert_eq!(read(&mut rig.client, 6).await, [b'c', b'd', 0x88, 2, 0x03, 0xe9]);
    assert!(since.elapsed() < Duration::from_secs(17));

    // The client answers with its own Close, which the server gets as it is.
    let answer = [0x88, 0x82, 9, 9, 9, 9, 0x03 ^ 9, 0xe9 ^ 9];
    rig.client.write_all(&answer).await.unwrap();
    assert_eq!(read(&mut rig.server, 8).await, answer);
    drop(rig.server);
    assert_eq!(rig.client.read(&mut [0; 8]).await.unwrap(), 0);
    drop(rig.client);
    assert_eq!(rig.tunnel.await.unwrap().end, End::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_close_is_not_waited_for() {
    let mut rig = rig_with((b"", b""), 1024, 0.0);
    draining(&rig, Duration::from_secs(30));
    assert_eq!(read(&mut rig.client, 4).await, frame::close_to_client(1001));
    assert_eq!(read(&mut rig.server, 8).await, frame::close_to_server(1001, KEY));
    let since = Instant::now();
    assert_eq!(rig.tunnel.await.unwrap().end, End::Drained);
    assert!(since.elapsed() <= CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_server_in_the_middle_of_a_clients_frame_gets_no_close_from_us() {
    let mut rig = rig_with((b"", b""), 1024, 0.0);
    rig.client.write_all(&[0x82, 0x84, 1, 2, 3, 4, b'a']).await.unwrap();
    assert_eq!(read(&mut rig.server, 7).await.len(), 7);
    draining(&rig, Duration::from_secs(30));
    assert_eq!(rig.tunnel.await.unwrap().end, End::Drained);
    let mut rest = Vec::new();
    rig.server.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_cut_ends_a_tunnel_whatever_it_waits_for() {
    let rig = rig_with((b"", b""), 1024, 1.0);
    draining(&rig, Duration::from_secs(30));
    tokio::task::yield_now().await;
    rig.control.advance(Phase::Cut);
    assert_eq!(rig.tunnel.await.unwrap().end, End::Drained);
}

#[tokio::test]
async fn moments_are_spread_and_leave_room_for_the_handshake() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(30);
    assert_eq!(moment(now, deadline, 0.0), now);
    assert_eq!(moment(now, deadline, 1.0), deadline - CLOSE_WAIT);
    assert_eq!(moment(now, now, 1.0), now);
}

/// An idle WebSocket costs what its future costs; see the module.
#[tokio::test]
async fn the_future_stays_small() {
    let (_control, drain) = drain::channel();
    let (client, server) = (duplex(1).0, tokio::io::empty());
    let client: pingora::protocols::Stream = Box::new(client);
    let tunnel = run(client, server, (Bytes::new(), Bytes::new()), HOUR, Lot { moment: 0.0, key: KEY }, drain);
    let size = size_of_val(&tunnel);
    assert!(size < 1024, "{size} bytes");
}
