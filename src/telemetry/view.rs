//! The seam between those who know something and those who show it.
//!
//! `admin` and the front's `builtin:` routes render pages without knowing the proxy or the pool: `app` hands them `View`
//! objects.

/// An answer ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Page {
    /// Returns a JSON page with status 200.
    pub fn json(value: &serde_json::Value) -> Self {
        Self::json_with(200, value)
    }

    /// Returns a JSON page with another status. Ends in a newline, for those who read it in a terminal.
    pub fn json_with(status: u16, value: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", body: format!("{value:#}\n").into_bytes() }
    }

    /// Returns a page of plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.into().into_bytes() }
    }
}

/// Something that can be shown. Rendering must not block and must not wait for the network.
pub trait View: Send + Sync {
    fn render(&self) -> Page;
}

impl<F: Fn() -> Page + Send + Sync> View for F {
    fn render(&self) -> Page {
        self()
    }
}
