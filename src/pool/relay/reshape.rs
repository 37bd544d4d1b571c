//! Tables and types that change by what passes here: a migration.
//!
//! The types of a statement's parameters are settled when it is parsed. A client that parses a text after it has dropped a
//! table and made it again with other columns is told the new ones by PostgreSQL; a Parse that is answered by us, since the
//! server has that text, would have it told the old ones, and no error says so. So a command that changes what texts mean
//! has every server parse its statements again before their next use: at once where it ran, and once more everywhere when
//! its transaction is over, since what others parsed meanwhile was read without it.
//!
//! Only what can give a text other parameters counts. Indexes and sequences cannot, nor what is made new; temporary tables
//! are their client's alone, as its statements are then. What is changed past the pool shows by its errors ([`super::heal`]).

use super::session::Session;

/// Kinds of objects that give texts their types, as command tags name them (`cmdtaglist.h`): DROP and ALTER of these.
const SHAPES: [&[u8]; 9] = [
    b"TABLE",
    b"TYPE",
    b"DOMAIN",
    b"VIEW",
    b"MATERIALIZED VIEW",
    b"FOREIGN TABLE",
    b"SCHEMA",
    b"FUNCTION",
    b"EXTENSION",
];

impl Session<'_> {
    /// Notes a command that may have changed tables or types, by its tag.
    pub(super) fn note_change_of_tables(&mut self, command: &[u8]) {
        if changes_shapes(command) && !self.reads_alone() {
            self.reshapes = true;
            self.reparse_everywhere();
        }
    }

    /// The transaction that changed them is over.
    pub(super) fn note_changed_tables(&mut self) {
        self.reshapes = false;
        self.reparse_everywhere();
    }

    fn reparse_everywhere(&mut self) {
        let interner = &self.client.interner;
        interner.schema_changed(interner.schema());
        self.server.statements.refresh(interner.schema());
    }
}

fn changes_shapes(command: &[u8]) -> bool {
    let kind = command.strip_prefix(b"DROP ").or_else(|| command.strip_prefix(b"ALTER "));
    kind.is_some_and(|kind| SHAPES.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_give_a_text_other_types_changes_shapes() {
        for command in
            ["DROP TABLE", "ALTER TABLE", "DROP TYPE", "ALTER DOMAIN", "DROP MATERIALIZED VIEW", "DROP SCHEMA"]
        {
            assert!(changes_shapes(command.as_bytes()), "{command}");
        }
        for command in
            ["CREATE TABLE", "DROP INDEX", "ALTER SEQUENCE", "ALTER ROLE", "DROP OWNED", "SELECT 1", "DROP", ""]
        {
            assert!(!changes_shapes(command.as_bytes()), "{command}");
        }
    }
}
