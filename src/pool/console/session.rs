//! One console client: reads messages, answers simple queries.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{
    DATABASE, Rights,
    command::{self, Command, Show},
    rows::Source,
    show,
};
use crate::pool::wire::{
    backend::{self, Report, Severity, TxStatus},
    frame,
    tag::frontend as tag,
};

/// Bytes of one message of a console client; commands are short.
const MESSAGE_LEN_MAX: u32 = 64 * 1024;

/// Bytes that are read ahead of a command.
const READ_AHEAD: usize = 1024;

/// SQLSTATEs of the console's own errors: PgBouncer's for a bad command, PostgreSQL's for missing rights.
const PROTOCOL_VIOLATION: &str = "08P01";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const FEATURE_NOT_SUPPORTED: &str = "0A000";

/// Why what PgBouncer offers is not offered.
const NO_SUSPEND: &str =
    "SUSPEND is not offered: there are no sockets to hand over to another process; PAUSE makes clients wait";
const NO_FDS: &str =
    "SHOW FDS is not offered: it shows cancel keys and passwords (PgBouncer 1.26 has none either); use SHOW SOCKETS";

/// Serves a logged-in console client until it leaves. The caller has sent the welcome up to ReadyForQuery.
///
/// Cancel safe in the sense that dropping it ends the session; nothing of the pool is held meanwhile.
///
/// # Errors
/// The socket's. A client that breaks the protocol is told so and let go.
pub async fn serve<IO>(io: &mut IO, source: &dyn Source, rights: Rights) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut io = BufReader::with_capacity(READ_AHEAD, io);
    let mut out = Vec::new();
    // After an error in the extended protocol everything up to Sync is skipped, as PostgreSQL does.
    let mut skipping = false;
    let mut body = Vec::new();
    loop {
        let mut head = [0; frame::HEADER_LEN];
        if io.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let Ok(header) = frame::Header::parse(head, MESSAGE_LEN_MAX) else {
            return refuse(&mut io, "the console takes messages of at most 64 KiB").await;
        };
        body.clear();
        body.resize(header.body_len(), 0);
        io.read_exact(&mut body).await?;
        match header.tag {
            tag::TERMINATE => return Ok(()),
            tag::QUERY => {
                tokio::select! {
                    biased;
                    () = query(&body, source, rights, &mut out) => {}
                    // PAUSE and WAIT_CLOSE take as long as it takes; who leaves meanwhile waits for nothing.
                    () = left(&mut io) => return Ok(()),
                }
                backend::ready_for_query(&mut out, TxStatus::Idle);
            }
            tag::SYNC => {
                skipping = false;
                backend::ready_for_query(&mut out, TxStatus::Idle);
            }
            tag::FLUSH => {}
            _ if skipping => {}
            _ => {
                skipping = true;
                let message = "extended query protocol is not supported by the admin console";
                error(&mut out, FEATURE_NOT_SUPPORTED, message);
            }
        }
        io.write_all(&out).await?;
        io.flush().await?;
        out.clear();
    }
}

/// Waits until the client has left. Cancel safe: nothing is taken from what it sent.
async fn left<IO: AsyncBufRead + Unpin>(io: &mut IO) {
    let sent_more = io.fill_buf().await.is_ok_and(|ahead| !ahead.is_empty());
    if sent_more {
        // Commands for later; whether it stays for them cannot be seen past them.
        std::future::pending::<()>().await;
    }
}

async fn refuse<IO: AsyncWrite + Unpin>(io: &mut IO, message: &str) -> io::Result<()> {
    let mut out = Vec::new();
    let report = Report { severity: Severity::Fatal, sqlstate: PROTOCOL_VIOLATION, message, detail: None, hint: None };
    backend::error_response(&mut out, &report);
    io.write_all(&out).await?;
    io.flush().await
}

fn error(out: &mut Vec<u8>, code: &str, message: &str) {
    let report = Report { severity: Severity::Error, sqlstate: code, message, detail: None, hint: None };
    backend::error_response(out, &report);
}

fn notice(out: &mut Vec<u8>, message: &str, detail: Option<&str>) {
    let report = Report { severity: Severity::Notice, sqlstate: "00000", message, detail, hint: None };
    backend::notice_response(out, &report);
}

async fn query(body: &[u8], source: &dyn Source, rights: Rights, out: &mut Vec<u8>) {
    let text = body.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
    let Some(text) = text else {
        return error(out, PROTOCOL_VIOLATION, "a query is UTF-8 text that ends with a zero byte");
    };
    match command::parse(text) {
        Err(message) => error(out, PROTOCOL_VIOLATION, &message),
        Ok(command) if rights == Rights::Stats && command.needs_admin() => {
            error(out, INSUFFICIENT_PRIVILEGE, "admin access needed (admin_users)");
        }
        Ok(command) if command.database() == Some(DATABASE) => {
            let message = format!("cannot {} admin db: {DATABASE}", command.tag().to_ascii_lowercase());
            error(out, PROTOCOL_VIOLATION, &message);
        }
        Ok(command) => run(&command, source, out).await,
    }
}

async fn run(command: &Command, source: &dyn Source, out: &mut Vec<u8>) {
    if command.needs_admin() {
        tracing::info!(?command, "console command");
    }
    let done = match command {
        Command::Empty => return backend::empty_query_response(out),
        Command::Show(Show::Help) => {
            notice(out, "Console usage", Some(show::HELP));
            Ok(())
        }
        Command::Show(Show::Fds) => return error(out, FEATURE_NOT_SUPPORTED, NO_FDS),
        Command::Show(what) => return show::table(*what, source).write(out, command.tag()),
        Command::Pause(database) => source.pause(database.as_deref()).await,
        Command::Resume(database) => source.resume(database.as_deref()),
        Command::Reconnect(database) => source.reconnect(database.as_deref()),
        Command::Kill(database) => source.kill(database.as_deref()),
        Command::KillClient(id) => source.kill_client(*id),
        Command::Disable(database) => source.disable(database),
        Command::Enable(database) => source.enable(database),
        Command::WaitClose(database) => source.wait_close(database.as_deref()).await,
        Command::Reload => source.reload().await,
        Command::Shutdown(wait_for) => source.leave(*wait_for),
        Command::Suspend => return error(out, FEATURE_NOT_SUPPORTED, NO_SUSPEND),
        Command::Set(name, _) if command::parameter(name).is_some() => {
            notice(out, "SET ignored", None);
            Ok(())
        }
        Command::Set(key, value) => match source.set(key, value).await {
            Ok(()) => return backend::command_complete(out, &format!("SET {key}={value}")),
            failed => failed,
        },
    };
    match done {
        Ok(()) => backend::command_complete(out, command.tag()),
        Err(message) => error(out, PROTOCOL_VIOLATION, &message),
    }
}
