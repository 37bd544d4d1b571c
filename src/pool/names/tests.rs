use std::collections::HashMap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Ttl = Ttl { found: Duration::from_secs(15), failed: Duration::from_secs(5) };

/// A resolver that answers what it is told, after as long as it is told.
#[derive(Default)]
pub struct Told {
    pub answers: Mutex<HashMap<String, Vec<IpAddr>>>,
    takes: Mutex<Duration>,
    asked: AtomicUsize,
}

impl Told {
    /// From now on `host` has these addresses; none: it is not found.
    pub fn tell(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().insert(host.into(), addresses);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Lookup for Told {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let takes = *self.takes.lock();
        tokio::time::sleep(takes).await;
        match self.answers.lock().get(host) {
            Some(addresses) if !addresses.is_empty() => Ok(addresses.clone()),
            _ => Err(io::Error::other("name not known")),
        }
    }
}

type Heard = Arc<Mutex<Vec<(Outcome, Vec<IpAddr>)>>>;

/// A table with its keeper, and what that hears.
fn kept() -> (Arc<Told>, Arc<Names>, Heard) {
    let (told, heard) = (Arc::new(Told::default()), Heard::default());
    let names = Names::new(told.clone(), TTL);
    let ears = heard.clone();
    let note = move |_: &Name, outcome, gone: &[IpAddr]| ears.lock().push((outcome, gone.to_vec()));
    tokio::spawn(keep(Arc::downgrade(&names), note));
    (told, names, heard)
}

/// As often as it is asked for by default: PgBouncer's `dns_nxdomain_ttl` and `dns_max_ttl`.
#[tokio::test(start_paused = true)]
async fn by_default_a_name_that_is_not_found_is_asked_for_again_when_pgbouncer_would() {
    let pool = crate::config::pool::Servers::default();
    assert_eq!((pool.dns_nxdomain_ttl, pool.dns_max_ttl), (15 * SECOND, 15 * SECOND));
    let told = Arc::new(Told::default());
    let names = Names::new(told.clone(), Ttl { found: pool.dns_max_ttl, failed: pool.dns_nxdomain_ttl });
    tokio::spawn(keep(Arc::downgrade(&names), |_: &Name, _, _: &[IpAddr]| {}));
    let name = names.get("db");
    assert!(name.addresses().await.is_err());
    told.tell("db", &["10.0.0.1"]);
    tokio::time::sleep(11 * SECOND).await; // up to 20 % sooner
    assert!(name.addresses().await.is_err() && told.asked() == 1, "asked {} times", told.asked());
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(first(&name).await, ips(&["10.0.0.1"])[0]);
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// What a new connection would try first.
async fn first(name: &Name) -> IpAddr {
    name.addresses().await.unwrap()[0]
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_once_and_again_when_its_time_is_over() {
    let (told, names, _) = kept();
    told.tell("db", &["10.0.0.1"]);
    let name = names.get("db");
    assert!(Arc::ptr_eq(&name, &names.get("db")));
    for _ in 0..5 {
        assert_eq!(name.addresses().await.unwrap(), ips(&["10.0.0.1"]));
    }
    assert_eq!(told.asked(), 1);
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(told.asked(), 1, "not before 80 % of dns_max_ttl");
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(told.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn logins_that_come_together_ask_one_question_and_wait_for_it() {
    let (told, names, _) = kept();
    told.tell("db", &["10.0.0.1"]);
    *told.takes.lock() = 3 * SECOND;
    let name = names.get("db");
    let start = Instant::now();
    let all = futures_util::future::join_all((0..20).map(|_| name.addresses())).await;
    assert!(all.iter().all(|answer| answer.is_ok()));
    assert_eq!((told.asked(), start.elapsed()), (1, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_counts_while_the_resolver_fails_or_hangs() {
    let (told, names, heard) = kept();
    told.tell("db", &["10.0.0.1"]);
    let name = names.get("db");
    first(&name).await;
    told.tell("db", &[]);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(name.addresses().await.unwrap(), ips(&["10.0.0.1"]));
    assert!(heard.lock().contains(&(Outcome::Failed, vec![])));
    *told.takes.lock() = 600 * SECOND;
    tokio::time::sleep(60 * SECOND).await;
    let start = Instant::now();
    assert_eq!(first(&name).await, ips(&["10.0.0.1"])[0]);
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for a question under way");
    assert!(names.list(Instant::now())[0].asking);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_gone_is_reported_once() {
    let (told, names, heard) = kept();
    told.tell("db", &["10.0.0.1", "10.0.0.2"]);
    let name = names.get("db");
    first(&name).await;
    told.tell("db", &["10.0.0.2", "10.0.0.3"]);
    tokio::time::sleep(60 * SECOND).await;
    let changes: Vec<_> = heard.lock().iter().filter(|(outcome, _)| *outcome != Outcome::Same).cloned().collect();
    assert_eq!(changes, [(Outcome::Changed, ips(&["10.0.0.1"]))]);
    assert!(!name.has(ips(&["10.0.0.1"])[0]) && name.has(ips(&["10.0.0.3"])[0]));
}

#[tokio::test(start_paused = true)]
async fn another_order_is_no_change() {
    let (told, names, heard) = kept();
    told.tell("db", &["10.0.0.1", "10.0.0.2"]);
    first(&names.get("db")).await;
    let name = names.get("db");
    told.tell("db", &["10.0.0.2", "10.0.0.1"]);
    tokio::time::sleep(20 * SECOND).await;
    assert!(heard.lock().iter().all(|(outcome, gone)| *outcome == Outcome::Same && gone.is_empty()));
    drop(name);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_found_fails_who_connects_and_is_asked_for_again_later() {
    let (told, names, _) = kept();
    let name = names.get("db");
    assert_eq!(name.addresses().await, Err(ServerError::Resolve { why: "name not known".into() }));
    told.tell("db", &["10.0.0.1"]);
    name.doubt(Instant::now());
    tokio::time::sleep(3 * SECOND).await;
    assert!(name.addresses().await.is_err(), "dns_nxdomain_ttl");
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(first(&name).await, ips(&["10.0.0.1"])[0]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_connection_the_name_is_asked_for_again_but_not_more_than_once_a_second() {
    let (told, names, _) = kept();
    told.tell("db", &["10.0.0.1"]);
    let name = names.get("db");
    first(&name).await;
    told.tell("db", &["10.0.0.2"]);
    for _ in 0..8 {
        name.doubt(Instant::now());
        tokio::time::sleep(SECOND / 4).await;
    }
    assert_eq!(first(&name).await, ips(&["10.0.0.2"])[0]);
    assert!(told.asked() <= 3, "{}", told.asked());
}

#[tokio::test(start_paused = true)]
async fn a_name_nobody_uses_any_more_is_forgotten() {
    let (told, names, _) = kept();
    told.tell("db", &["10.0.0.1"]);
    let name = names.get("db");
    first(&name).await;
    drop(name);
    assert_eq!(names.list(Instant::now()), []);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(told.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_its_own_answer_and_is_never_asked_for() {
    let (told, names, _) = kept();
    let name = names.get("::1");
    assert_eq!(name.addresses().await.unwrap(), ips(&["::1"]));
    name.doubt(Instant::now());
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((told.asked(), names.list(Instant::now())), (0, vec![]));
}

#[tokio::test]
async fn connections_take_turns_and_try_what_failed_lately_last() {
    let all = ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let now = Instant::now();
    let firsts: Vec<_> = (0..4).map(|turn| order(&all, turn, &[], now)[0]).collect();
    assert_eq!(firsts, [all[0], all[1], all[2], all[0]]);
    let failed = [(all[1], now)];
    assert_eq!(order(&all, 1, &failed, now), [all[2], all[0], all[1]]);
    assert_eq!(order(&all, 1, &failed, now + SHUNNED), [all[1], all[2], all[0]]);
    assert!(order(&[], 1, &failed, now).is_empty());
}

#[tokio::test]
async fn an_address_that_is_reached_again_is_no_longer_last() {
    let name = Name::fixed(IpAddr::from([10, 0, 0, 1]));
    let (address, now) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
    name.tried(address, false, now);
    assert_eq!(name.failed.lock().len(), 1);
    name.tried(address, false, now);
    assert_eq!(name.failed.lock().len(), 1);
    name.tried(address, true, now);
    assert!(name.failed.lock().is_empty());
}
