use proptest::prelude::*;

use super::{
    backend::{self, Report, Severity, TxStatus},
    frame::{self, Header, HeaderError, Message},
    frontend,
    read::{
        AuthRequest, BackendKeyData, ErrorFields, Malformed, ParameterStatus, ParseBody, SaslInitial, Target, code,
        sasl_mechanisms, startup_len, startup_parameters,
    },
};

const NO_LIMIT: u32 = i32::MAX as u32;

#[test]
fn a_length_below_four_is_no_length() {
    for len in 0..4u8 {
        let error = Header::parse([b'Q', 0, 0, 0, len], NO_LIMIT).unwrap_err();
        assert_eq!(error, HeaderError::TooShort { tag: b'Q', len: len.into() });
    }
}

#[test]
fn a_negative_or_huge_length_is_over_the_limit() {
    let error = Header::parse([b'D', 0xff, 0xff, 0xff, 0xff], NO_LIMIT).unwrap_err();
    assert_eq!(error, HeaderError::TooLong { tag: b'D', len: u32::MAX, limit: NO_LIMIT });
    assert!(Header::parse([b'D', 0, 0, 1, 1], 256).is_err());
    assert_eq!(Header::parse([b'D', 0, 0, 1, 0], 256).unwrap().body_len(), 252);
}

#[test]
fn a_header_in_parts_is_not_there_yet() {
    for n in 0..5 {
        assert_eq!(Header::peek(&[b'S', 0, 0, 0, 4][..n], NO_LIMIT), Ok(None));
    }
    assert_eq!(frame::whole(&[b'S', 0, 0, 0, 5], NO_LIMIT), Ok(None));
    assert_eq!(frame::whole(&[b'S', 0, 0, 0, 5, 7, 9], NO_LIMIT), Ok(Some(Message { tag: b'S', body: &[7] })));
}

#[test]
fn names_without_their_nul_are_malformed() {
    assert_eq!(Target::parse(b"Sname"), Err(Malformed));
    assert_eq!(Target::parse(b"Xname\0"), Err(Malformed));
    assert_eq!(Target::parse(b"Sname\0more"), Err(Malformed));
    assert_eq!(Target::parse(b""), Err(Malformed));
    assert_eq!(Target::parse(b"Sname\0"), Ok(Target::Statement(b"name")));
    assert_eq!(Target::parse(b"P\0"), Ok(Target::Portal(b"")));
    assert_eq!(ParseBody::parse(b"name\0select 1"), Err(Malformed));
}

#[test]
fn a_parse_that_promises_more_types_than_it_has_is_malformed() {
    assert_eq!(ParseBody::parse(b"n\0select 1\0\0\x01\0\0\0"), Err(Malformed));
    assert_eq!(ParseBody::parse(b"n\0select 1\0\xff\xff"), Err(Malformed));
    let parsed = ParseBody::parse(b"n\0select $1\0\0\x01\0\0\0\x17").unwrap();
    assert_eq!(parsed.name, b"n");
    assert_eq!(parsed.definition, b"select $1\0\0\x01\0\0\0\x17");
}

#[test]
fn error_fields_may_be_missing() {
    assert_eq!(ErrorFields::parse(b"\0"), ErrorFields::default());
    assert_eq!(ErrorFields::parse(b"Mhalf a field"), ErrorFields::default());
    let fields = ErrorFields::parse(b"SFATAL\0Mgone\0\0");
    assert!(fields.is_fatal());
    assert_eq!((fields.code, fields.message), (&b""[..], &b"gone"[..]));
}

#[test]
fn the_untranslated_severity_counts() {
    assert!(ErrorFields::parse(b"SFATAL\0VFATAL\0\0").is_fatal());
    assert!(ErrorFields::parse("SСБОЙ\0VFATAL\0\0".as_bytes()).is_fatal());
    assert!(!ErrorFields::parse(b"VERROR\0SFATAL\0\0").is_fatal());
}

#[test]
fn what_is_written_as_an_error_reads_back() {
    let mut out = Vec::new();
    let report = Report {
        severity: Severity::Fatal,
        sqlstate: "53300",
        message: "no server",
        detail: None,
        hint: Some("raise default_pool_size"),
    };
    backend::error_response(&mut out, &report);
    let message = frame::whole(&out, NO_LIMIT).unwrap().unwrap();
    assert_eq!((message.tag, message.total_len()), (b'E', out.len()));
    let fields = ErrorFields::parse(message.body);
    assert!(fields.is_fatal());
    assert_eq!((fields.code, fields.message), (&b"53300"[..], &b"no server"[..]));
    assert!(message.body.ends_with(b"Hraise default_pool_size\0\0"));
}

#[test]
fn authentication_requests_read_back() {
    let mut out = Vec::new();
    backend::authentication_ok(&mut out);
    backend::authentication_cleartext(&mut out);
    backend::authentication_md5(&mut out, [1, 2, 3, 4]);
    backend::authentication_sasl(&mut out, &["SCRAM-SHA-256"]);
    backend::authentication_sasl_continue(&mut out, b"r=");
    backend::authentication_sasl_final(&mut out, b"v=");
    let mut seen = Vec::new();
    let mut rest = &out[..];
    while let Some(message) = frame::whole(rest, NO_LIMIT).unwrap() {
        seen.push(AuthRequest::parse(message.body).unwrap());
        rest = &rest[message.total_len()..];
    }
    let AuthRequest::Sasl { mechanisms } = seen.remove(3) else { panic!("{seen:?}") };
    assert_eq!(sasl_mechanisms(mechanisms).collect::<Vec<_>>(), [b"SCRAM-SHA-256"]);
    let salt = [1, 2, 3, 4];
    let expected = [
        AuthRequest::Ok,
        AuthRequest::CleartextPassword,
        AuthRequest::Md5Password { salt },
        AuthRequest::SaslContinue { data: b"r=" },
        AuthRequest::SaslFinal { data: b"v=" },
    ];
    assert_eq!(seen, expected);
    assert_eq!(AuthRequest::parse(b"\0\0\0\x05abc"), Err(Malformed));
}

#[test]
fn startup_packets_read_back() {
    let mut out = Vec::new();
    frontend::startup(&mut out, code::PROTOCOL_3_2, [("user", &b"django"[..]), ("database", b"arena")]);
    assert_eq!(startup_len(&out, 10_000), Ok(Some(out.len())));
    assert_eq!(startup_len(&out, 20), Err(Malformed));
    assert_eq!(startup_len(&out[..3], 10_000), Ok(None));
    assert_eq!(startup_len(&[0xff; 4], 10_000), Err(Malformed));
    let parameters = startup_parameters(&out[8..]).unwrap();
    assert_eq!(parameters, [(&b"user"[..], &b"django"[..]), (b"database", b"arena")]);
    assert_eq!(startup_parameters(b"user\0django\0"), Err(Malformed));
    assert_eq!(startup_parameters(b"user\0"), Err(Malformed));
}

#[test]
fn sasl_and_keys_read_back() {
    let mut out = Vec::new();
    frontend::sasl_initial_response(&mut out, "SCRAM-SHA-256", b"n,,n=,r=abc");
    let initial = SaslInitial::parse(&out[5..]).unwrap();
    assert_eq!((initial.mechanism, initial.data), (&b"SCRAM-SHA-256"[..], Some(&b"n,,n=,r=abc"[..])));
    assert_eq!(SaslInitial::parse(b"S\0\x7f\xff\xff\xff"), Err(Malformed));
    let mut out = Vec::new();
    backend::backend_key_data(&mut out, 42, &[9; 32]);
    assert_eq!(BackendKeyData::parse(&out[5..]), Ok(BackendKeyData { pid: 42, secret: &[9; 32] }));
    for len in [0, 3, 257] {
        assert_eq!(BackendKeyData::parse(&vec![0; 4 + len]), Err(Malformed), "{len}");
    }
    assert_eq!(BackendKeyData::parse(&[0; 260]), Ok(BackendKeyData { pid: 0, secret: &[0; 256] }));
}

#[test]
fn text_with_a_nul_inside_cannot_forge_a_field() {
    let mut out = Vec::new();
    backend::parameter_status(&mut out, "TimeZone", b"UTC\0evil");
    assert_eq!(ParameterStatus::parse(&out[5..]), Ok(ParameterStatus { name: "TimeZone", value: b"UTC" }));
}

#[test]
fn the_transaction_status_survives_the_wire() {
    for status in [TxStatus::Idle, TxStatus::InTransaction, TxStatus::Failed] {
        let mut out = Vec::new();
        backend::ready_for_query(&mut out, status);
        assert_eq!(TxStatus::from_byte(out[5]), Some(status));
    }
    assert_eq!(TxStatus::from_byte(b'?'), None);
}

proptest! {
    #[test]
    fn no_body_makes_a_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Target::parse(&body);
        let _ =  ParseBody::parse(&body);
        let _ = ParameterStatus::parse(&body);
        let _ = ErrorFields::parse(&body);
        let _ = AuthRequest::parse(&body);
        let _ = SaslInitial::parse(&body);
        let _ = BackendKeyData::parse(&body);
        let _ = startup_parameters(&body);
        let _ = startup_len(&body, 10_000);
        let _ = frame::whole(&body, 1000);
    }

    #[test]
    fn a_header_reads_back_as_written(tag: u8, len in 4u32..NO_LIMIT) {
        let [a, b, c, d] = len.to_be_bytes();
        let header = Header::parse([tag, a, b, c, d], NO_LIMIT).unwrap();
        prop_assert_eq!(header.bytes(), [tag, a, b, c, d]);
        prop_assert_eq!(header.total_len(), len as usize + 1);
    }
}
