//! Any bytes as the first packets of a connection: no panic, and whoever is let on to a login has short, sound names. A stream
//! of them comes to an end, and what is taken under TLS never came before it.

use std::time::Duration;

use bookend::pool::client::{
    deadline::LoginDeadline,
    startup::{
        Encryption, First, options,
        packet::{self, NAME_LEN_MAX, Packet},
        read_first,
    },
};
use tokio::{
    io::{join, sink},
    time::Instant,
};

pub fn run(data: &[u8]) {
    let ignored = ["extra_float_digits".to_owned()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let deadline = LoginDeadline::new(Instant::now(), Duration::from_secs(60));
        let (offered, required) = (Encryption::Offered { required: false }, Encryption::Offered { required: true });
        for encryption in [Encryption::Unavailable, offered, required, Encryption::On] {
            let mut io = join(data, sink());
            match read_first(&mut io, &ignored, encryption, deadline).await {
                Ok(First::Tls) => {
                    assert!(encryption == offered || encryption == required);
                    assert!(io.reader().is_empty(), "the handshake begins with what came before it");
                }
                Ok(First::Startup(_)) => assert!(encryption != required),
                Ok(First::Cancel { .. }) | Err(_) => {}
            }
        }
    });
    match packet::parse(data, &ignored) {
        Ok(Packet::Cancel { secret, .. }) => assert!(secret.len() <= 256),
        Ok(Packet::TlsRequest | Packet::GssRequest) => assert_eq!(data.len(), 4),
        Ok(Packet::Startup { .. }) | Err(_) => {}
    }
    if let Ok(Packet::Startup { request, negotiate }) = packet::parse(data, &ignored) {
        assert!(!request.user.is_empty() && request.user.len() <= NAME_LEN_MAX);
        assert!(!request.database.is_empty() && request.database.len() <= NAME_LEN_MAX);
        for (name, _) in request.settings() {
            assert!(options::is_setting_name(name), "{name}");
            assert!(!name.eq_ignore_ascii_case("extra_float_digits"), "{name} is to be ignored");
        }
        assert!(negotiate.is_none_or(|unknown| unknown.iter().all(|name| name.starts_with(b"_pq_."))));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(settings) = options::parse(text)
    {
        assert!(settings.iter().all(|(name, _)| options::is_setting_name(name)));
    }
}
