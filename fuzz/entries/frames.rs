//! Any bytes as messages of either side, and as each body that is understood: no panic, nothing read past an end, and what
//! was read can be written again.

use bookend::pool::wire::{
    frame::{self, HEADER_LEN, Header},
    read::{
        AuthRequest, BackendKeyData, ErrorFields, ParameterStatus, ParseBody, SaslInitial, Target, sasl_mechanisms,
        startup_len, startup_parameters,
    },
};

const MAX: u32 = 1 << 20;

pub fn run(data: &[u8]) {
    if let Ok(Some(header)) = Header::peek(data, MAX) {
        assert_eq!(header.bytes(), data[..HEADER_LEN]);
        assert!(header.total_len() <= MAX as usize + 1);
    }
    let mut rest = data;
    while let Ok(Some(message)) = frame::whole(rest, MAX) {
        let mut again = Vec::new();
        frame::write(&mut again, message.tag, |out| out.extend_from_slice(message.body));
        assert_eq!(again, rest[..message.total_len()]);
        body(message.body);
        rest = &rest[message.total_len()..];
    }
    body(data);
    if let Ok(Some(len)) = startup_len(data, 10_000) {
        assert!((8..=10_000).contains(&len));
    }
}

fn body(body: &[u8]) {
    if let Ok(parse) = ParseBody::parse(body) {
        assert_eq!(parse.name.len() + 1 + parse.definition.len(), body.len());
    }
    if let Ok(Target::Statement(name) | Target::Portal(name)) = Target::parse(body) {
        assert_eq!(name.len() + 2, body.len());
    }
    if let Ok(status) = ParameterStatus::parse(body) {
        assert_eq!(status.name.len() + status.value.len() + 2, body.len());
    }
    if let Ok(AuthRequest::Sasl { mechanisms }) = AuthRequest::parse(body) {
        assert!(sasl_mechanisms(mechanisms).all(|name| !name.contains(&0)));
    }
    if let Ok(parameters) = startup_parameters(body) {
        assert!(parameters.iter().all(|(name, _)| !name.is_empty()));
    }
    let _fields = (ErrorFields::parse(body).is_fatal(), SaslInitial::parse(body), BackendKeyData::parse(body));
}
