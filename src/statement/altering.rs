//! Reads ALTER TABLE (PostgreSQL documentation, ALTER TABLE), as far as it changes where a table's rows are looked for.

use super::commands::Cursor;
use super::scan::TokenKind;
use super::types::Alteration;

/// What is behind the table's name.
pub(super) fn alterations(mut cursor: Cursor<'_>) -> Vec<Alteration> {
    if cursor.take(&["RENAME"]) {
        return renaming(cursor).into_iter().collect();
    }
    if cursor.take(&["SET", "SCHEMA"]) {
        return vec![Alteration::Schema(cursor.name())];
    }
    if cursor.take(&["ATTACH", "PARTITION"]) {
        return vec![Alteration::Attach(cursor.object())];
    }
    let mut all = Vec::new();
    while !cursor.tokens.is_empty() {
        let end = end_of_action(cursor);
        all.extend(action(Cursor { tokens: &cursor.tokens[..end], ..cursor }));
        cursor.skip(end + 1);
    }
    all
}

fn renaming(mut cursor: Cursor<'_>) -> Option<Alteration> {
    if cursor.take(&["TO"]) {
        return Some(Alteration::Rename(cursor.name()));
    }
    if cursor.peek().eq_ignore_ascii_case("CONSTRAINT") && !cursor.nth(1).eq_ignore_ascii_case("TO") {
        return None;
    }
    take_column(&mut cursor, "TO");
    let from = cursor.name();
    cursor.take(&["TO"]).then(|| Alteration::RenameColumn { from, to: cursor.name() })
}

/// The word COLUMN, unless it is the column's name.
fn take_column(cursor: &mut Cursor<'_>, behind: &str) {
    if !cursor.nth(1).eq_ignore_ascii_case(behind) {
        cursor.take(&["COLUMN"]);
    }
}

fn action(mut cursor: Cursor<'_>) -> Option<Alteration> {
    const NO_COLUMNS: [&str; 6] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "EXCLUDE"];
    let is_constraint = |cursor: &Cursor<'_>| NO_COLUMNS.iter().any(|word| cursor.peek().eq_ignore_ascii_case(word));
    if cursor.take(&["INHERIT"]) {
        return Some(Alteration::Inherit(cursor.object()));
    }
    if cursor.take(&["ADD"]) && !is_constraint(&cursor) {
        cursor.take(&["COLUMN"]);
        cursor.take(&["IF", "NOT", "EXISTS"]);
        let name = cursor.name();
        let filled = FILLING.iter().any(|word| cursor.has(word));
        return Some(Alteration::AddColumn { name, filled });
    }
    if cursor.take(&["DROP"]) && !is_constraint(&cursor) {
        cursor.take(&["COLUMN"]);
        cursor.take(&["IF", "EXISTS"]);
        return Some(Alteration::DropColumn(cursor.name()));
    }
    None
}

/// Up to a comma that is not within parentheses.
fn end_of_action(cursor: Cursor<'_>) -> usize {
    let mut depth = 0usize;
    let ends = |kind: TokenKind| {
        match kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && kind == TokenKind::Punctuation(b',')
    };
    cursor.tokens.iter().map(|token| token.kind).position(ends).unwrap_or(cursor.tokens.len())
}

/// Words of a column that rows which are there get a value in.
const FILLING: [&str; 8] =
    ["DEFAULT", "GENERATED", "SMALLSERIAL", "SERIAL", "BIGSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"];

#[cfg(test)]
mod tests {
    use super::super::types::{Kind, ObjectName};
    use super::*;

    fn of(sql: &str) -> Vec<Alteration> {
        let analysis = super::super::analyze(sql);
        let Kind::Ddl(ddl) = &analysis.statements[0].kind else { panic!("{sql}") };
        ddl.alters.clone()
    }

    #[test]
    fn each_action_is_read() {
        let add = |name: &str, filled| Alteration::AddColumn { name: name.to_owned(), filled };
        let drop = |name: &str| Alteration::DropColumn(name.to_owned());
        assert_eq!(
            of(
                "alter table only a.b add c numeric(3, 2), add column if not exists \"D\" int default 1, drop column if exists e cascade, \
                add constraint f check (g in (1, 2)), drop constraint h, add m bigserial, alter column i drop not null, add primary key (j, k), drop l"
            ),
            [add("c", false), add("D", true), drop("e"), add("m", true), drop("l")]
        );
        let rename = |from: &str, to: &str| Alteration::RenameColumn { from: from.to_owned(), to: to.to_owned() };
        assert_eq!(of("alter table if exists a rename column b to c"), [rename("b", "c")]);
        assert_eq!(of("alter table a rename b to c"), [rename("b", "c")]);
        assert_eq!(of("alter table a rename constraint b to c"), []);
        assert_eq!(of("alter table a rename to b"), [Alteration::Rename("b".to_owned())]);
        assert_eq!(of("alter table a set schema b"), [Alteration::Schema("b".to_owned())]);
        let other = ObjectName { schema: Some("s".to_owned()), name: "t".to_owned() };
        assert_eq!(of("alter table a attach partition s.t default"), [Alteration::Attach(other.clone())]);
        assert_eq!(of("alter table a inherit s.t"), [Alteration::Inherit(other)]);
        assert_eq!(of("create table a (b int)"), []);
    }
}
