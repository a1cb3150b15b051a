//! Whether every shard has the same tables, columns, constraints, indexes, types and functions.

use std::collections::BTreeMap;

use super::{Findings, Shard, Shards, Tables, name_of};
use crate::catalog::Column;
use crate::control::catalog::text;
use crate::control::connect::SqlError;
use crate::plan::Place;
use crate::topology::{Database, KeyType, ShardedBy, TablePattern};

/// By subject and part of it ("public.users", "column email"): its definition.
type Definitions = BTreeMap<(String, String), String>;

pub(super) async fn look(shards: &Shards<'_>, findings: &mut Findings) -> Result<(), SqlError> {
    let known = read(&shards.home).await?;
    for shard in shards.others() {
        let own = read(shard).await?;
        compare((&known, shards.home.number), (&own, shard.number), findings);
    }
    Ok(())
}

async fn read(shard: &Shard<'_>) -> Result<Definitions, SqlError> {
    let rows = shard.client.rows(DEFINITIONS).await?;
    Ok(rows.iter().map(|row| ((text(row, 0), text(row, 1)), text(row, 2))).collect())
}

fn compare((known, home): (&Definitions, u16), (own, shard): (&Definitions, u16), findings: &mut Findings) {
    let is_whole = |part: &str| part.is_empty();
    let lacks = |all: &Definitions, subject: &String| {
        let has_whole = |of: &Definitions| of.contains_key(&(subject.clone(), String::new()));
        !has_whole(all) && (has_whole(known) || has_whole(own))
    };
    let mut partly: Vec<&String> = Vec::new();
    for (key @ (subject, part), definition) in known {
        let text = match own.get(key) {
            Some(same) if same == definition => continue,
            _ if lacks(own, subject) && !is_whole(part) => continue,
            None if is_whole(part) => format!("is missing; shard {home} has {definition}"),
            None => format!("{part} is missing; shard {home} has: {definition}"),
            // What makes it another order is named already.
            Some(_) if part == ORDER && partly.contains(&subject) => continue,
            Some(other) if is_whole(part) => format!("is {other}, on shard {home} {definition}"),
            Some(other) => format!("{part} is: {other}; on shard {home}: {definition}"),
        };
        partly.push(subject);
        findings.fault(Some(shard), subject, text);
    }
    for ((subject, part), definition) in own.iter().filter(|(key, _)| !known.contains_key(*key)) {
        match is_whole(part) {
            true => drop(findings.fault(Some(shard), subject, format!("shard {home} has none; this is {definition}"))),
            false if lacks(known, subject) => {}
            false => {
                findings.fault(
                    Some(shard),
                    subject,
                    format!("{part} is not on shard {home}; here it is: {definition}"),
                );
            }
        }
    }
}

/// Whether what the configuration names is there, on the home shard.
pub(super) fn look_at_declared(database: &Database, tables: &Tables, findings: &mut Findings) {
    let is_there =
        |pattern: &TablePattern| tables.iter().any(|(table, _)| pattern.is(Some(&table.schema), &table.name));
    let name = |pattern: &TablePattern| match &pattern.schema {
        Some(schema) => format!("{schema}.{}", pattern.name),
        None => pattern.name.clone(),
    };
    let named = database.sharded.iter().filter_map(|tables| match &tables.tables {
        ShardedBy::Table { table, .. } => Some((table, "sharded")),
        ShardedBy::Column(_) => None,
    });
    let reference = database.reference.iter().map(|table| (table, "a reference table"));
    for (pattern, what) in named.chain(reference).filter(|(pattern, _)| !is_there(pattern)) {
        findings.fault(None, name(pattern), format!("is configured as {what}, and there is no such table"));
    }
    for (table, place) in tables {
        let Place::Sharded(sharded) = place else { continue };
        let (subject, column, declared) = (name_of(table), &sharded.column, sharded.key_type.sql());
        match table.column(column) {
            None => drop(findings.fault(None, subject, format!("has no column {column}, its shard key"))),
            Some(known) if !is_of_type(known, sharded.key_type) => {
                let text = format!("its shard key {column} is not {declared}, as data_type says");
                findings.fault(None, subject, text);
            }
            Some(_) => {}
        }
    }
}

/// Whether values of the column are read as keys of this type (PostgreSQL's `pg_type.dat`).
fn is_of_type(column: &Column, key_type: KeyType) -> bool {
    let known: &[u32] = match key_type {
        KeyType::Bigint => &[20, 21, 23],
        KeyType::Integer => &[21, 23],
        KeyType::Uuid => &[2950],
        KeyType::Text => &[25, 1043],
        KeyType::Date => &[1082],
        KeyType::Timestamptz => &[1184],
    };
    known.contains(&column.type_oid)
}

const ORDER: &str = "order of columns";

/// Sequences count in other places on each shard; indexes of constraints come with these.
const DEFINITIONS: &str = "WITH own AS (SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS subject \
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
       WHERE c.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'), \
     tables AS (SELECT * FROM own WHERE relkind IN ('r', 'p', 'v', 'm', 'f')) \
     SELECT subject, '', concat_ws(' ', CASE relkind WHEN 'r' THEN 'a table' WHEN 'p' THEN 'a partitioned table' \
         WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' ELSE 'a foreign table' END, \
         CASE relpersistence WHEN 'u' THEN 'unlogged' END, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid), \
         CASE WHEN relrowsecurity THEN 'with row security' END, \
         'of ' || NULLIF((SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) \
           FROM pg_inherits WHERE inhrelid = tables.oid), '')) FROM tables \
     UNION ALL SELECT subject, 'column ' || quote_ident(a.attname), concat_ws(' ', \
         format_type(a.atttypid, a.atttypmod), \
         (SELECT 'COLLATE ' || o.oid::regcollation FROM pg_collation o JOIN pg_type t ON t.oid = a.atttypid \
           WHERE o.oid = a.attcollation AND o.oid <> t.typcollation), \
         CASE WHEN a.attnotnull THEN 'NOT NULL' END, \
         CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' \
           END, CASE WHEN a.attgenerated <> '' THEN 'GENERATED ALWAYS AS' WHEN d.oid IS NOT NULL THEN 'DEFAULT' END, \
         pg_get_expr(d.adbin, d.adrelid)) \
       FROM tables JOIN pg_attribute a ON a.attrelid = tables.oid AND a.attnum > 0 AND NOT a.attisdropped \
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     UNION ALL SELECT subject, 'order of columns', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) \
       FROM tables JOIN pg_attribute a ON a.attrelid = tables.oid AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1 \
     UNION ALL SELECT subject, 'owner', pg_get_userbyid(relowner) FROM tables \
     UNION ALL SELECT subject, 'privileges', coalesce((SELECT string_agg(a::text, ', ' ORDER BY a::text) \
       FROM unnest(coalesce(relacl, acldefault('r', relowner))) a), 'none') FROM tables \
     UNION ALL SELECT subject, 'query', pg_get_viewdef(oid) FROM tables WHERE relkind IN ('v', 'm') \
     UNION ALL SELECT subject, 'constraint ' || quote_ident(k.conname), pg_get_constraintdef(k.oid) \
       FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') \
     UNION ALL SELECT subject, 'index ' || quote_ident(x.relname), pg_get_indexdef(i.indexrelid) \
       FROM tables JOIN pg_index i ON i.indrelid = tables.oid JOIN pg_class x ON x.oid = i.indexrelid \
       WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid) \
         AND x.relname !~ '_cc(new|old)[0-9]*$' \
     UNION ALL SELECT subject, 'trigger ' || quote_ident(t.tgname), \
         pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' (' || t.tgenabled::text || ')' END \
       FROM tables JOIN pg_trigger t ON t.tgrelid = tables.oid WHERE NOT t.tgisinternal \
     UNION ALL SELECT subject, 'policy ' || quote_ident(p.polname), concat_ws(' ', p.polcmd, p.polpermissive, \
         p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) \
       FROM tables JOIN pg_policy p ON p.polrelid = tables.oid \
     UNION ALL SELECT subject, '', concat_ws(' ', 'a sequence of', format_type(s.seqtypid, NULL), \
         'by ' || s.seqincrement, CASE WHEN s.seqcycle THEN 'in circles' END) \
       FROM own JOIN pg_sequence s ON s.seqrelid = own.oid \
     UNION ALL SELECT 'function ' || p.oid::regprocedure, '', \
         CASE p.prokind WHEN 'a' THEN 'an aggregate' ELSE pg_get_functiondef(p.oid) END \
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
       WHERE p.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     UNION ALL SELECT 'type ' || t.oid::regtype, '', CASE t.typtype \
         WHEN 'e' THEN 'an enum of ' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) \
           FROM pg_enum e WHERE e.enumtypid = t.oid) \
         WHEN 'd' THEN concat_ws(' ', 'a domain over', format_type(t.typbasetype, t.typtypmod), \
           CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault, \
           (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname) FROM pg_constraint k \
             WHERE k.contypid = t.oid AND k.contype = 'c')) \
         WHEN 'c' THEN 'a composite of ' || (SELECT string_agg(quote_ident(a.attname) || ' ' || \
           format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a \
             WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) \
         ELSE 'another type' END \
       FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid \
       WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
         AND (t.typrelid = 0 OR c.relkind = 'c') AND t.typelem = 0 \
     UNION ALL SELECT 'extension ' || quote_ident(extname), '', 'version ' || extversion FROM pg_extension \
     UNION ALL SELECT 'database', 'encoding', pg_encoding_to_char(encoding) FROM pg_database \
       WHERE datname = current_database() \
     UNION ALL SELECT 'database', 'collation', datcollate || ' / ' || datctype FROM pg_database \
       WHERE datname = current_database()";
