//! `pg_prepared_statements` as the client would see it by itself: its own statements under its own names, and nobody else's.

use std::fmt::Write;
use std::sync::Arc;

use super::Session;
use super::by_name::ByName;
use super::prepared::{Kin, Prepared};
use super::run::End;
use crate::backend::{PREFIX, statement_name};
use crate::statement::{PREPARED_STATEMENTS, Tokens, bytes_of, quoted_literal, token_ranges};
use crate::wire::Channel;
use crate::wire::frame::Header;

impl Session {
    /// The Query at the front of the input, which reads the view.
    pub(super) async fn serve_listing(&mut self, client: &mut Channel, header: Header, text: &str) -> Result<(), End> {
        let (written, by_name) = self.with_own_statements(text);
        self.by_name = Some(Box::new(by_name));
        self.serve_instead(client, header, &written).await
    }

    /// The statement of a Parse that reads the view: what there is when it is prepared.
    pub(super) fn listing(&self, prepared: &Prepared) -> Option<Arc<Prepared>> {
        let (written, by_name) = self.with_own_statements(prepared.readable()?);
        let analysed = self.analysed(written.as_bytes());
        let types = Arc::clone(&prepared.types);
        Some(self.station.shared.interner.make_kin(written.as_bytes(), types, analysed, Kin::Names(by_name)))
    }

    /// The text with a query in the place of the view.
    fn with_own_statements(&self, text: &str) -> (String, ByName) {
        let analysis = Arc::clone(&self.station.resolve(text).0.analysis);
        let relations = analysis.statements.iter().flat_map(|statement| &statement.blocks).flat_map(|block| &block.relations);
        let mut places: Vec<(Tokens, &str)> = relations
            .filter(|relation| relation.table.as_ref().is_some_and(|table| table.name == PREPARED_STATEMENTS))
            .filter_map(|relation| Some((relation.place?, if relation.aliased { "" } else { " AS pg_prepared_statements" })))
            .collect();
        places.sort_by_key(|(tokens, _)| tokens.start);
        let (query, ranges) = (self.own_statements(), token_ranges(text));
        let (mut written, mut from, mut shifts) = (String::with_capacity(text.len() + query.len()), 0, Vec::new());
        for (tokens, alias) in places {
            let place = bytes_of(&ranges, tokens);
            written.push_str(&text[from..place.start]);
            let (before, instead) = (written.len(), text[place.clone()].chars().count());
            written.push_str(&query);
            written.push_str(alias);
            let longer = written[before..].chars().count().cast_signed() - instead.cast_signed();
            shifts.push((written.chars().count() + 1, longer));
            from = place.end;
        }
        written.push_str(&text[from..]);
        let needs = self.names.all().map(|(_, named)| (named.prepared.number ^ self.variant(), Arc::clone(&named.prepared)));
        (written, ByName::listing(needs.collect(), shifts))
    }

    /// In parentheses.
    fn own_statements(&self) -> String {
        let mut known = "(NULL::text, NULL::text, NULL::text)".to_owned();
        for (name, named) in self.names.all() {
            let number = statement_name(named.prepared.number ^ self.variant());
            let sql = named.sql.as_deref().or(named.prepared.with_views.as_deref());
            let sql = sql.map_or_else(|| "NULL".to_owned(), quoted_literal);
            // It never ends.
            let _ = write!(known, ", ('{number}', {}, {sql})", quoted_literal(name));
        }
        let newer = self.reported.get("server_version").and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        let result_types = if newer.is_some_and(|major| major > 15) { "s.result_types, " } else { "" };
        format!(
            "(SELECT COALESCE(n.own, s.name) AS name, \
             COALESCE(n.sql, pg_catalog.replace(s.statement, n.number, n.own), s.statement) AS statement, s.prepare_time, \
             s.parameter_types, {result_types}n.sql IS NOT NULL OR s.from_sql AS from_sql, s.generic_plans, s.custom_plans \
             FROM pg_catalog.pg_prepared_statements s LEFT JOIN (VALUES {known}) n (number, own, sql) \
             ON n.number OPERATOR(pg_catalog.=) s.name \
             WHERE n.own IS NOT NULL OR s.name OPERATOR(pg_catalog.!~) '^{PREFIX}[0-9]+$')"
        )
    }
}
