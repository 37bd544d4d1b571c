//! Any bytes as the first packets of a connection: no panic, and whoever is let on to a login has short, sound names.

use bookend::pool::client::startup::{
    options,
    packet::{self, NAME_LEN_MAX, Packet},
};

pub fn run(data: &[u8]) {
    let ignored = ["extra_float_digits".to_owned()];
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
