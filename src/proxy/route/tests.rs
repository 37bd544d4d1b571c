use proptest::prelude::*;

use super::*;

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn table<'a>(routes: &'a [(Option<&'a str>, PathMatch)]) -> Table<usize> {
    Table::build(routes.iter().enumerate().map(|(i, (host, path))| (Pattern { host: *host, path }, i)))
}

fn find(table: &Table<usize>, host: &str, path: &str) -> Result<usize, NotFound> {
    table.find(Some(host.as_bytes()), path.as_bytes()).copied()
}

#[test]
fn an_unknown_host_is_told_from_an_unknown_path() {
    let routes = [(Some("a.example"), prefix("/x/"))];
    let table = table(&routes);
    assert_eq!(find(&table, "b.example", "/x/"), Err(NotFound::Host));
    assert_eq!(find(&table, "a.example", "/y/"), Err(NotFound::Path));
    assert_eq!(table.find(None, b"/x/"), Err(NotFound::Host));
}

#[test]
fn an_unknown_host_uses_the_routes_for_any_host() {
    let routes = [(Some("a.example"), prefix("/")), (None, prefix("/open/"))];
    let table = table(&routes);
    assert_eq!(find(&table, "b.example", "/open/x"), Ok(1));
    assert_eq!(find(&table, "b.example", "/else"), Err(NotFound::Path));
    assert_eq!(table.find(None, b"/open/"), Ok(&1));
}

#[test]
fn an_exact_path_wins_over_every_prefix_and_the_longest_prefix_over_shorter_ones() {
    let routes = [(None, prefix("/")), (None, prefix("/ws/")), (None, exact("/ws/a")), (None, prefix("/ws/a/"))];
    let table = table(&routes);
    assert_eq!(find(&table, "h", "/ws/a"), Ok(2));
    assert_eq!(find(&table, "h", "/ws/a/b"), Ok(3));
    assert_eq!(find(&table, "h", "/ws/ab"), Ok(1));
    assert_eq!(find(&table, "h", "/ws"), Ok(0));
    assert_eq!(find(&table, "h", ""), Err(NotFound::Path));
}

#[test]
fn a_route_of_the_host_wins_over_a_more_exact_one_for_any_host() {
    let routes = [(None, exact("/page")), (Some("a.example"), prefix("/"))];
    let table = table(&routes);
    assert_eq!(find(&table, "a.example", "/page"), Ok(1));
    assert_eq!(find(&table, "b.example", "/page"), Ok(0));
}

#[test]
fn a_host_without_a_matching_path_falls_back_to_any_host() {
    let routes = [(Some("a.example"), prefix("/v2/")), (None, prefix("/"))];
    assert_eq!(find(&table(&routes), "a.example", "/v1/"), Ok(1));
}

#[test]
fn hosts_are_compared_without_case_port_and_trailing_dot() {
    let routes = [(Some("a.example"), prefix("/")), (Some("[2001:DB8::1]"), prefix("/"))];
    let table = table(&routes);
    for host in ["a.example", "A.Example", "a.example:8080", "a.example.", "a.example.:80", "a.example:"] {
        assert_eq!(find(&table, host, "/"), Ok(0), "{host}");
    }
    for host in ["[2001:db8::1]", "[2001:DB8::1]:8080"] {
        assert_eq!(find(&table, host, "/"), Ok(1), "{host}");
    }
}

#[test]
fn what_cannot_be_a_host_is_unknown() {
    let routes = [(Some("a.example"), prefix("/"))];
    let table = table(&routes);
    let long = "a".repeat(300);
    for host in
        ["", ".", ":80", "[::1", "[::1]x", "a.example:80:80", "a.example:eighty", "a.example ", "a\texample", &long]
    {
        assert_eq!(find(&table, host, "/"), Err(NotFound::Host), "{host:?}");
    }
}

#[test]
fn a_path_is_compared_as_django_will_see_it() {
    let routes = [(None, prefix("/admin/")), (None, prefix("/")), (None, exact("/caf%C3%A9"))];
    let table = table(&routes);
    for path in ["/%61dmin/", "/%61%64%6D%69%6e/x", "/admin%2F"] {
        assert_eq!(find(&table, "h", path), Ok(0), "{path}");
    }
    for path in ["//admin/", "/Admin/", "/x/../admin/", "/admin", "/%2561dmin/", "/%6/", "/%zz", "/a%"] {
        assert_eq!(find(&table, "h", path), Ok(1), "{path}");
    }
    for path in ["/caf%C3%A9", "/caf%c3%a9", "/café"] {
        assert_eq!(find(&table, "h", path), Ok(2), "{path}");
    }
    assert_eq!(table.find(None, b"/admin/\xff"), Ok(&0));
    assert_eq!(find(&table, "h", "%2Fadmin/"), Err(NotFound::Path));
}

/// What the rule says, without any table.
fn model(routes: &[(Option<String>, PathMatch)], host: &str, path: &str) -> Result<usize, NotFound> {
    let rank = |wanted: Option<&str>| {
        let of_host = routes.iter().enumerate().filter(|(_, (host, _))| host.as_deref() == wanted);
        let mut best: Option<(usize, usize)> = None;
        for (index, (_, pattern)) in of_host {
            let strength = match pattern {
                PathMatch::Exact(exact) if exact == path => usize::MAX,
                PathMatch::Prefix(prefix) if path.starts_with(prefix.as_str()) => prefix.len(),
                _ => continue,
            };
            if best.is_none_or(|(_, strongest)| strength > strongest) {
                best = Some((index, strength));
            }
        }
        best.map(|(index, _)| index)
    };
    let known = routes.iter().any(|(own, _)| own.is_none() || own.as_deref() == Some(host));
    rank(Some(host)).or_else(|| rank(None)).ok_or(if known { NotFound::Path } else { NotFound::Host })
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_rule(
        routes in prop::collection::vec((prop::option::of("[ab]"), any::<bool>(), "/[ab/]{0,5}"), 0..12),
        host in "[abc]",
        path in "/[ab/]{0,7}",
    ) {
        let routes: Vec<(Option<String>, PathMatch)> = routes
            .into_iter()
            .map(|(host, is_exact, path)| (host, if is_exact { exact(&path) } else { prefix(&path) }))
            .collect();
        let table = Table::build(
            routes.iter().enumerate().map(|(i, (host, path))| (Pattern { host: host.as_deref(), path }, i)),
        );
        prop_assert_eq!(find(&table, &host, &path), model(&routes, &host, &path));
    }

    #[test]
    fn no_bytes_of_a_host_or_path_upset_the_lookup(host: Vec<u8>, path: Vec<u8>) {
        let routes = [(Some("a"), prefix("/")), (None, prefix("/b"))];
        let _ = table(&routes).find(Some(&host), &path);
    }
}

#[test]
fn a_wildcard_is_for_every_host_below_it_and_a_longer_one_wins() {
    let routes = [
        (Some("*.example.com"), prefix("/")),
        (Some("*.shop.example.com"), prefix("/cart/")),
        (Some("own.shop.example.com"), prefix("/own/")),
        (None, prefix("/open/")),
    ];
    let table = table(&routes);
    for (host, path, expected) in [
        ("a.example.com", "/", Ok(0)),
        ("A.B.Example.COM:8080", "/x", Ok(0)),
        ("a.shop.example.com.", "/cart/1", Ok(1)),
        ("a.shop.example.com", "/else", Ok(0)),
        ("own.shop.example.com", "/own/", Ok(2)),
        ("own.shop.example.com", "/cart/", Ok(1)),
        ("example.com", "/", Err(NotFound::Path)),
        (".example.com", "/", Err(NotFound::Path)),
        ("badexample.com", "/", Err(NotFound::Path)),
        ("example.com.evil", "/open/", Ok(3)),
    ] {
        assert_eq!(find(&table, host, path), expected, "{host} {path}");
    }
}

#[test]
fn a_host_that_no_route_knows_is_unknown_with_wildcards_too() {
    let routes = [(Some("*.example.com"), prefix("/x/"))];
    let table = table(&routes);
    assert_eq!(find(&table, "example.org", "/x/"), Err(NotFound::Host));
    assert_eq!(find(&table, "a.example.com", "/y/"), Err(NotFound::Path));
}
