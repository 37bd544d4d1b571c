//! Any host and path against a fixed table: an answer without a panic, and the one the rule gives.

#![no_main]

use bookend::{
    config::lb::PathMatch,
    proxy::route::{NotFound, Pattern, Table},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|asked: (&[u8], &[u8])| {
    let (host, path) = asked;
    let (root, page) = (PathMatch::Prefix("/".into()), PathMatch::Exact("/page".into()));
    let (under, below) = (PathMatch::Prefix("/under/".into()), PathMatch::Exact("/under/x".into()));
    let routes = [
        (Pattern { host: Some("*.a.example"), path: &under }, 'w'),
        (Pattern { host: Some("*.b.a.example"), path: &below }, 'x'),
        (Pattern { host: Some("a.example"), path: &root }, 'a'),
        (Pattern { host: Some("[::1]"), path: &page }, '6'),
        (Pattern { host: None, path: &page }, 'p'),
    ];
    let table = Table::build(routes);
    let found = table.find(Some(host), path);
    if host.eq_ignore_ascii_case(b"a.example") {
        let own = if path.starts_with(b"/") { Ok(&'a') } else { Err(NotFound::Path) };
        assert_eq!(found, own);
    }
    if let Ok(&('w' | 'x')) = found {
        assert!(host.len() > ".a.example".len());
    }
    if path != b"/page" && !path.starts_with(b"/") {
        assert_eq!(found, Err(NotFound::Path));
    }
});
