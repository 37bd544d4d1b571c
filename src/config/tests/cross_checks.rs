//! What only shows when both files are read.

use super::*;

fn both(lb: &str, pool: &str) -> Vec<String> {
    lines(load(Some(lb), Some(pool)))
}

#[test]
fn a_health_check_names_a_database_of_the_pool() {
    let front = FRONT.replace("routes:", "    health_check: { database: arena_bd }\nroutes:");
    let expected = "lb.yaml:5:31: upstreams.django.health_check.database: arena_bd is not in databases of pool.yaml (did you \
                    mean arena_db?)";
    assert_eq!(both(&front, POOL), [expected]);
    assert_eq!(both(&front.replace("arena_bd", "arena_db"), POOL), [""; 0]);
    // The pool looks at named databases only, so the fallback does not stand for one.
    assert_eq!(both(&front, &POOL.replace("arena_db", "'*'")).len(), 1);
    assert_eq!(lb_errors(&front), [""; 0], "the front alone cannot know");
}

#[test]
fn no_two_listeners_want_one_port() {
    let front = FRONT.replace("[{ address: 127.0.0.1:8080 }]", "[{ address: '*:6432' }, { address: 127.0.0.1:9180 }]");
    let expected = [
        "lb.yaml:1:47: listeners[1].address: 127.0.0.1:9180 is taken by the admin listener",
        "pool.yaml:1:1: pool: 127.0.0.1:6432 is taken by listeners[0]",
    ];
    assert_eq!(both(&front, POOL), expected);
    let pool = format!("pool: {{ listen_port: 7000 }}\nadmin: {{ address: 127.0.0.1:7000 }}\n{POOL}");
    assert_eq!(
        both(FRONT, &pool),
        ["pool.yaml:2:19: admin.address: 127.0.0.1:7000 is taken by the pool's listen_port"]
    );
    let twice = FRONT.replace("127.0.0.1:8080 }", "127.0.0.1:8080 }, { address: 0.0.0.0:8080 }");
    assert_eq!(lb_errors(&twice), ["lb.yaml:1:53: listeners[1].address: 0.0.0.0:8080 is taken by listeners[0]"]);
}

#[test]
fn errors_of_both_files_come_together() {
    let errors = both(&format!("{FRONT}x: 1\n"), &format!("{POOL}y: 1\n"));
    assert_eq!(errors, ["lb.yaml:7:1: x: unknown key", "pool.yaml:5:1: y: unknown key"]);
}

#[test]
fn admin_and_shutdown_may_stand_in_either_file_and_the_fronts_wins() {
    let admin = |config: Config| config.admin.map(|admin| admin.address.port());
    let front = format!("{FRONT}admin: {{ address: 127.0.0.1:7001 }}\nshutdown: {{ grace_period: 7s }}\n");
    let pool = format!("{POOL}admin: {{ address: 127.0.0.1:7002 }}\nshutdown: {{ pre_stop_delay: 2s }}\n");
    let config = load(Some(&front), Some(&pool)).unwrap();
    assert_eq!(config.shutdown.grace_period, Duration::from_secs(7));
    assert_eq!(config.shutdown.pre_stop_delay, Duration::ZERO);
    assert_eq!(config.lb.as_ref().unwrap().shutdown, config.shutdown);
    assert_eq!(admin(config), Some(7001));
    let config = load(Some(FRONT), Some(&pool)).unwrap();
    assert_eq!(config.lb.as_ref().unwrap().shutdown.pre_stop_delay, Duration::from_secs(2));
    assert_eq!(admin(config), Some(7002));
    assert_eq!(admin(load(Some(FRONT), None).unwrap()), Some(9180));
    assert_eq!(admin(load(Some(&format!("{FRONT}admin: false\n")), Some(&pool)).unwrap()), None);
}

#[test]
fn the_users_file_stands_beside_the_file_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, list) = (dir.path().join("pool.yaml"), dir.path().join("userlist.txt"));
    let text = "pool: { auth_file: userlist.txt, admin_users: [ops] }\ndatabases: { a: { host: h } }\nusers: { app: { password: new } }\n";
    std::fs::write(&file, text).unwrap();
    let sources = Sources { lb: None, pool: Some(file.clone()) };
    let load = || Config::load(&sources, &surroundings());

    let shown = file.display();
    let missing = format!(
        "{shown}:1:20: pool.auth_file: {} cannot be read: No such file or directory (os error 2)",
        list.display()
    );
    assert_eq!(lines(load()), [missing]);

    std::fs::write(&list, "\"app\" \"old\"\nbroken hunter2\n").unwrap();
    let broken = format!("{}:2:1: must be \"name\" \"password\", both in double quotes", list.display());
    assert_eq!(lines(load()), [broken]);

    std::fs::write(&list, "\"app\" \"old\"\n\"ops\" \"\"\n").unwrap();
    let empty = format!("{}:2:1: user ops has no password, and auth_type is not trust", list.display());
    assert_eq!(lines(load()), [empty]);

    std::fs::write(&list, "\"app\" \"old\"\n\"ops\" \"x\"\n").unwrap();
    let pool = load().unwrap().pool.unwrap();
    let users: Vec<_> = pool.users.iter().map(|user| (user.name.as_str(), &user.secret)).collect();
    let plain = |text| pool::UserSecret::Plain(secret::Secret::new(text));
    assert_eq!(users, [("app", &plain("new")), ("ops", &plain("x"))]);
}
