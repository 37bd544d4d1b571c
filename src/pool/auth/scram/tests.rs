use base64::{Engine, engine::general_purpose::STANDARD};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::{
    Keys, Verifier,
    client::{self, Challenge},
    nonce,
    server::{Binding, Exchange, Failure},
};

// RFC 7677 section 3: user "user", password "pencil".
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FINAL: &str =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> Keys {
    Keys::derive("pencil", &STANDARD.decode(SALT).unwrap(), 4096)
}

fn rfc_exchange() -> Exchange {
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    Exchange::start(first.as_bytes(), SERVER_NONCE, &STANDARD.decode(SALT).unwrap(), 4096, Binding::NotOffered).unwrap()
}

fn start(first: &str) -> Result<Exchange, super::server::Malformed> {
    Exchange::start(first.as_bytes(), "server", b"salt", 1, Binding::NotOffered)
}

fn start_with(first: &str, binding: Binding<'_>) -> Result<Exchange, super::server::Malformed> {
    Exchange::start(first.as_bytes(), SERVER_NONCE, &STANDARD.decode(SALT).unwrap(), 4096, binding)
}

/// Both halves of ours against each other.
fn login_with_binding(ours: client::Binding<'_>, theirs: Binding<'_>) -> Result<(), &'static str> {
    let keys = pencil();
    let exchange = start_with(&client::first(CLIENT_NONCE, ours), theirs).map_err(|e| e.0)?;
    let challenge = Challenge::read(CLIENT_NONCE, exchange.server_first().as_bytes()).unwrap();
    let (client_final, expected) = challenge.answer(&keys, ours);
    let proven = exchange.finish(client_final.as_bytes(), &keys.stored, &keys.server).map_err(|e| match e {
        Failure::Malformed(e) => e.0,
        Failure::WrongProof => "wrong proof",
    })?;
    assert!(expected.matches(proven.server_final.as_bytes()));
    Ok(())
}

#[test]
fn a_proof_bound_to_another_connection_is_refused() {
    let bound = client::Binding::EndPoint(b"certificate one");
    assert_eq!(login_with_binding(bound, Binding::EndPoint(b"certificate one")), Ok(()));
    let error = login_with_binding(bound, Binding::EndPoint(b"certificate two")).unwrap_err();
    assert!(error.contains("another channel binding"), "{error}");
}

#[test]
fn binding_is_used_exactly_where_both_sides_agreed_on_it() {
    assert_eq!(login_with_binding(client::Binding::None, Binding::NotOffered), Ok(()));
    assert_eq!(login_with_binding(client::Binding::None, Binding::Declined), Ok(()));
    assert_eq!(login_with_binding(client::Binding::NotOffered, Binding::NotOffered), Ok(()));
    // The client says it was not offered and it was: somebody in between removed the offer.
    assert!(login_with_binding(client::Binding::NotOffered, Binding::Declined).unwrap_err().contains("tampered"));
    for unbound in [client::Binding::None, client::Binding::NotOffered] {
        assert!(login_with_binding(unbound, Binding::EndPoint(b"hash")).is_err());
    }
    for declined in [Binding::NotOffered, Binding::Declined] {
        assert!(login_with_binding(client::Binding::EndPoint(b"hash"), declined).is_err());
    }
    for kind in ["tls-unique", "tls-exporter", ""] {
        assert!(start_with(&format!("p={kind},,n=,r=abc"), Binding::EndPoint(b"hash")).is_err(), "{kind}");
    }
}

#[test]
fn an_independent_client_binds_to_the_certificate() {
    let mut peer = ScramSha256::new(b"pencil", ChannelBinding::tls_server_end_point(b"the hash".to_vec()));
    let first = std::str::from_utf8(peer.message()).unwrap().to_owned();
    let exchange = start_with(&first, Binding::EndPoint(b"the hash")).unwrap();
    peer.update(exchange.server_first().as_bytes()).unwrap();
    let keys = pencil();
    let proven = exchange.finish(peer.message(), &keys.stored, &keys.server).unwrap();
    peer.finish(proven.server_final.as_bytes()).unwrap();
}

#[test]
fn server_half_passes_the_vector_of_rfc_7677() {
    let exchange = rfc_exchange();
    assert_eq!(exchange.server_first(), format!("r={CLIENT_NONCE}{SERVER_NONCE},s={SALT},i=4096"));
    let keys = pencil();
    let proven = exchange.finish(CLIENT_FINAL.as_bytes(), &keys.stored, &keys.server).unwrap();
    assert_eq!(proven.server_final, SERVER_FINAL);
    assert!(proven.client_key == keys.client);
}

#[test]
fn a_verifier_is_read_as_postgresql_writes_it() {
    let keys = pencil();
    let encode = |k: &[u8]| STANDARD.encode(k);
    let text = format!("SCRAM-SHA-256$4096:{SALT}${}:{}", encode(&keys.stored), encode(&keys.server));
    let verifier = Verifier::parse(&text).unwrap();
    assert_eq!(verifier.iterations, 4096);
    assert_eq!(*verifier.salt, *STANDARD.decode(SALT).unwrap());
    assert!(verifier.stored == keys.stored && verifier.server == keys.server);
    for cut in 0..text.len() {
        assert!(Verifier::parse(&text[..cut]).is_none(), "cut at {cut}");
    }
    assert!(Verifier::parse(&text.replace("4096", "0")).is_none());
    assert!(Verifier::parse(&text.replace("4096", "-1")).is_none());
}

#[test]
fn malformed_first_messages_are_refused() {
    for first in [
        "",
        "n",
        "n,,",
        "n,,n=",
        "n,,n=,",
        "n,,n=,r=",
        "n,,r=abc",
        "n,,n=,r=a b",
        "n,,n=,r=a\u{7f}",
        "n,,n=,r=é",
        "n,,m=x,n=,r=abc",
        "n,a=other,n=,r=abc",
        "p=tls-server-end-point,,n=,r=abc",
        "p=,,n=,r=abc",
        "x,,n=,r=abc",
        "n,n=,r=abc",
    ] {
        assert!(start(first).is_err(), "{first:?}");
    }
    assert!(Exchange::start(b"n,,n=\xff,r=abc", "server", b"salt", 1, Binding::NotOffered).is_err());
    assert!(start("y,,n=,r=abc").is_ok());
    assert!(start("n,,n=whoever,r=abc,x=extension").is_ok());
}

#[test]
fn a_final_message_must_belong_to_this_exchange() {
    let keys = pencil();
    let finish = |text: &str| rfc_exchange().finish(text.as_bytes(), &keys.stored, &keys.server).err();
    let malformed = |text: &str| assert!(matches!(finish(text), Some(Failure::Malformed(_))), "{text:?}");
    malformed("");
    malformed("c=biws");
    malformed("c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    malformed(&CLIENT_FINAL.replace("c=biws", "c=eSws")); // "y,," after "n,,"
    malformed(&CLIENT_FINAL.replace("c=biws", "c=cD10bHM="));
    malformed(&CLIENT_FINAL.replace("rOprNG", "sOprNG"));
    malformed(&CLIENT_FINAL.replace(SERVER_NONCE, ""));
    malformed(&CLIENT_FINAL.replace("dHzb", "****"));
    malformed(&CLIENT_FINAL.replace("dHzbZapWIk4jUhN+", ""));
    malformed(&format!("{CLIENT_FINAL},p=AAAA"));
    assert_eq!(finish(&CLIENT_FINAL.replace("p=dHzb", "p=eHzb")), Some(Failure::WrongProof));
}

#[test]
fn a_wrong_password_and_another_salt_fail_by_the_proof() {
    for keys in [Keys::derive("pencil!", b"salt", 4096), Keys::derive("pencil", b"other", 4096)] {
        let failure = rfc_exchange().finish(CLIENT_FINAL.as_bytes(), &keys.stored, &keys.server).err();
        assert_eq!(failure, Some(Failure::WrongProof));
    }
}

/// libpq's peer in Rust, as an independent witness.
fn login_with_postgres_protocol(known: &str, typed: &str, binding: ChannelBinding) -> Result<(), Failure> {
    let mut peer = ScramSha256::new(typed.as_bytes(), binding);
    let exchange =
        Exchange::start(peer.message(), &nonce(&[3; 18]), b"sixteen bytes ok", 4096, Binding::NotOffered).unwrap();
    peer.update(exchange.server_first().as_bytes()).unwrap();
    let keys = Keys::derive(known, b"sixteen bytes ok", 4096);
    let proven = exchange.finish(peer.message(), &keys.stored, &keys.server)?;
    peer.finish(proven.server_final.as_bytes()).unwrap();
    Ok(())
}

#[test]
fn an_independent_client_logs_in_and_accepts_our_signature() {
    for password in ["pencil", "", "pass word,=", "I\u{ad}X", "\u{2168}", "пароль", "a\u{7}b"] {
        login_with_postgres_protocol(password, password, ChannelBinding::unsupported()).unwrap();
        login_with_postgres_protocol(password, password, ChannelBinding::unrequested()).unwrap();
    }
    // SASLprep: a soft hyphen is nothing, and the Roman numeral nine is "IX" (RFC 4013 section 3).
    login_with_postgres_protocol("IX", "I\u{ad}X", ChannelBinding::unsupported()).unwrap();
    login_with_postgres_protocol("IX", "\u{2168}", ChannelBinding::unsupported()).unwrap();
    let wrong = login_with_postgres_protocol("pencil", "Pencil", ChannelBinding::unsupported());
    assert_eq!(wrong, Err(Failure::WrongProof));
}

#[test]
fn client_half_passes_the_vector_of_rfc_7677_but_for_the_user_name() {
    // PostgreSQL's clients leave the name empty, so the vector's proof does not apply; our server half is the witness.
    let keys = pencil();
    let exchange = start_with(&client::first(CLIENT_NONCE, client::Binding::None), Binding::NotOffered).unwrap();
    let challenge = Challenge::read(CLIENT_NONCE, exchange.server_first().as_bytes()).unwrap();
    assert_eq!((&*challenge.salt, challenge.iterations), (&*STANDARD.decode(SALT).unwrap(), 4096));
    let (client_final, expected) = challenge.answer(&keys, client::Binding::None);
    let proven = exchange.finish(client_final.as_bytes(), &keys.stored, &keys.server).unwrap();
    assert!(expected.matches(proven.server_final.as_bytes()));
}

#[test]
fn a_server_that_does_not_know_the_verifier_is_noticed() {
    let challenge = Challenge::read("abc", b"r=abcdef,s=c2FsdA==,i=1").unwrap();
    let (_, expected) = challenge.answer(&Keys::derive("pencil", b"salt", 1), client::Binding::None);
    for last in ["", "v=", "v=AAAA", SERVER_FINAL, "e=other-error", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="] {
        assert!(!expected.matches(last.as_bytes()), "{last:?}");
    }
    assert!(!expected.matches(b"v=\xff"));
}

#[test]
fn a_servers_challenge_is_bounded_and_extends_our_nonce() {
    let long = format!("r=abcdef,s={},i=1", STANDARD.encode([1; 257]));
    for first in [
        "",
        "r=abcdef",
        "r=abcdef,s=c2FsdA==",
        "r=abcdef,s=c2FsdA==,i=",
        "r=abcdef,s=c2FsdA==,i=0",
        "r=abcdef,s=c2FsdA==,i=100001",
        "r=abcdef,s=c2FsdA==,i=99999999999",
        "r=abcdef,s=c2FsdA==,i=-5",
        "r=abcdef,s=,i=1",
        "r=abcdef,s=***,i=1",
        "r=abc,s=c2FsdA==,i=1",
        "r=xbcdef,s=c2FsdA==,i=1",
        "r=abc\u{1}def,s=c2FsdA==,i=1",
        "m=ext,r=abcdef,s=c2FsdA==,i=1",
        long.as_str(),
    ] {
        assert!(Challenge::read("abc", first.as_bytes()).is_err(), "{first:?}");
    }
    assert!(Challenge::read("abc", b"r=abcdef,s=c2FsdA==,i=100000").is_ok());
}

#[test]
fn keys_and_verifiers_do_not_print() {
    assert_eq!(format!("{:?}", pencil()), "Keys(…)");
}

proptest! {
    #[test]
    fn no_message_makes_either_half_panic(a in proptest::collection::vec(any::<u8>(), 0..200), s in "[nyp]?,?,?[nrscipve=,a-z]{0,40}") {
        for message in [&a[..], s.as_bytes()] {
            for binding in [Binding::NotOffered, Binding::Declined, Binding::EndPoint(b"hash")] {
                let _ = Exchange::start(message, "x", b"salt", 1, binding);
            }
            let _ = rfc_exchange().finish(message, &[0; 32], &[0; 32]);
            let _ = Challenge::read("abc", message);
        }
        let _ = Verifier::parse(&s);
    }
}
