//! A result table in text format: RowDescription, DataRows, CommandComplete.

use crate::pool::wire::backend;

/// Columns with their types, and rows of text; `None` is NULL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<(&'static str, u32)>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// Returns a table without rows.
    pub fn new(columns: &[(&'static str, u32)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has one value per column.
    pub fn push(&mut self, row: Vec<Option<String>>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a value for every column");
        self.rows.push(row);
    }

    /// Writes it as the messages of a query's answer, up to CommandComplete.
    pub fn write(&self, out: &mut Vec<u8>, tag: &str) {
        backend::row_description(out, self.columns.iter().copied());
        for row in &self.rows {
            backend::data_row(out, row.iter().map(|value| value.as_ref().map(String::as_bytes)));
        }
        backend::command_complete(out, tag);
    }
}

/// Returns a value as a table has it.
pub fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// Returns 1 or 0.
pub fn flag(value: bool) -> Option<String> {
    text(u8::from(value))
}
