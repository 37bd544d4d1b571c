use std::path::Path;

use proptest::prelude::*;

use super::*;

fn maps() -> ident::IdentMaps {
    ident::parse(Path::new("ident"), "# who is who\nteam alice app\nteam \"bob b\" \"all\"\nany root all\n").unwrap()
}

fn files(name: &str) -> Result<String, String> {
    match name {
        "admins" => Ok("ops, oncall # who\n\"all\"\n@more".into()),
        "more" => Ok("night".into()),
        "loop" => Ok("@loop".into()),
        _ => Err("cannot be read".into()),
    }
}

fn read(text: &str) -> Result<Hba, Vec<String>> {
    parse(Path::new("hba"), text, &maps(), &files)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn from<'a>(address: &str, tls: bool, database: &'a str, user: &'a str) -> Asked<'a> {
    Asked { address: address.parse().ok(), tls, database, user, replication: false }
}

fn method(hba: &Hba, asked: &Asked<'_>) -> Option<Method> {
    hba.find(asked).map(|rule| rule.method)
}

#[test]
fn the_first_rule_that_fits_counts_and_what_none_fits_is_refused() {
    let hba = read(
        "local   all  all                      peer\n\
         host    shop app   10.0.0.0/8         scram-sha-256   # the fleet\n\
         host    shop app   10.9.9.9 255.255.255.255 reject\n\
         hostssl all  \"all\" all                md5\n\
         hostnossl sameuser all ::1/128        password\n\
         host    replication all 127.0.0.1/32  trust\n",
    )
    .unwrap();
    let table = [
        (from("unix", false, "any", "body"), Some(Method::Peer)),
        (from("10.1.2.3", false, "shop", "app"), Some(Method::ScramSha256)),
        (from("10.9.9.9", true, "shop", "app"), Some(Method::ScramSha256)),
        (from("::ffff:10.1.2.3", true, "shop", "app"), Some(Method::ScramSha256)),
        (from("11.1.2.3", false, "shop", "app"), None),
        (from("10.1.2.3", false, "shop", "App"), None),
        (from("10.1.2.3", false, "other", "app"), None),
        (from("9.9.9.9", true, "other", "all"), Some(Method::Md5)),
        (from("9.9.9.9", false, "other", "all"), None),
        (from("::1", false, "joe", "joe"), Some(Method::Plain)),
        (from("::1", false, "jim", "joe"), None),
        (from("127.0.0.1", false, "all", "joe"), None),
        (Asked { replication: true, ..from("127.0.0.1", false, "joe", "joe") }, Some(Method::Trust)),
        (Asked { replication: true, ..from("10.1.2.3", false, "shop", "app") }, None),
    ];
    for (asked, expected) in table {
        assert_eq!(method(&hba, &asked), expected, "{asked:?}");
    }
}

#[test]
fn all_does_not_mean_replication() {
    let hba = read("host all all all trust").unwrap();
    assert!(hba.find(&Asked { replication: true, ..from("127.0.0.1", false, "a", "a") }).is_none());
}

#[test]
fn lists_of_names_and_of_files_are_followed() {
    let hba = read("host a,b , \"c d\" ops,\"joe\" 0.0.0.0/0 trust\nhost all @admins all md5\n").unwrap();
    for (database, user, expected) in [
        ("a", "ops", Some(Method::Trust)),
        ("b", "joe", Some(Method::Trust)),
        ("c d", "joe", Some(Method::Trust)),
        ("x", "oncall", Some(Method::Md5)),
        ("x", "night", Some(Method::Md5)),
        ("x", "all", Some(Method::Md5)),
        ("x", "joe", None),
    ] {
        assert_eq!(method(&hba, &from("1.2.3.4", false, database, user)), expected, "{database} {user}");
    }
}

#[test]
fn a_line_may_be_continued() {
    let hba = read("host all \\\n all all \\\ntrust\nlocal all all reject").unwrap();
    assert_eq!((hba.rules().len(), hba.rules()[0].line, hba.rules()[1].line), (2, 1, 4));
}

#[test]
fn a_map_says_who_may_be_whom() {
    let hba = read("hostssl all all all cert map=team\nlocal all all peer map=any").unwrap();
    let team = hba.rules()[0].map.clone().unwrap();
    assert!(team.allows("alice", "app") && !team.allows("alice", "ops") && !team.allows("app", "app"));
    assert!(team.allows("bob b", "all") && !team.allows("bob b", "app"), "a quoted all is a user of that name");
    assert!(hba.rules()[1].map.as_ref().unwrap().allows("root", "whoever"));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let table = [
        ("hosts all all all trust", "1:1: must begin with local, host, hostssl or hostnossl"),
        ("hostgssenc all all all trust", "1:1: hostgssenc is PostgreSQL's; not offered here"),
        ("include other.conf", "1:1: include is PostgreSQL's; not offered here"),
        ("host all", "1:6: ends before the users"),
        ("local all all", "1:11: ends before the method"),
        ("host samerole all all trust", "1:6: samerole is PostgreSQL's; not offered here"),
        ("host all +ops all trust", "1:10: a group (+role) is PostgreSQL's; not offered here"),
        ("host all /^a all trust", "1:10: a regular expression is PostgreSQL's; not offered here"),
        ("host all @none all trust", "1:10: @none: cannot be read"),
        ("host all @loop all trust", "1:10: names files in files more than 10 deep"),
        ("host all all samenet trust", "1:14: samenet is PostgreSQL's; not offered here"),
        ("host all all db.example.com trust", "1:14: a host name is PostgreSQL's; not offered here: give its address"),
        ("host all all 10.0.0.0/33 trust", "1:14: must be all, or a network such as 10.0.0.0/8"),
        (
            "host all all 10.0.0.1 trust",
            "1:23: must be a mask such as 255.255.0.0 (or write the address with its bits: 10.0.0.1/32)",
        ),
        (
            "local all all scram-sha-265",
            "1:15: must have trust, reject, password, md5, scram-sha-256, cert or peer here (did you mean scram-sha-256?)",
        ),
        ("host all all all ldap", "1:18: ldap is PostgreSQL's; not offered here: scram-sha-256, or cert, or peer"),
        ("host all all all peer", "1:18: peer is for local (Unix sockets) alone"),
        ("host all all all cert", "1:18: cert is for hostssl alone"),
        ("local all all peer map=none", "1:20: there is no map none in auth_ident_file"),
        ("local all all md5 map=team", "1:19: map goes with cert and peer"),
        ("local all all peer clientcert=1", "1:20: clientcert is PostgreSQL's; not offered here (map is)"),
        ("local all all peer map", "1:20: an option must be name=value"),
        ("local all \"all peer", "1:11: has a quote that is not closed"),
    ];
    for (line, expected) in table {
        assert_eq!(read(line).unwrap_err(), [format!("hba:{expected}")], "{line}");
    }
    assert_eq!(read("x\nhost\nlocal all all trust\n").unwrap_err().len(), 2, "all at once");
}

#[test]
fn every_mistake_of_an_ident_file_is_named() {
    let text = "team alice\nteam a b c\nteam /^x app\nteam a +ops\nteam a,b app\n\"x\n";
    let errors = ident::parse(Path::new("ident"), text).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| error.position.unwrap().line).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(local|host|all|\"|,|@admins|@loop|#|\\\\|10.0.0.0/8|[ \n\t]|trust|map=team|\\PC){0,40}") {
        if let Err(errors) = parse(Path::new("hba"), &text, &maps(), &files) {
            prop_assert!(!errors.is_empty() && errors.iter().all(|error| error.position.is_some()));
        }
        let _ = ident::parse(Path::new("ident"), &text);
    }

    /// What a rule for a network says of an address is what the bits say.
    #[test]
    fn a_network_has_the_addresses_that_share_its_bits(network: [u8; 4], address: [u8; 4], bits in 0u32..=32) {
        let hba = read(&format!("host all all {}/{bits} trust", IpAddr::from(network))).unwrap();
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let same = (u32::from_be_bytes(network) ^ u32::from_be_bytes(address)) & mask == 0;
        let asked = Asked { address: Some(address.into()), tls: false, database: "d", user: "u", replication: false };
        prop_assert_eq!(hba.find(&asked).is_some(), same);
        let mapped = std::net::Ipv4Addr::from(address).to_ipv6_mapped();
        prop_assert_eq!(hba.find(&Asked { address: Some(mapped.into()), ..asked }).is_some(), same);
        let hba = read(&format!("host all all {} {} trust", IpAddr::from(network), std::net::Ipv4Addr::from(mask))).unwrap();
        prop_assert_eq!(hba.find(&asked).is_some(), same);
    }

    /// The first that fits: rules behind it change nothing.
    #[test]
    fn rules_behind_the_one_that_fits_change_nothing(lines in prop::collection::vec(0usize..5, 1..8), more in prop::collection::vec(0usize..5, 0..4)) {
        const LINES: [&str; 5] = [
            "local all all trust",
            "host all ops all reject",
            "host shop all 10.0.0.0/8 md5",
            "hostssl all all all scram-sha-256",
            "host sameuser all 127.0.0.1/32 password",
        ];
        let text = |lines: &[usize]| lines.iter().map(|line| LINES[*line]).collect::<Vec<_>>().join("\n");
        let short = read(&text(&lines)).unwrap();
        let long = read(&text(&[&lines[..], &more[..]].concat())).unwrap();
        for asked in [from("unix", false, "a", "b"), from("10.0.0.1", false, "shop", "x"), from("127.0.0.1", true, "x", "x")] {
            if let Some(rule) = short.find(&asked) {
                prop_assert_eq!(long.find(&asked), Some(rule));
            }
        }
    }
}

#[test]
fn a_network_of_ipv4_written_as_ipv6_is_what_it_says() {
    let hba = read(
        "host all all ::ffff:10.9.0.0/112 reject\n\
         host all all ::ffff:11.0.0.0 ffff:ffff:ffff:ffff:ffff:ffff:ff00:0 reject\n\
         host all all all trust\n",
    )
    .unwrap();
    for (address, expected) in [
        ("10.9.1.2", Method::Reject),
        ("::ffff:10.9.1.2", Method::Reject),
        ("11.2.3.4", Method::Reject),
        ("10.8.1.2", Method::Trust),
        ("fe80::1", Method::Trust),
    ] {
        assert_eq!(method(&hba, &from(address, false, "shop", "app")), Some(expected), "{address}");
    }
}
