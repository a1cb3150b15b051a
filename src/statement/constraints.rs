//! Constraints that DDL makes: which columns are to be unique, or to refer to others.

use sqlparser::ast::{
    self, AlterTableOperation, ColumnDef, ColumnOption, Expr, IndexColumn, Statement, TableConstraint,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::names::{ident, object};
use super::types::ObjectName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    pub table: ObjectName,
    /// All that the statement makes the table of; none where it is there already.
    pub made_of: Vec<String>,
    /// An expression has no name here.
    pub columns: Vec<Option<String>>,
    /// Of a foreign key: the table referred to, and its columns if they are named.
    pub refers: Option<(ObjectName, Vec<String>)>,
}

/// Those that CREATE TABLE, ALTER TABLE or CREATE INDEX makes. None where the text is not understood.
pub fn constraints(text: &str) -> Vec<Constraint> {
    let mut found = Vec::new();
    for statement in Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap_or_default() {
        match &statement {
            Statement::CreateTable(create) => {
                let made_of: Vec<String> = create.columns.iter().map(|column| ident(&column.name)).collect();
                let mut making = Making { table: object(&create.name), made_of, found: &mut found };
                create.columns.iter().for_each(|column| making.column(column));
                create.constraints.iter().for_each(|constraint| making.constraint(constraint));
            }
            Statement::AlterTable(alter) => {
                let mut making = Making { table: object(&alter.name), made_of: Vec::new(), found: &mut found };
                for operation in &alter.operations {
                    match operation {
                        AlterTableOperation::AddConstraint { constraint, .. } => making.constraint(constraint),
                        AlterTableOperation::AddColumn { column_def, .. } => making.column(column_def),
                        _ => {}
                    }
                }
            }
            Statement::CreateIndex(create) if create.unique => {
                let mut making = Making { table: object(&create.table_name), made_of: Vec::new(), found: &mut found };
                making.add(create.columns.iter().map(name).collect(), None);
            }
            _ => {}
        }
    }
    found
}

struct Making<'f> {
    table: ObjectName,
    made_of: Vec<String>,
    found: &'f mut Vec<Constraint>,
}

impl Making<'_> {
    fn column(&mut self, column: &ColumnDef) {
        let own = || vec![Some(ident(&column.name))];
        for option in &column.options {
            match &option.option {
                ColumnOption::Unique(_) | ColumnOption::PrimaryKey(_) => self.add(own(), None),
                ColumnOption::ForeignKey(key) => {
                    self.add(own(), Some((object(&key.foreign_table), idents(&key.referred_columns))));
                }
                _ => {}
            }
        }
    }

    fn constraint(&mut self, constraint: &TableConstraint) {
        match constraint {
            TableConstraint::Unique(unique) => self.add(unique.columns.iter().map(name).collect(), None),
            TableConstraint::PrimaryKey(key) => self.add(key.columns.iter().map(name).collect(), None),
            TableConstraint::ForeignKey(key) => {
                let columns = key.columns.iter().map(|column| Some(ident(column))).collect();
                self.add(columns, Some((object(&key.foreign_table), idents(&key.referred_columns))));
            }
            _ => {}
        }
    }

    fn add(&mut self, columns: Vec<Option<String>>, refers: Option<(ObjectName, Vec<String>)>) {
        let (table, made_of) = (self.table.clone(), self.made_of.clone());
        self.found.push(Constraint { table, made_of, columns, refers });
    }
}

fn name(column: &IndexColumn) -> Option<String> {
    match &column.column.expr {
        Expr::Identifier(name) => Some(ident(name)),
        _ => None,
    }
}

fn idents(names: &[ast::Ident]) -> Vec<String> {
    names.iter().map(ident).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let columns = |columns: &[Option<String>]| {
            columns.iter().map(|name| name.as_deref().unwrap_or("?")).collect::<Vec<_>>().join(" ")
        };
        let refers = |refers: &Option<(ObjectName, Vec<String>)>| {
            refers
                .as_ref()
                .map_or(String::new(), |(table, columns)| format!(" -> {} {}", table.name, columns.join(" ")))
        };
        let one =
            |found: Constraint| format!("{}: {}{}", found.table.name, columns(&found.columns), refers(&found.refers));
        constraints(text).into_iter().map(one).collect()
    }

    #[test]
    fn constraints_are_found_where_they_are_written() {
        let table = "create table t(a int primary key, \"B\" text unique, c int references r, d int check (d > 0), \
                     unique (a, c), foreign key (a, c) references s (x, y), primary key (c))";
        let expected = ["t: a", "t: B", "t: c -> r ", "t: a c", "t: a c -> s x y", "t: c"];
        assert_eq!(said(table), expected);
        let altered =
            "alter table t add constraint k unique (a), add column e int unique, add foreign key (e) references r (i)";
        assert_eq!(said(altered), ["t: a", "t: e", "t: e -> r i"]);
        assert_eq!(said("create unique index on s.t (lower(a), b) where b > 0"), ["t: ? b"]);
        for none in ["create index on t (a)", "alter table t drop column a", "drop table t", "nonsense"] {
            assert_eq!(said(none), [""; 0], "{none}");
        }
    }
}
