use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::{Duration, Instant};

use super::*;

struct Setup {
    registry: Arc<Registry>,
    rng: StdRng,
    now: Instant,
}

fn setup() -> Setup {
    let now = Instant::now();
    Setup { registry: Registry::new(now, SystemTime::UNIX_EPOCH, [7; 32]), rng: StdRng::seed_from_u64(7), now }
}

impl Setup {
    fn client(&mut self, peer: &str) -> ClientHandle {
        let remote: SocketAddr = peer.parse().unwrap();
        let peer = Peer::Tcp { remote, local: "127.0.0.1:6432".parse().unwrap() };
        self.registry.enter_client(peer, 3, self.now, &mut self.rng)
    }

    fn logged_in(&mut self, peer: &str, application_name: &str) -> ClientHandle {
        let client = self.client(peer);
        client.transition(ClientState::Authenticating, self.now);
        client.identify(self.registry.group(&"arena".into(), &"app".into()));
        client.set_application_name(application_name.as_bytes());
        client.transition(ClientState::Idle, self.now);
        client
    }
}

#[tokio::test]
async fn counts_follow_a_client_through_its_life() {
    let mut setup = setup();
    let client = setup.client("10.0.0.1:4000");
    assert_eq!(setup.registry.lobby().clients(ClientState::Startup), 1);
    client.transition(ClientState::Authenticating, setup.now);
    let group = setup.registry.group(&"arena".into(), &"app".into());
    client.identify(group.clone());
    assert_eq!(setup.registry.lobby().clients(ClientState::Authenticating), 0);
    assert_eq!(group.clients(ClientState::Authenticating), 1);
    for state in [ClientState::Idle, ClientState::Waiting, ClientState::Active, ClientState::Idle] {
        client.transition(state, setup.now);
        assert_eq!(group.clients(state), 1);
    }
    drop(client);
    assert!(ClientState::ALL.iter().all(|state| group.clients(*state) == 0));
    assert_eq!(setup.registry.client_count(), 0);
}

#[test]
fn a_waiting_client_never_becomes_idle_without_an_answer() {
    assert!(!ClientState::Waiting.may_become(ClientState::Idle));
    assert!(!ClientState::Closing.may_become(ClientState::Idle));
    assert!(!ClientState::Startup.may_become(ClientState::Idle));
}

#[test]
fn a_closed_server_stays_closed() {
    for state in ServerState::ALL {
        assert!(!ServerState::Closed.may_become(state));
        assert!(!state.may_become(ServerState::Connecting));
    }
}

#[tokio::test]
async fn a_wrong_secret_finds_nobody() {
    let mut setup = setup();
    let client = setup.client("10.0.0.1:4000");
    let given = CancelRequest::new(client.key().pid(), &client.secret()).unwrap();
    assert_eq!(setup.registry.client_by_key(&given).unwrap().id(), client.id());
    for byte in 0..4 {
        let mut secret = client.secret();
        secret[byte] ^= 4;
        let guessed = CancelRequest::new(client.key().pid(), &secret).unwrap();
        assert!(setup.registry.client_by_key(&guessed).is_none(), "{byte}");
    }
    drop(client);
    assert!(setup.registry.client_by_key(&given).is_none());
}

#[tokio::test]
async fn a_client_with_a_long_key_is_found_by_the_whole_of_it_alone() {
    let mut setup = setup();
    let client = setup.client("10.0.0.1:4000");
    client.set_long_key();
    let (pid, secret) = (client.key().pid(), client.secret());
    assert_eq!(secret.len(), 32);
    let found = |secret: &[u8]| setup.registry.client_by_key(&CancelRequest::new(pid, secret).unwrap()).is_some();
    assert!(found(&secret));
    assert!(!found(&secret[..4]) && !found(&secret[..31]) && !found(&[&secret[..], &[0]].concat()));
    let other = Registry::new(setup.now, SystemTime::UNIX_EPOCH, [8; 32]);
    assert!(other.client_by_key(&CancelRequest::new(pid, &secret).unwrap()).is_none());
}

#[tokio::test]
async fn a_cancel_never_passes_for_a_client_that_gave_the_server_back() {
    let setup = setup();
    let group = setup.registry.group(&"arena".into(), &"app".into());
    let server = setup.registry.enter_server(group, setup.now);
    server.give_to(1, setup.now);
    assert!(server.begin_cancel(1, 2));
    assert!(!server.begin_cancel(2, 2), "another client's");
    assert!(server.take_back(), "one is under way");
    assert!(!server.begin_cancel(1, 2), "given back");
    server.give_to(2, setup.now);
    assert!(!server.begin_cancel(1, 2), "with somebody else");
    assert!(server.cancel_ended(true));
    assert!(!server.cancel_doubtful());
}

#[tokio::test]
async fn cancels_for_one_server_are_bounded_and_an_unseen_end_is_remembered() {
    let setup = setup();
    let group = setup.registry.group(&"arena".into(), &"app".into());
    let server = setup.registry.enter_server(group, setup.now);
    server.give_to(1, setup.now);
    assert!(server.begin_cancel(1, 1));
    assert!(!server.begin_cancel(1, 1));
    assert!(server.cancel_ended(false));
    assert!(server.cancel_doubtful());
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_leave_is_heard_whenever_it_comes_and_never_weakens() {
    let mut setup = setup();
    let client = setup.logged_in("10.0.0.1:4000", "");
    client.ask_to_leave(Leave::Killed);
    client.ask_to_leave(Leave::Draining);
    assert_eq!(client.asked_to_leave(Leave::Draining).await, Leave::Killed);

    let other = setup.logged_in("10.0.0.1:4001", "");
    let entry = other.entry().clone();
    let waiting = tokio::spawn(async move { entry.asked_to_leave(Leave::Killed).await });
    tokio::task::yield_now().await;
    other.ask_to_leave(Leave::Draining);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "a boundary is not at once");
    other.ask_to_leave(Leave::Cut);
    assert_eq!(waiting.await.unwrap(), Leave::Cut);
}

#[tokio::test]
async fn the_census_groups_by_address_and_application_name() {
    let mut setup = setup();
    let first = setup.logged_in("10.0.0.5:4000", "web-1");
    let _second = setup.logged_in("10.0.0.5:4001", "web-1");
    let _mapped = setup.logged_in("[::ffff:10.0.0.5]:4002", "web-1");
    let _other = setup.logged_in("10.0.0.6:4001", "web-2");
    let _stranger = setup.client("10.0.0.7:1");
    first.transition(ClientState::Waiting, setup.now);
    let census = setup.registry.census();
    assert_eq!(census.len(), 2);
    assert_eq!((census[0].total, census[0].idle, census[0].waiting), (3, 2, 1));
    assert_eq!(census[1].application_name, "web-2");
}
