//! Answers the front gives itself, written to the client the way pingora wants them.

use bytes::Bytes;
use http::{Method, header};
use pingora::{Result, http::ResponseHeader, proxy::Session};

use super::{
    ctx::Ctx,
    error::{Answer, SERVER},
};

/// Sends `answer` whole. Not cancel safe: part of it may be on its way.
pub(super) async fn send(session: &mut Session, answer: Answer, ctx: &Ctx) -> Result<()> {
    write(session, answer, ctx, false).await
}

/// Sends an answer that the file has, and that may be kept by who gets it. Not cancel safe.
pub(super) async fn send_lasting(session: &mut Session, answer: Answer, ctx: &Ctx) -> Result<()> {
    write(session, answer, ctx, true).await
}

async fn write(session: &mut Session, answer: Answer, ctx: &Ctx, of_file: bool) -> Result<()> {
    let mut head = ResponseHeader::build(answer.status, Some(8))?;
    head.insert_header(header::SERVER, SERVER)?;
    // A 204 has no body, and no length of one (RFC 9110 8.6).
    if answer.status != 204 {
        head.insert_header(header::CONTENT_TYPE, &*answer.content_type)?;
        head.insert_header(header::CONTENT_LENGTH, answer.body.len())?;
    }
    // A redirect or a text of the file is as lasting as the file; how we are today is not.
    if answer.status >= 400 || !of_file {
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
    }
    if let Some(location) = answer.location {
        head.insert_header(header::LOCATION, location)?;
    }
    if let Some(seconds) = answer.retry_after {
        head.insert_header(header::RETRY_AFTER, seconds)?;
    }
    ctx.change_answer(session.req_header(), &mut head)?;
    ctx.mark_secure(session, &mut head)?;
    if !ctx.request_id().is_empty() {
        head.insert_header("X-Request-ID", ctx.request_id())?;
    }
    let no_body = session.req_header().method == Method::HEAD || answer.body.is_empty();
    session.write_response_header(Box::new(head), no_body).await?;
    if no_body {
        return Ok(());
    }
    session.write_response_body(Some(Bytes::from(answer.body)), true).await
}
