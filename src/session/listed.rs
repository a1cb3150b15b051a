//! What a session shows of itself, as the client would see it alone with a server: `pg_prepared_statements` has its own
//! statements under its own names, and nobody else's; `pg_listening_channels()` what it listens to; processes have the
//! numbers that clients were told (see [`super::processes`]).

use std::fmt::Write;
use std::sync::Arc;

use super::Session;
use super::by_name::ByName;
use super::prepared::{Kin, Prepared};
use super::run::End;
use crate::backend::{PREFIX, statement_name};
use crate::statement::{PREPARED_STATEMENTS, Tokens, bytes_of, channels_shown, plain_literal, spliced, token_ranges};
use crate::wire::Channel;
use crate::wire::frame::Header;

impl Session {
    /// The Query at the front of the input, which shows its session.
    pub(super) async fn serve_listing(&mut self, client: &mut Channel, header: Header, text: &str) -> Result<(), End> {
        let (written, by_name) = self.with_own(text, None);
        self.by_name = Some(Box::new(by_name));
        self.serve_instead(client, header, &written).await
    }

    /// The statement of a Parse that shows its session: what there is when it is prepared, by this name.
    pub(super) fn listing(&self, name: &str, prepared: &Prepared) -> Option<Arc<Prepared>> {
        let own = Some((name, prepared)).filter(|_| !name.is_empty());
        let (written, by_name) = self.with_own(prepared.readable()?, own);
        Some(self.made_of(&written, by_name, &prepared.types))
    }

    /// The same as it is to be when it is bound, if this statement, which has a name, shows its session.
    pub(super) fn listing_now(&self, prepared: &Prepared) -> Option<Arc<Prepared>> {
        let (written, by_name) = self.with_own(prepared.names()?.listed()?, None);
        (*written.as_bytes() != *prepared.text).then(|| self.made_of(&written, by_name, &prepared.types))
    }

    fn made_of(&self, written: &str, by_name: ByName, types: &Arc<[u32]>) -> Arc<Prepared> {
        let analysed = self.analysed(written.as_bytes());
        self.station.shared.interner.make_kin(written.as_bytes(), Arc::clone(types), analysed, Kin::Names(by_name))
    }

    /// The text with what there is in the places of view and function; `own`: a statement that is there from now on.
    fn with_own(&self, text: &str, own: Option<(&str, &Prepared)>) -> (String, ByName) {
        let analysis = Arc::clone(&self.station.resolve(text).0.analysis);
        let blocks = analysis.statements.iter().flat_map(|statement| &statement.blocks);
        let relations = blocks.flat_map(|block| &block.relations);
        let tables = relations
            .filter(|relation| relation.table.as_ref().is_some_and(|table| table.name == PREPARED_STATEMENTS))
            .filter_map(|relation| Some((relation.place?, "", if relation.aliased { "" } else { ALIAS })));
        let ranges = token_ranges(text);
        let commands = commands(text, &ranges).map(|tokens| (tokens, "SELECT * FROM ", ALIAS));
        let views: Vec<_> = tables.chain(commands).collect();
        let (mut places, mut needs) = (Vec::new(), Vec::new());
        if !views.is_empty() {
            let query = self.own_statements(own);
            let instead = |(tokens, verb, alias)| (bytes_of(&ranges, tokens), format!("{verb}{query}{alias}"));
            places.extend(views.into_iter().map(instead));
            let number = |prepared: &Prepared| prepared.number ^ self.variant();
            let all = self.names.all().map(|(_, named)| (number(&named.prepared), Arc::clone(&named.prepared)));
            needs.extend(all.take(self.snapshot.topology.process.prepared_statements_limit));
        }
        if let Some(ears) = &self.ears {
            places.extend(channels_shown(text, ears.channels()));
        }
        places.extend(self.numbers_shown(text, &analysis, &ranges));
        places.sort_by_key(|(place, _)| place.start);
        let (written, shifts) = spliced(text, places);
        (written, ByName::listing(text, needs, shifts))
    }

    /// In parentheses. What the server does not have, because it holds so many only, is shown as it is known here.
    fn own_statements(&self, own: Option<(&str, &Prepared)>) -> String {
        let mut known = "(NULL::text, NULL::text, NULL::text, NULL::text, NULL::oid[])".to_owned();
        let literal = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), plain_literal);
        let all = self.names.all().map(|(name, named)| (name, &*named.prepared, named.sql.as_deref()));
        for (name, prepared, sql) in all.chain(own.map(|(name, prepared)| (name, prepared, None))) {
            let number = statement_name(prepared.number ^ self.variant());
            let by_sql = prepared.sql_of(name);
            let (name, sql) = (plain_literal(name), literal(sql.or(by_sql.as_deref())));
            let types: Vec<String> = prepared.types.iter().map(u32::to_string).collect();
            let listed = prepared.names().and_then(ByName::listed);
            let text = prepared.with_views.as_deref().or(listed).or(prepared.readable());
            let (text, types) = (literal(text), types.join(","));
            // It never fails.
            let _ = write!(known, ", ('{number}', {name}, {sql}, {text}, '{{{types}}}')");
        }
        let version =
            self.reported.get("server_version").and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        let since =
            |major: u32, columns: &'static str| if version.is_some_and(|it| it >= major) { columns } else { "" };
        let result_types = since(16, "s.result_types, ");
        let counts =
            since(14, ", COALESCE(s.generic_plans, 0) AS generic_plans, COALESCE(s.custom_plans, 0) AS custom_plans");
        let own_counts = since(14, ", s.generic_plans, s.custom_plans");
        format!(
            "(SELECT n.own AS name, COALESCE(n.sql, n.text, s.statement) AS statement, \
             COALESCE(s.prepare_time, pg_catalog.statement_timestamp()) AS prepare_time, \
             COALESCE(s.parameter_types, n.types::regtype[]) AS parameter_types, {result_types}\
             n.sql IS NOT NULL OR COALESCE(s.from_sql, false) AS from_sql{counts} \
             FROM (VALUES {known}) n (number, own, sql, text, types) LEFT JOIN pg_catalog.pg_prepared_statements s \
             ON n.number OPERATOR(pg_catalog.=) s.name WHERE n.own IS NOT NULL \
             UNION ALL SELECT s.name, s.statement, s.prepare_time, s.parameter_types, {result_types}s.from_sql{own_counts} \
             FROM pg_catalog.pg_prepared_statements s \
             WHERE s.name OPERATOR(pg_catalog.!~) '^{PREFIX}[0-9]+$')"
        )
    }
}

/// `TABLE pg_prepared_statements`, which is a query of its own.
fn commands(text: &str, ranges: &[(u32, u32)]) -> impl Iterator<Item = Tokens> {
    let is = move |index: usize, word: &str| {
        let written = ranges.get(index).map(|&(start, end)| &text[start as usize..end as usize]);
        written.is_some_and(|written| written.trim_matches('"').eq_ignore_ascii_case(word))
    };
    (0..ranges.len()).filter_map(move |start| {
        let name = if is(start + 1, "pg_catalog") && is(start + 2, ".") { start + 3 } else { start + 1 };
        let number = |index: usize| u32::try_from(index).expect("a text has fewer tokens than bytes");
        let found = is(start, "table") && is(name, PREPARED_STATEMENTS);
        found.then(|| Tokens { start: number(start), end: number(name + 1) })
    })
}

const ALIAS: &str = " AS pg_prepared_statements";
