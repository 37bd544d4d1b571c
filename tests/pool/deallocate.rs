//! `DEALLOCATE name` of names that the protocol gave, as psycopg sends it, with frames by hand.

use bookend::config::pool::{AuthType, Pool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::*;

/// A client that logs in by trust.
struct Raw(TcpStream);

impl Raw {
    async fn connect(pooled: &Pooled) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
        let parameters = format!("user\0{USER}\0database\0{DATABASE}\0\0");
        let length = u32::try_from(parameters.len() + 8).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat()).await.unwrap();
        let mut raw = Self(stream);
        assert_eq!(raw.answer().await.last().map(String::as_str), Some("Z I"));
        raw
    }

    async fn say(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.write_all(bytes).await.unwrap();
        self.answer().await
    }

    /// Reads messages to the next ReadyForQuery: their tags, and what tells them apart. RowDescription is left out.
    async fn answer(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let tag = tokio::time::timeout(5 * SECOND, self.0.read_u8()).await.expect("an answer in time").unwrap();
            let mut body = vec![0; self.0.read_u32().await.unwrap() as usize - 4];
            self.0.read_exact(&mut body).await.unwrap();
            let text = String::from_utf8_lossy(&body).into_owned();
            match tag {
                b'T' => {}
                b'C' | b'Z' => lines.push(format!("{} {}", char::from(tag), text.trim_end_matches('\0'))),
                b'E' => {
                    let code = text.split('\0').find_map(|field| field.strip_prefix('C')).unwrap_or_default();
                    lines.push(format!("E {code}"));
                }
                tag => lines.push(char::from(tag).to_string()),
            }
            if tag == b'Z' {
                return lines;
            }
        }
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn parsed(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    [parsed(name, sql), sync()].concat()
}

/// Bind, Execute and Sync.
fn run(name: &str) -> Vec<u8> {
    let bind = message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
    [bind, message(b'E', b"\0\0\0\0\0"), sync()].concat()
}

/// A statement without a name, prepared and run in one batch.
fn run_text(sql: &str) -> Vec<u8> {
    [parsed("", sql), run("")].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_the_protocol_can_be_deallocated_by_sql() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 1, ..config(&cluster) }).await;
    let (mut one, mut other) = (Raw::connect(&pooled).await, Raw::connect(&pooled).await);
    for client in [&mut one, &mut other] {
        assert_eq!(client.say(&parse("_pg3_0", "SELECT 5")).await, ["1", "Z I"]);
    }
    assert_eq!(one.say(&query("DEALLOCATE \"_pg3_0\"")).await, ["C DEALLOCATE", "Z I"]);
    assert_eq!(one.say(&run("_pg3_0")).await, ["E 26000", "Z I"]);
    assert_eq!(one.say(&query("DEALLOCATE \"_pg3_0\"")).await, ["E 26000", "Z I"]);
    assert_eq!(one.say(&parse("_pg3_0", "SELECT 6")).await, ["1", "Z I"], "the name is free");
    assert_eq!(other.say(&run("_pg3_0")).await, ["2", "D", "C SELECT 1", "Z I"], "another's stays");
    assert_eq!(other.say(&run_text("DEALLOCATE _pg3_0")).await, ["1", "2", "C DEALLOCATE", "Z I"]);
    assert_eq!(other.say(&run("_pg3_0")).await, ["E 26000", "Z I"]);
    assert_eq!(one.say(&run("_pg3_0")).await, ["2", "D", "C SELECT 1", "Z I"]);
}
