//! Which route a request takes, with as many routes as a large and a very large site have.

use std::hint::black_box;

use bookend::{
    config::lb::PathMatch,
    proxy::route::{Pattern, Table},
};
use criterion::Criterion;

/// A third exact paths, a third prefixes of three lengths, a third for hosts of their own; `/` takes the rest.
fn table(routes: usize) -> Table<usize> {
    let path = |index: usize| match index % 3 {
        0 => PathMatch::Exact(format!("/page/{index}/")),
        1 => PathMatch::Prefix(format!("/app{index}/{}", ["", "api/", "api/v1/"][index % 9 / 3])),
        _ => PathMatch::Prefix("/".into()),
    };
    let host = |index: usize| (index % 3 == 2).then(|| format!("site{index}.example.com"));
    let mut all: Vec<(Option<String>, PathMatch)> = (0..routes - 1).map(|index| (host(index), path(index))).collect();
    all.push((None, PathMatch::Prefix("/".into())));
    let patterns = all.iter().map(|(host, path)| Pattern { host: host.as_deref(), path });
    Table::build(patterns.zip(0..))
}

pub fn benches(criterion: &mut Criterion) {
    for routes in [10, 100] {
        let table = table(routes);
        let host: &[u8] = b"Site5.example.com:8080";
        let asked: [(&str, &[u8], &[u8], usize); 5] = [
            ("exact", b"www.example.com", b"/page/3/", 3),
            ("prefix", b"www.example.com", b"/app4/api/users/17/", 4),
            ("host", host, b"/blog/2026/11/a-longer-path-of-django/", 5),
            ("rest", b"www.example.com", b"/blog/2026/11/a-longer-path-of-django/", routes - 1),
            ("escaped", b"www.example.com", b"/blog/caf%C3%A9/", routes - 1),
        ];
        for (name, host, path, expected) in asked {
            assert_eq!(table.find(Some(host), path), Ok(&expected), "{name}");
            criterion.bench_function(&format!("route/{routes}/{name}"), |bencher| {
                bencher.iter(|| table.find(Some(black_box(host)), black_box(path)).copied());
            });
        }
    }
}
