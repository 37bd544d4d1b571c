//! The page for people: everything `/status` says, as tables, without a script or a file from elsewhere.
//!
//! It is drawn from the JSON value alone, so that what is added to the status appears here by itself. Every text is
//! escaped: names come from a configuration, errors from a database.

use std::{fmt::Write, sync::Arc};

use serde_json::{Map, Value};

use crate::telemetry::view::{Page, View};

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>bookend</title>\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta http-equiv=\"refresh\" content=\"5\"><style>\
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}\
table{border-collapse:collapse;margin:.25rem 0 1rem}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:left;\
vertical-align:top}th{background:#f3f3f3;font-weight:600}h2{margin:1.5rem 0 .25rem;font-size:1.1rem}nav a{margin-right:1rem}\
.no{color:#b00020;font-weight:600}@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}\
th{background:#242424}th,td{border-color:#444}a{color:#8ab4f8}.no{color:#ff8a80}}</style></head><body><h1>bookend</h1>";

/// Tables deeper than this are written as text.
const MAX_DEPTH: usize = 4;

/// `/`
pub struct IndexView {
    status: Arc<dyn Fn() -> Value + Send + Sync>,
    links: Vec<&'static str>,
}

impl IndexView {
    /// Draws what `status` returns, under links to the other pages.
    pub fn new(status: Arc<dyn Fn() -> Value + Send + Sync>, links: Vec<&'static str>) -> Self {
        Self { status, links }
    }
}

impl View for IndexView {
    fn render(&self) -> Page {
        let mut html = String::with_capacity(8 * 1024);
        html.push_str(HEAD);
        html.push_str("<nav>");
        for link in &self.links {
            // Links are constants of the program.
            let _ = write!(html, "<a href=\"{link}\">{link}</a>");
        }
        html.push_str("</nav>");
        sections(&mut html, &(self.status)());
        html.push_str("</body></html>\n");
        Page { status: 200, content_type: "text/html; charset=utf-8", body: html.into_bytes() }
    }
}

/// Plain values of the top level come first as one table, everything else is a section of its own.
fn sections(html: &mut String, status: &Value) {
    let Value::Object(fields) = status else { return };
    let (plain, nested): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| !is_nested(value));
    html.push_str("<table>");
    for (name, value) in plain {
        row(html, name, value, 0);
    }
    html.push_str("</table>");
    for (name, value) in nested {
        html.push_str("<h2>");
        escape(html, name);
        html.push_str("</h2>");
        draw(html, value, 0);
    }
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Object(_) | Value::Array(_))
}

fn draw(html: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if depth < MAX_DEPTH => object(html, fields, depth),
        Value::Array(items) if depth < MAX_DEPTH => array(html, items, depth),
        Value::Object(_) | Value::Array(_) => escape(html, &value.to_string()),
        Value::Null => html.push('–'),
        Value::Bool(true) => html.push_str("yes"),
        Value::Bool(false) => html.push_str("<span class=\"no\">no</span>"),
        Value::Number(number) => escape(html, &number.to_string()),
        Value::String(text) => escape(html, text),
    }
}

/// Objects whose members are all objects are one table with a line each; others have a line per field.
fn object(html: &mut String, fields: &Map<String, Value>, depth: usize) {
    let members: Option<Vec<(&String, &Map<String, Value>)>> =
        fields.iter().map(|(name, value)| Some((name, value.as_object()?))).collect();
    match members {
        Some(members) if !members.is_empty() => {
            table(html, members.iter().map(|(name, member)| (Some(name.as_str()), *member)), depth);
        }
        _ => {
            html.push_str("<table>");
            for (name, value) in fields {
                row(html, name, value, depth + 1);
            }
            html.push_str("</table>");
        }
    }
}

fn array(html: &mut String, items: &[Value], depth: usize) {
    let members: Option<Vec<&Map<String, Value>>> = items.iter().map(Value::as_object).collect();
    match members {
        Some(members) if !members.is_empty() => table(html, members.iter().map(|member| (None, *member)), depth),
        _ => {
            html.push_str("<ul>");
            for item in items {
                html.push_str("<li>");
                draw(html, item, depth + 1);
                html.push_str("</li>");
            }
            html.push_str("</ul>");
        }
    }
}

fn table<'a>(
    html: &mut String,
    members: impl Iterator<Item = (Option<&'a str>, &'a Map<String, Value>)> + Clone,
    depth: usize,
) {
    let mut columns: Vec<&str> = Vec::new();
    for name in members.clone().flat_map(|(_, member)| member.keys()) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let named = members.clone().any(|(name, _)| name.is_some());
    html.push_str(if named { "<table><tr><th></th>" } else { "<table><tr>" });
    for column in &columns {
        header(html, column);
    }
    html.push_str("</tr>");
    for (name, member) in members {
        html.push_str("<tr>");
        if let Some(name) = name {
            header(html, name);
        }
        for column in &columns {
            cell(html, member.get(*column).unwrap_or(&Value::Null), depth + 1);
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
}

fn row(html: &mut String, name: &str, value: &Value, depth: usize) {
    html.push_str("<tr>");
    header(html, name);
    cell(html, value, depth);
    html.push_str("</tr>");
}

fn header(html: &mut String, name: &str) {
    html.push_str("<th>");
    escape(html, &name.replace('_', " "));
    html.push_str("</th>");
}

fn cell(html: &mut String, value: &Value, depth: usize) {
    html.push_str("<td>");
    draw(html, value, depth);
    html.push_str("</td>");
}

fn escape(html: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(status: Value) -> String {
        let view = IndexView::new(Arc::new(move || status.clone()), vec!["/metrics"]);
        String::from_utf8(view.render().body).unwrap()
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "<script>alert('x')</script>\"";
        let html = drawn(json!({ evil: { evil: { "error": evil } }, "list": [evil, { evil: evil }] }));
        assert!(!html.contains("<script>"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;"));
    }

    #[test]
    fn members_of_one_kind_are_one_table() {
        let html =
            drawn(json!({ "servers": { "web-1": { "up": true }, "web-2": { "up": false, "error": "refused" } } }));
        assert!(html.contains("<tr><th></th><th>up</th><th>error</th></tr>"), "{html}");
        assert!(html.contains("<tr><th>web-1</th><td>yes</td><td>–</td></tr>"), "{html}");
        assert!(html.contains("<td><span class=\"no\">no</span></td><td>refused</td>"), "{html}");
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = json!("deep");
        for _ in 0..50 {
            value = json!([value]);
        }
        assert!(drawn(json!({ "deep": value })).matches("<ul>").count() <= MAX_DEPTH);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let html = drawn(json!({}));
        assert!(!html.contains("src=") && !html.contains("http://") && !html.contains("https://"), "{html}");
    }
}
