//! What clients send, and a reader for what they get.

use crate::pool::wire::{
    frame::{self, put_cstr},
    frontend,
    read::ErrorFields,
    tag::frontend as tag,
};

use super::model::NO_LIMIT;

/// A client's bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script(pub Vec<u8>);

impl Script {
    pub fn query(mut self, sql: &str) -> Self {
        frontend::query(&mut self.0, sql.as_bytes());
        self
    }

    pub fn parse(mut self, name: &str, sql: &str) -> Self {
        frontend::parse(&mut self.0, name.as_bytes(), format!("{sql}\0\0\0").as_bytes());
        self
    }

    pub fn bind(mut self, portal: &str, name: &str) -> Self {
        frame::write(&mut self.0, tag::BIND, |out| {
            put_cstr(out, portal.as_bytes());
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&[0; 6]);
        });
        self
    }

    /// A Bind with a value that its statement does not take.
    pub fn bind_too_much(mut self, name: &str) -> Self {
        frame::write(&mut self.0, tag::BIND, |out| {
            put_cstr(out, b"");
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0]); // a NULL
        });
        self
    }

    pub fn execute(mut self, portal: &str) -> Self {
        frame::write(&mut self.0, tag::EXECUTE, |out| {
            put_cstr(out, portal.as_bytes());
            out.extend_from_slice(&[0; 4]);
        });
        self
    }

    fn target(mut self, tag: u8, kind: u8, name: &str) -> Self {
        frame::write(&mut self.0, tag, |out| {
            out.push(kind);
            put_cstr(out, name.as_bytes());
        });
        self
    }

    pub fn describe_statement(self, name: &str) -> Self {
        self.target(tag::DESCRIBE, b'S', name)
    }

    pub fn describe_portal(self, name: &str) -> Self {
        self.target(tag::DESCRIBE, b'P', name)
    }

    pub fn close_statement(self, name: &str) -> Self {
        self.target(tag::CLOSE, b'S', name)
    }

    pub fn close_portal(self, name: &str) -> Self {
        self.target(tag::CLOSE, b'P', name)
    }

    fn bare(mut self, tag: u8) -> Self {
        frame::write(&mut self.0, tag, |_| {});
        self
    }

    pub fn sync(self) -> Self {
        self.bare(tag::SYNC)
    }

    pub fn flush(self) -> Self {
        self.bare(tag::FLUSH)
    }

    pub fn terminate(self) -> Self {
        self.bare(tag::TERMINATE)
    }

    pub fn copy_data(mut self, data: &str) -> Self {
        frame::write(&mut self.0, tag::COPY_DATA, |out| out.extend_from_slice(data.as_bytes()));
        self
    }

    pub fn copy_done(self) -> Self {
        self.bare(tag::COPY_DONE)
    }

    pub fn copy_fail(mut self) -> Self {
        frame::write(&mut self.0, tag::COPY_FAIL, |out| put_cstr(out, b"no"));
        self
    }

    /// Bind and Execute of a named statement.
    pub fn run(self, name: &str) -> Self {
        self.bind("", name).execute("")
    }

    /// A statement without a name, prepared and run.
    pub fn run_text(self, sql: &str) -> Self {
        self.parse("", sql).bind("", "").execute("")
    }

    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

pub fn script() -> Script {
    Script::default()
}

/// Reads messages as lines such as `Z I`, `E 42P05 prepared statement "a" already exists`, `D hello`.
pub fn lines(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(message) = frame::whole(bytes, NO_LIMIT).expect("sound lengths") {
        bytes = &bytes[message.total_len()..];
        let tag = char::from(message.tag);
        lines.push(match message.tag {
            b'E' => {
                let fields = ErrorFields::parse(message.body);
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let fatal = if fields.is_fatal() { "FATAL " } else { "" };
                format!("E {fatal}{} {}", text(fields.code), text(fields.message))
            }
            b'D' => format!("D {}", String::from_utf8_lossy(&message.body[6..])),
            b'T' => "T".to_owned(),
            _ => {
                let text = String::from_utf8_lossy(message.body).replace('\0', " ");
                format!("{tag} {}", text.trim()).trim_end().to_owned()
            }
        });
    }
    assert!(bytes.is_empty(), "a message is cut off: {bytes:?}");
    lines
}
