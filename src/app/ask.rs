//! The commands that talk to a running process: one HTTP request to its admin listener, and an answer for the terminal.
//!
//! A container runs `bookend healthcheck` every few seconds, so this is a plain blocking socket with one deadline and no
//! runtime; the answer is read to its end because `Connection: close` is asked for.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A health check that takes longer has failed: containers' own timeouts are of this size.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading both files, resolving their names.
const ORDER_TIMEOUT: Duration = Duration::from_secs(35);
/// Bytes of an answer that are read at most.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Header lines of an answer.
const MAX_HEADERS: usize = 64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}: not a URL like http://127.0.0.1:9180/ready")]
    Url(String),
    #[error("cannot reach {0}: {1}")]
    Io(String, #[source] io::Error),
    #[error("{0} did not answer with HTTP")]
    NotHttp(String),
}

struct Answer {
    status: u16,
    body: String,
}

/// Asks `url`; an answer with a status of 2xx is healthy.
///
/// # Errors
/// What to print when it is not.
pub fn healthcheck(url: &str) -> Result<String, String> {
    let answer = ask("GET", url, HEALTHCHECK_TIMEOUT).map_err(|error| error.to_string())?;
    let text = answer.body.trim_end().to_owned();
    if (200..300).contains(&answer.status) { Ok(text) } else { Err(format!("{} {text}", answer.status)) }
}

/// Tells the process behind `admin` to reload.
///
/// # Errors
/// The configuration's errors, one per line.
pub fn reload(admin: &str) -> Result<String, String> {
    let answer = order(&format!("{admin}/reload"))?;
    let list = |key: &str, before: &str| -> String {
        answer[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .fold(String::new(), |text, line| text + before + line + "\n")
    };
    if let Some(errors) = answer["errors"].as_array() {
        let lines: Vec<&str> = errors.iter().filter_map(Value::as_str).collect();
        return Err(format!("{}\nnothing was changed", lines.join("\n")));
    }
    let changed = list("changed", "");
    let changed = if changed.is_empty() { "nothing changed\n".into() } else { changed };
    Ok(format!("{changed}{}", list("needs_restart", "takes a restart: ")).trim_end().to_owned())
}

/// Tells the process behind `admin` to send nothing new to the server `name`.
///
/// # Errors
/// When there is no such server, or no answer.
pub fn drain(admin: &str, name: &str) -> Result<String, String> {
    let answer = order(&format!("{admin}/drain/{name}"))?;
    match answer["in_flight"].as_u64() {
        Some(in_flight) => Ok(format!("{name} gets no new requests; {in_flight} in flight")),
        None => Err(error_text(&answer)),
    }
}

fn order(url: &str) -> Result<Value, String> {
    let answer = ask("POST", url, ORDER_TIMEOUT).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&answer.body)
        .map_err(|_| format!("{url} answered {} and no JSON: is this bookend's admin listener?", answer.status))?;
    if value["error"].is_string() { Err(error_text(&value)) } else { Ok(value) }
}

fn error_text(answer: &Value) -> String {
    answer["error"].as_str().unwrap_or("an answer that this version does not understand").to_owned()
}

fn ask(method: &str, url: &str, timeout: Duration) -> Result<Answer, AskError> {
    let (authority, path) = split(url).ok_or_else(|| AskError::Url(url.to_owned()))?;
    let io = |error| AskError::Io(authority.to_owned(), error);
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let bytes = exchange(authority, &request, Instant::now() + timeout).map_err(io)?;
    parse(&bytes).ok_or_else(|| AskError::NotHttp(authority.to_owned()))
}

/// Returns host and port, and path. A path with blanks or controls would be two lines of a request.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    (!authority.is_empty() && plain(authority) && plain(path)).then_some((authority, path))
}

fn exchange(authority: &str, request: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connect(authority, deadline)?;
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, remaining(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes).ok()? else { return None };
    Some(Answer { status: response.code?, body: String::from_utf8_lossy(&bytes[end..]).into_owned() })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Answers one connection with `answer`, then closes; `None` = never answers.
    fn server(answer: Option<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => thread::sleep(Duration::from_secs(60)),
            }
        });
        url
    }

    #[test]
    fn ready_is_healthy_and_anything_else_is_not() {
        let url = server(Some("HTTP/1.1 200 OK\r\n\r\n{\"ready\":true}"));
        assert_eq!(healthcheck(&format!("{url}/ready")), Ok("{\"ready\":true}".into()));
        let url = server(Some("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}\n"));
        assert_eq!(healthcheck(&url), Err("503 {\"ready\":false}".into()));
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = healthcheck(&format!("http://{address}/ready")).unwrap_err();
        assert!(error.starts_with(&format!("cannot reach {address}: ")), "{error}");
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let url = server(None);
        let begin = Instant::now();
        assert!(ask("GET", &url, Duration::from_millis(100)).is_err());
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn garbage_is_not_an_answer() {
        let url = server(Some("+OK Redis ready\r\n"));
        assert!(healthcheck(&url).unwrap_err().ends_with("did not answer with HTTP"));
    }

    #[test]
    fn a_reload_prints_what_changed_and_what_takes_a_restart() {
        let url = server(Some("HTTP/1.1 200 OK\r\n\r\n{\"changed\":[\"a\",\"b\"],\"needs_restart\":[\"listeners\"]}"));
        assert_eq!(reload(&url).unwrap(), "a\nb\ntakes a restart: listeners");
        let url = server(Some("HTTP/1.1 200 OK\r\n\r\n{\"changed\":[],\"needs_restart\":[]}"));
        assert_eq!(reload(&url).unwrap(), "nothing changed");
    }

    #[test]
    fn a_rejected_reload_prints_every_error() {
        let url =
            server(Some("HTTP/1.1 422 Unprocessable\r\n\r\n{\"errors\":[\"lb.yaml:1:2: a\",\"pool.yaml:3:4: b\"]}"));
        assert_eq!(reload(&url).unwrap_err(), "lb.yaml:1:2: a\npool.yaml:3:4: b\nnothing was changed");
    }

    #[test]
    fn a_drain_of_an_unknown_server_is_an_error() {
        let url = server(Some("HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"no server is named x\"}"));
        assert_eq!(drain(&url, "x").unwrap_err(), "no server is named x");
    }

    #[test]
    fn a_url_cannot_carry_a_second_request() {
        for url in ["https://h/", "http://", "http://h/a b", "http://h/\r\nX: y", "h:1"] {
            assert!(split(url).is_none(), "{url}");
        }
        assert_eq!(split("http://[::1]:9180"), Some(("[::1]:9180", "/")));
    }
}
