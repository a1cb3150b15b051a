//! Loads what a database's catalogs say, and again when they change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, SqlError};
use super::effects;
use super::numbers;
use super::primaries::Primaries;
use super::sequences::Blocks;
use super::uniques::Uniques;
use crate::catalog::{Catalog, Column, Function, Relation, RelationKind, Sequence, Volatility};
use crate::topology::Database;

/// One database's catalog, as last loaded.
#[derive(Default)]
pub struct CatalogCell {
    current: ArcSwap<Catalog>,
    /// What holds whatever has changed: PostgreSQL's own functions of names that are nobody else's.
    lasting: ArcSwap<Catalog>,
    /// A change is known to have happened: look at once.
    pub(super) changed: Notify,
    /// Looks at the server, counted as they begin, and the last of them that told what there is.
    begun: AtomicU64,
    done: AtomicU64,
    looked: Notify,
    /// What an earlier look has told may not hold any more. Held while `current` is replaced.
    doubted: Mutex<u64>,
    defaults: ArcSwapOption<Defaults>,
    /// Sessions that go by it.
    sessions: AtomicUsize,
    /// There have been none for a while: it is looked at now and then only.
    rests: AtomicBool,
}

/// That a session goes by a catalog.
pub struct Attendance(Arc<CatalogCell>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

impl CatalogCell {
    pub fn current(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// `None`: they are not known yet.
    pub fn defaults(&self) -> Option<Defaults> {
        self.defaults.load().as_deref().cloned()
    }

    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for a look that began after this call, for a while.
    pub async fn refreshed(&self) {
        // Late is better than never: the loader goes on, and unknown names go to the primary.
        self.reached(self.next()).await;
    }

    /// One more session goes by it, from when it is known what there is.
    pub async fn attend(self: &Arc<Self>) -> Attendance {
        self.sessions.fetch_add(1, Ordering::AcqRel);
        let attendance = Attendance(Arc::clone(self));
        match self.rests.swap(false, Ordering::AcqRel) {
            true => self.refreshed().await,
            false => self.known().await,
        }
        attendance
    }

    /// How long to wait before the next look. `attended`: when there were sessions last.
    fn pause(&self, attended: &mut Instant) -> Duration {
        let is_attended = || self.sessions.load(Ordering::Acquire) > 0;
        if is_attended() {
            *attended = Instant::now();
        } else if attended.elapsed() > LINGERING {
            self.rests.store(true, Ordering::Release);
            // Who has come meanwhile may not have seen it.
            if !is_attended() {
                return RARELY;
            }
        }
        INTERVAL
    }

    /// Waits until something is known.
    async fn known(&self) {
        // A database whose catalog cannot be read is served as one of which nothing is known.
        self.reached(1).await;
    }

    /// Nothing but PostgreSQL's own functions is known until a look that begins after this call has told.
    pub(super) fn doubt(&self) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        *doubted = self.next();
        self.changed.notify_one();
        self.current.store(self.lasting.load_full());
    }

    /// What this look has told, unless it is in doubt already. `true`: it was not known.
    fn tell(&self, look: u64, catalog: &Arc<Catalog>) -> bool {
        let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        *doubted <= look && !Arc::ptr_eq(&self.current.swap(Arc::clone(catalog)), catalog)
    }

    fn next(&self) -> u64 {
        self.begun.load(Ordering::Acquire) + 1
    }

    async fn reached(&self, look: u64) {
        let reached = async {
            loop {
                let looked = self.looked.notified();
                if self.done.load(Ordering::Acquire) >= look {
                    return;
                }
                self.changed.notify_one();
                looked.await;
            }
        };
        let _ = timeout(REFRESH_LIMIT, reached).await;
    }
}

/// Loads and watches until it is aborted. `epochs` numbers all catalogs of the process.
pub(super) async fn watch(
    cell: Arc<CatalogCell>,
    database: Arc<Database>,
    primaries: Primaries,
    epochs: Arc<AtomicU64>,
) {
    let (mut seen, mut attended) = (Seen::default(), Instant::now());
    loop {
        if let Some(home) = primaries.home() {
            let of = (&primaries, &*database);
            let look = async { look(&primaries.lend(&home).await?, of, &cell, &mut seen, &epochs).await };
            match timeout(DEADLINE, look).await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => tracing::debug!(%cause, "catalog not loaded"),
                Err(_) => tracing::debug!(cause = "no answer", "catalog not loaded"),
            }
        }
        tokio::select! {
            () = sleep(cell.pause(&mut attended)) => {}
            () = cell.changed.notified() => {}
        }
    }
}

/// What the looks before have found.
#[derive(Default)]
struct Seen {
    fingerprint: Fingerprint,
    catalog: Arc<Catalog>,
    /// PostgreSQL's own functions, which nobody changes.
    own: Functions,
    /// When every shard's numbers are to be asked for again, because one did not tell.
    numbers_due: Option<Instant>,
    blocks: Blocks,
    uniques: Uniques,
}

/// Changes with every CREATE, ALTER and DROP of what is not temporary.
#[derive(Default, PartialEq, Eq)]
struct Fingerprint {
    functions: String,
    /// Of what is loaded whenever either changes.
    relations: String,
    defaults: Defaults,
}

/// What sessions of a database begin with (`ALTER DATABASE … SET`, `ALTER ROLE … SET`), a line for each: something that
/// changes with it, and the role, if it is for one only.
pub type Defaults = Arc<str>;

type Functions = HashMap<String, Vec<Function>>;

async fn look(
    client: &Client,
    (primaries, database): (&Primaries, &Database),
    cell: &CatalogCell,
    seen: &mut Seen,
    epochs: &AtomicU64,
) -> Result<(), SqlError> {
    let look = cell.begun.fetch_add(1, Ordering::AcqRel) + 1;
    let fingerprint = fingerprint(client).await?;
    let is_new = fingerprint != seen.fingerprint;
    if is_new {
        cell.defaults.store(Some(Arc::new(Arc::clone(&fingerprint.defaults))));
    }
    if is_new || seen.numbers_due.is_some_and(|due| due < Instant::now()) {
        let (oids, are_all) = numbers::load(client, primaries, &seen.catalog.oids).await?;
        if is_new || oids != seen.catalog.oids {
            let catalog = match is_new {
                true => seen.load(client, (primaries, database), &fingerprint, (cell, epochs)).await?,
                false => Catalog { epoch: next(epochs), ..Catalog::clone(&seen.catalog) },
            };
            seen.catalog = Arc::new(Catalog { oids, ..catalog });
        }
        seen.fingerprint = fingerprint;
        seen.numbers_due = (!are_all).then(|| Instant::now() + NUMBERS_AGAIN);
    } else {
        let catalog = Arc::clone(&seen.catalog);
        if seen.uniques.are_behind() && seen.keep_uniques(primaries, database, &catalog).await {
            seen.fingerprint = Fingerprint::default();
        } else if seen.blocks.are_behind() {
            seen.give_blocks(primaries, database, &catalog).await;
        }
    }
    if cell.tell(look, &seen.catalog) {
        // Sessions compare this number before each unit.
        epochs.fetch_add(1, Ordering::AcqRel);
    }
    cell.done.store(look, Ordering::Release);
    cell.looked.notify_waiters();
    Ok(())
}

/// Of one more catalog.
fn next(epochs: &AtomicU64) -> u64 {
    epochs.fetch_add(1, Ordering::AcqRel) + 1
}

async fn fingerprint(client: &Client) -> Result<Fingerprint, SqlError> {
    let rows = client.rows(FINGERPRINT).await?;
    let row = rows.first().map_or(&[][..], Vec::as_slice);
    Ok(Fingerprint { functions: text(row, 0), relations: text(row, 1), defaults: Arc::from(text(row, 2)) })
}

impl Seen {
    /// What is another than when it was loaded last.
    async fn load(
        &mut self,
        client: &Client,
        (primaries, database): (&Primaries, &Database),
        fingerprint: &Fingerprint,
        (cell, epochs): (&CatalogCell, &AtomicU64),
    ) -> Result<Catalog, SqlError> {
        let functions = match fingerprint.functions == self.fingerprint.functions && self.catalog.loaded {
            true => Arc::clone(&self.catalog.functions),
            false => {
                let (all, lasting) = self.functions(client).await?;
                let lasting = Catalog { epoch: next(epochs), functions: lasting, ..Catalog::default() };
                cell.lasting.store(Arc::new(lasting));
                all
            }
        };
        let epoch = next(epochs);
        let sharded = database.is_sharded();
        let catalog = relations(client, epoch, Arc::clone(&functions), sharded).await?;
        // Before anybody knows of the tables.
        self.give_blocks(primaries, database, &catalog).await;
        match self.keep_uniques(primaries, database, &catalog).await {
            true => relations(client, epoch, functions, sharded).await,
            false => Ok(catalog),
        }
    }

    /// All, and PostgreSQL's own whose names no others have.
    async fn functions(&mut self, client: &Client) -> Result<(Arc<Functions>, Arc<Functions>), SqlError> {
        if self.own.is_empty() {
            self.own = functions(client, "p.oid < 16384").await?;
        }
        let (mut all, mut lasting) = (self.own.clone(), self.own.clone());
        for (name, overloads) in functions(client, "p.oid >= 16384").await? {
            lasting.remove(&name);
            all.entry(name).or_default().extend(overloads);
        }
        Ok((Arc::new(all), Arc::new(lasting)))
    }

    /// `true`: there are triggers that the catalog does not know of.
    async fn keep_uniques(&mut self, primaries: &Primaries, database: &Database, catalog: &Catalog) -> bool {
        timeout(UNIQUES_DEADLINE, self.uniques.keep(primaries, database, catalog)).await.unwrap_or(false)
    }

    /// Before anybody knows of their tables.
    async fn give_blocks(&mut self, primaries: &Primaries, database: &Database, catalog: &Catalog) {
        let giving = self.blocks.give(primaries, database, catalog);
        if database.is_sharded() && timeout(BLOCKS_DEADLINE, giving).await.is_err() {
            tracing::warn!("sequences of a shard that does not answer have no blocks of their own yet");
        }
    }
}

pub(super) async fn load(client: &Client, epoch: u64) -> Result<Catalog, SqlError> {
    let functions = functions(client, "true").await?;
    relations(client, epoch, Arc::new(functions), true).await
}

/// Those of this condition.
async fn functions(client: &Client, which: &str) -> Result<Functions, SqlError> {
    let mut functions = Functions::new();
    for row in client.rows(&format!("{FUNCTIONS} WHERE {which}")).await? {
        let function = Function {
            schema: text(&row, 1),
            volatility: volatility(&text(&row, 2)),
            is_user_defined: flag(&row, 3),
            is_aggregate: flag(&row, 4),
        };
        functions.entry(text(&row, 0)).or_default().push(function);
    }
    Ok(functions)
}

/// What views are made of is of use where there are shards.
async fn relations(client: &Client, epoch: u64, functions: Arc<Functions>, sharded: bool) -> Result<Catalog, SqlError> {
    let mut catalog = Catalog { epoch, loaded: true, functions, ..Catalog::default() };
    let definitions = if sharded { DEFINITIONS } else { NO_DEFINITIONS };
    let queries = [DEFAULT_COLLATION, RELATIONS, COLUMNS, SEQUENCES, VIEWS, definitions, KEPT_UNIQUE, RECALLS];
    let [default, all, columns, sequences, views, definitions, kept_unique, recalls] =
        client.rows_of_each(queries).await?;
    catalog.has_hidden_recalls = recalls.first().is_some_and(|row| flag(row, 0));
    catalog.default_collation_is_bytes = default.first().is_some_and(|row| flag(row, 0));
    let of = |relation: Relation| (relation.oid, relation);
    let mut relations: HashMap<u32, Relation> = all.iter().filter_map(|row| relation(row)).map(of).collect();
    for row in columns {
        let owner = number(&row, 0).and_then(|oid| relations.get_mut(&oid));
        if let (Some(relation), Some(type_oid)) = (owner, number(&row, 2)) {
            if number(&row, 5).is_some() {
                relation.primary_key.push(text(&row, 1));
            }
            relation.columns.push(column(&row, type_oid, catalog.default_collation_is_bytes));
        }
    }
    for row in sequences {
        let sequence = Sequence { schema: text(&row, 2), name: text(&row, 3), always: flag(&row, 4) };
        let owner = number(&row, 0).and_then(|oid| relations.get_mut(&oid));
        let column = owner.and_then(|owner| owner.columns.iter_mut().find(|column| column.name == text(&row, 1)));
        if let Some(column) = column {
            column.sequence = Some(sequence);
        }
    }
    for row in views {
        if let Some(view) = number(&row, 0).and_then(|oid| relations.get_mut(&oid)) {
            view.reads.push((text(&row, 1), text(&row, 2)));
        }
    }
    for row in definitions {
        if let Some(view) = number(&row, 0).and_then(|oid| relations.get_mut(&oid)) {
            view.definition = row.get(1).cloned().flatten().map(|query| query.trim_end_matches(';').to_owned());
        }
    }
    catalog.has_hidden_calls = effects::load(client, &mut relations).await?;
    for row in kept_unique {
        if let Some(table) = number(&row, 0).and_then(|oid| relations.get_mut(&oid)) {
            table.kept_unique.push(text(&row, 1));
        }
    }
    for relation in relations.into_values() {
        let schema = catalog.relations.entry(relation.schema.clone()).or_default();
        schema.insert(relation.name.clone(), Arc::new(relation));
    }
    Ok(catalog)
}

pub(super) type Row = [Option<String>];

fn column(row: &Row, type_oid: u32, default_is_bytes: bool) -> Column {
    Column {
        name: text(row, 1),
        type_oid,
        not_null: flag(row, 3),
        needs_value: flag(row, 10),
        collation_is_bytes: match number(row, 6) {
            None | Some(0) => true,
            Some(DEFAULT_COLLATION_OID) => default_is_bytes,
            Some(_) => flag(row, 4),
        },
        is_nondeterministic: flag(row, 7),
        varying_default: flag(row, 8),
        is_generated: flag(row, 9),
        sequence: None,
    }
}

fn relation(row: &Row) -> Option<Relation> {
    let kind = match text(row, 3).as_str() {
        "r" => RelationKind::Table,
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "S" => RelationKind::Sequence,
        "f" => RelationKind::ForeignTable,
        _ => return None,
    };
    Some(Relation {
        oid: number(row, 0)?,
        schema: text(row, 1),
        name: text(row, 2),
        kind,
        columns: Vec::new(),
        primary_key: Vec::new(),
        // Replicas have numbers of a sequence that are not drawn yet.
        primary_only: flag(row, 4) || kind == RelationKind::Sequence,
        reads: Vec::new(),
        definition: None,
        calls: Vec::new(),
        is_momentary: false,
        has_triggers: false,
        kept_unique: Vec::new(),
        row_security: flag(row, 5),
        descendants: Vec::new(),
        ancestors: Vec::new(),
        cascades: Vec::new(),
    })
}

/// `provolatile`.
pub(super) fn volatility(letter: &str) -> Volatility {
    match letter {
        "i" => Volatility::Immutable,
        "s" => Volatility::Stable,
        _ => Volatility::Volatile,
    }
}

pub(super) fn text(row: &Row, column: usize) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

pub(super) fn number(row: &Row, column: usize) -> Option<u32> {
    row.get(column)?.as_ref()?.parse().ok()
}

pub(super) fn flag(row: &Row, column: usize) -> bool {
    text(row, column) == "t"
}

/// The newest transaction that touched a row, how many rows there are, and what they are.
const FINGERPRINT: &str = "WITH \
     passing AS MATERIALIZED (SELECT oid FROM pg_class WHERE relpersistence = 't'), \
     spaces AS MATERIALIZED (SELECT oid, xmin, nspname ~ '^pg_(toast_)?temp_' AS passes FROM pg_namespace), \
     named AS (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM spaces WHERE NOT passes), \
     called AS (SELECT concat(count(*), '.', sum(oid::bigint), '.', sum(xmin::text::bigint)) \
       FROM pg_proc WHERE oid >= 16384) \
     SELECT concat_ws('/', (TABLE named), (TABLE called)), concat_ws('/', \
     (SELECT concat(count(*), '.', sum(oid::bigint), '.', sum(xmin::text::bigint)) FROM pg_class \
       WHERE oid >= 16384 AND relpersistence <> 't'), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_attribute \
       WHERE attrelid >= 16384 AND attrelid NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_rewrite \
       WHERE oid >= 16384 AND ev_class NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_trigger \
       WHERE oid >= 16384 AND tgrelid NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_attrdef WHERE adrelid NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_inherits WHERE inhrelid NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_constraint \
       WHERE oid >= 16384 AND conrelid NOT IN (TABLE passing)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_policy), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_operator WHERE oid >= 16384), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_cast WHERE oid >= 16384), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_type \
       WHERE oid >= 16384 AND typnamespace NOT IN (SELECT oid FROM spaces WHERE passes)), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_enum), \
     (SELECT concat(count(*), '.', sum(xmin::text::bigint)) FROM pg_auth_members)), \
     (SELECT string_agg(concat_ws(' ', s.xmin, r.rolname), E'\\n' ORDER BY r.rolname) FROM pg_db_role_setting s \
       LEFT JOIN pg_roles r ON r.oid = s.setrole JOIN pg_database d ON s.setdatabase IN (0, d.oid) \
       WHERE d.datname = current_database())";
const DEFAULT_COLLATION: &str = "SELECT datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8') \
     FROM pg_database WHERE datname = current_database()";
const RELATIONS: &str = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence <> 'p', c.relrowsecurity \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_(toast|temp)'";
const COLUMNS: &str = "SELECT a.attrelid, a.attname, a.atttypid, a.attnotnull, \
     coalesce(o.collcollate IN ('C', 'POSIX'), false), \
     array_position(i.indkey::int2[], a.attnum), a.attcollation, \
     coalesce(NOT o.collisdeterministic, false), \
     a.attidentity <> '' OR coalesce(d.adbin::text ~ 'SQLVALUEFUNCTION|NEXTVALUEEXPR' OR EXISTS ( \
       SELECT FROM regexp_matches(d.adbin::text, ':(?:op)?funcid (\\d+)', 'g') AS called \
       JOIN pg_proc p ON p.oid = called[1]::oid WHERE p.provolatile <> 'i'), false) AND a.attgenerated = '', \
     a.attgenerated <> '', a.attnotnull AND a.attidentity = '' AND d.adnum IS NULL AND a.atttypid < 16384 \
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     LEFT JOIN pg_collation o ON o.oid = a.attcollation \
     LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384 \
     ORDER BY a.attrelid, a.attnum";
/// Of columns whose default is `nextval` (function 1574) of a sequence by name and nothing else but the cast to the
/// column's type, and of identity columns. `pg_get_expr` would tell it in words, but locks the tables.
const SEQUENCES: &str = "SELECT a.attrelid, a.attname, n.nspname, s.relname, a.attidentity = 'a' \
     FROM (SELECT d.adrelid AS owner, d.adnum AS number, p.refobjid AS sequence FROM pg_attrdef d \
         JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid \
           AND p.refclassid = 'pg_class'::regclass \
         WHERE d.adbin::text ~ \
           '^({FUNCEXPR [^{]*:funcformat 2 [^{]*:args \\()?{FUNCEXPR :funcid 1574 [^{]*:args \\({CONST [^{]*$' \
       UNION ALL SELECT p.refobjid, p.refobjsubid, p.objid FROM pg_depend p \
         WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'i') used \
     JOIN pg_attribute a ON a.attrelid = used.owner AND a.attnum = used.number AND NOT a.attisdropped \
     JOIN pg_class s ON s.oid = used.sequence AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace \
     WHERE a.attrelid >= 16384";
const VIEWS: &str = "WITH RECURSIVE direct AS ( \
       SELECT DISTINCT r.ev_class AS view, d.refobjid AS base FROM pg_rewrite r \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class \
       WHERE r.oid >= 16384), \
     reads AS (SELECT view, base FROM direct \
       UNION SELECT reads.view, direct.base FROM reads JOIN direct ON direct.view = reads.base) \
     SELECT reads.view, n.nspname, c.relname FROM reads JOIN pg_class c ON c.oid = reads.base \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f')";
/// The arguments of the trigger end with a zero each.
const KEPT_UNIQUE: &str = "SELECT t.tgrelid, field FROM pg_trigger t, \
     unnest(string_to_array(encode(t.tgargs, 'escape'), E'\\\\000')) AS field \
     WHERE t.tgname = 'pgweir_unique_insert' AND t.tgenabled IN ('O', 'A') AND field <> ''";
/// What is not in `pg_catalog` is named with its schema: clients have paths of their own. The tables behind the views are
/// locked for it: whoever changes some of them one after another must not wait for this in a circle, so it gives up before
/// a server looks for one (`deadlock_timeout`).
const DEFINITIONS: &str = "WITH path AS MATERIALIZED (SELECT set_config('search_path', 'pg_catalog', true), \
       set_config('lock_timeout', '100ms', true)) \
     SELECT c.oid, pg_get_viewdef(c.oid) FROM path, pg_class c WHERE c.relkind = 'v' AND c.oid >= 16384";
const NO_DEFINITIONS: &str = "SELECT WHERE false";
/// Calls of `currval` and `lastval`, by number where a server has read the text, else by name. A body that is not a text is
/// in a column that version 13 does not have.
const RECALLS: &str = "SELECT EXISTS (SELECT FROM pg_attrdef WHERE adbin::text ~ ':funcid (1575|2559) ') \
     OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class >= 16384 AND ev_action::text ~ ':funcid (1575|2559) ') \
     OR EXISTS (SELECT FROM pg_proc p WHERE oid >= 16384 AND (prosrc ~* '(currval|lastval)' \
       OR (prosrc = '' AND to_jsonb(p) ->> 'prosqlbody' ~ ':funcid (1575|2559) ')))";
/// An aggregate of a user's is as volatile as the functions that it is made of.
/// One that names no table, by the words of its body or of other functions that it calls, is as one of PostgreSQL's. A body
/// that is not a text (from version 14 on) is in the definition, for which its tables are locked (see [`DEFINITIONS`]).
const FUNCTIONS: &str = "SELECT p.proname, n.nspname, \
     CASE WHEN p.oid < 16384 OR p.prokind <> 'a' THEN p.provolatile \
       WHEN 'v' IN (t.provolatile, f.provolatile) THEN 'v' WHEN 's' IN (t.provolatile, f.provolatile) THEN 's' \
       ELSE 'i' END, \
     n.nspname NOT IN ('pg_catalog', 'information_schema') AND l.lanname NOT IN ('c', 'internal') \
       AND NOT (l.lanname IN ('sql', 'plpgsql') AND p.prokind = 'f' AND body.words !~* '\\m(from|table|into|insert|update|delete|merge|execute|perform|call|copy|with)\\M' \
         AND NOT EXISTS (SELECT FROM pg_proc o JOIN pg_language w ON w.oid = o.prolang \
           WHERE o.oid >= 16384 AND o.oid <> p.oid AND w.lanname NOT IN ('c', 'internal') \
             AND strpos(lower(body.words), lower(o.proname)) > 0)), p.prokind = 'a' \
     FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang \
     CROSS JOIN LATERAL (SELECT CASE WHEN p.prosrc <> '' OR p.prokind <> 'f' OR p.oid < 16384 THEN p.prosrc \
       WHEN set_config('lock_timeout', '100ms', true) <> '' THEN pg_get_functiondef(p.oid) END AS words) body \
     LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid LEFT JOIN pg_proc t ON t.oid = a.aggtransfn \
     LEFT JOIN pg_proc f ON f.oid = a.aggfinalfn";
/// Of columns that are declared without one.
const DEFAULT_COLLATION_OID: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(250);
/// Where no session has been for so long.
const LINGERING: Duration = Duration::from_secs(10);
const RARELY: Duration = Duration::from_secs(5);
/// A server that hangs is left for another try.
const DEADLINE: Duration = Duration::from_secs(10);
const NUMBERS_AGAIN: Duration = Duration::from_secs(2);
/// A shard that is away keeps nobody from what is known of the others.
const UNIQUES_DEADLINE: Duration = Duration::from_secs(2);
const BLOCKS_DEADLINE: Duration = Duration::from_secs(1);
const REFRESH_LIMIT: Duration = Duration::from_secs(2);
