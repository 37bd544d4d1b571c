//! Any bytes as a server's half of a login, in two pieces: no panic, no password for who may not have it, and a connection only
//! behind a ReadyForQuery that says idle. The first byte chooses the secret, the second where the pieces part.

use std::sync::{Arc, LazyLock};

use bookend::{
    config::{
        pool::{Protocol, RequireAuth},
        secret::Secret,
    },
    pool::{
        auth::{Captured, derive::Deriver, scram::Keys},
        server::{
            credential::{ServerLogin, ServerSecret},
            login::{Greeting, login},
        },
    },
};
use tokio::io::{AsyncReadExt, join, sink};

static DERIVER: LazyLock<Deriver> = LazyLock::new(|| Deriver::new([7; 32]));

pub fn run(data: &[u8]) {
    let [choice, part, said @ ..] = data else { return };
    // No password: its keys would take milliseconds to compute.
    let secret = match choice % 3 {
        0 => ServerSecret::Nothing("none"),
        1 => ServerSecret::Md5(Secret::new("md5d41d8cd98f00b204e9800998ecf8427e")),
        _ => {
            let keys = Keys::from_client_key([7; 32], [7; 32]);
            ServerSecret::PassThrough(Arc::new(Captured { keys, salt: (*b"salt").into(), iterations: 4096 }))
        }
    };
    let server = ServerLogin { user: "app".into(), secret, gained: false };
    let protocol = if choice & 8 == 0 { Protocol::V3_0 } else { Protocol::V3_2 };
    let end_point = (choice & 4 != 0).then_some(&b"hash"[..]);
    let params = [("application_name".to_owned(), "x".to_owned())];
    let greeting = Greeting {
        dbname: "shop",
        login: &server,
        params: &params,
        require_auth: RequireAuth::default(),
        protocol,
        end_point,
    };
    let (first, second) = said.split_at(usize::from(*part).min(said.len()));
    let stream = join(first.chain(second), sink());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    if let Ok(fresh) = runtime.block_on(login(stream, greeting, &DERIVER, [7; 18])) {
        assert!(said.ends_with(b"Z\0\0\0\x05I"), "whatever stands behind it is somebody else's");
        assert!(fresh.key.secret.len() <= said.len() && fresh.params.len() <= said.len() / 5);
    }
}
