//! What must hold between sections that know nothing of each other, and between the two files.

use std::net::SocketAddr;

use crate::config::{
    File, address,
    lb::{self, process::DEFAULT_ADMIN},
    pool::{self, FALLBACK},
    reading::{Reading, Spot},
    section::nearest,
};

/// Every database that a health check names must be one the pool looks at.
pub(super) fn databases(lb: &File<'_, lb::Found>, pool: &File<'_, pool::Found>) {
    let (Some(front), Some(back)) = (&lb.found, &pool.found) else { return };
    let known = || back.pool.databases.iter().map(|database| &*database.name).filter(|name| *name != FALLBACK);
    for (name, spot) in &front.databases {
        if known().any(|known| known == &**name) {
            continue;
        }
        let hint = nearest(name, known()).map(|near| format!("did you mean {near}?"));
        lb.reading.error(spot, format!("{name} is not in databases of {}", pool.reading.file.display()), hint);
    }
}

/// No two listeners of the process may want the same port.
pub(super) fn listeners(lb: Option<&File<'_, lb::Found>>, pool: Option<&File<'_, pool::Found>>) {
    let front = lb.and_then(|file| Some((&file.reading, file.found.as_ref()?)));
    let back = pool.and_then(|file| Some((&file.reading, file.found.as_ref()?)));
    let mut bound: Vec<(SocketAddr, String)> = Vec::new();
    let mut bind = |address: SocketAddr, place: Option<(&Reading<'_>, &Spot)>, what: &str| {
        if let (Some((_, other)), Some((reading, spot))) =
            (bound.iter().find(|(other, _)| address::clash(address, *other)), place)
        {
            reading.error(spot, format!("{address} is taken by {other}"), None);
        }
        bound.push((address, what.to_owned()));
    };

    let admin = [
        front.and_then(|(reading, found)| Some((reading, found.process.admin.as_ref()?))),
        back.and_then(|(reading, found)| Some((reading, found.process.admin.as_ref()?))),
    ];
    // A default that nobody wrote comes first, so that the error stands at what was written.
    let said = admin.into_iter().flatten().next();
    if said.is_none() {
        bind(DEFAULT_ADMIN, None, "the admin listener");
    }
    if let Some((reading, found)) = front {
        for (index, (listener, spot)) in found.lb.listeners.iter().zip(&found.listeners).enumerate() {
            bind(listener.address, Some((reading, spot)), &format!("listeners[{index}]"));
        }
    }
    if let Some((reading, found)) = back {
        for (address, spot) in found.pool.listen.addresses.iter().zip(&found.listen) {
            bind(*address, Some((reading, spot)), "the pool's listen_port");
        }
    }
    if let Some((reading, Some((admin, spot)))) = said {
        bind(admin.address, Some((reading, spot)), "the admin listener");
    }
}
