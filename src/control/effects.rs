//! Loads what a write of a relation changes beside it, and what a view's rows depend on beside tables.

use std::collections::HashMap;

use super::catalog::{Row, flag, number, text, volatility};
use super::connect::{Client, SqlError};
use crate::catalog::{Cascade, Consequence, Relation, ViewCall};

/// Adds to the relations, by oid; says whether operators or casts call what no text shows.
pub(super) async fn load(client: &Client, relations: &mut HashMap<u32, Relation>) -> Result<bool, SqlError> {
    let queries = [TRIGGERS, TREES, CASCADES, VIEW_CALLS, MOMENTARY_VIEWS, HIDDEN_CALLS];
    let [triggers, trees, cascades, calls, momentary, hidden] = client.rows_of_each(queries).await?;
    for row in triggers {
        if let Some(relation) = owner(&row, relations) {
            relation.has_triggers = true;
        }
    }
    for row in trees {
        let (Some(descendant), Some(ancestor)) = (named(&row, 0, relations), named(&row, 1, relations)) else {
            continue;
        };
        if let Some(relation) = number(&row, 1).and_then(|oid| relations.get_mut(&oid)) {
            relation.descendants.push(descendant);
        }
        if let Some(relation) = owner(&row, relations) {
            relation.ancestors.push(ancestor);
        }
    }
    for row in cascades {
        let Some(table) = named(&row, 1, relations) else { continue };
        if let Some(relation) = owner(&row, relations) {
            let (on_delete, on_update) = (consequence(&text(&row, 2), true), consequence(&text(&row, 3), false));
            let (referring, referred) = (names(&text(&row, 4)), names(&text(&row, 5)));
            relation.cascades.push(Cascade { table, referring, referred, on_delete, on_update });
        }
    }
    for row in calls {
        if let Some(view) = owner(&row, relations) {
            view.calls.push(ViewCall {
                schema: text(&row, 1),
                name: text(&row, 2),
                volatility: volatility(&text(&row, 3)),
            });
        }
    }
    for row in momentary {
        if let Some(view) = owner(&row, relations) {
            view.is_momentary = true;
        }
    }
    Ok(hidden.first().is_none_or(|row| flag(row, 0)))
}

fn owner<'r>(row: &Row, relations: &'r mut HashMap<u32, Relation>) -> Option<&'r mut Relation> {
    number(row, 0).and_then(|oid| relations.get_mut(&oid))
}

fn named(row: &Row, column: usize, relations: &HashMap<u32, Relation>) -> Option<(String, String)> {
    let relation = number(row, column).and_then(|oid| relations.get(&oid))?;
    Some((relation.schema.clone(), relation.name.clone()))
}

/// A list of names as JSON.
fn names(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

/// `confdeltype` and `confupdtype` (PostgreSQL documentation, 53.13).
fn consequence(letter: &str, deletes: bool) -> Option<Consequence> {
    match letter {
        "c" if deletes => Some(Consequence::Delete),
        "c" | "n" | "d" => Some(Consequence::Update),
        _ => None,
    }
}

/// Relations whose writes run what users wrote: triggers, rules, volatile functions in defaults and checks; views that
/// check what is written. Of PostgreSQL's own trigger functions none touches another table.
const TRIGGERS: &str = "\
     SELECT t.tgrelid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
       WHERE NOT t.tgisinternal AND p.pronamespace <> 'pg_catalog'::regnamespace \
         AND p.pronamespace IS DISTINCT FROM to_regnamespace('pgweir') \
     UNION SELECT v.oid FROM pg_class v WHERE v.relkind = 'v' AND v.reloptions::text LIKE '%check_option%' \
     UNION SELECT r.ev_class FROM pg_rewrite r WHERE r.ev_type <> '1' AND r.oid >= 16384 \
     UNION SELECT a.adrelid FROM pg_attrdef a \
       JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid \
       JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid \
       WHERE p.provolatile = 'v' AND p.pronamespace <> 'pg_catalog'::regnamespace \
     UNION SELECT c.conrelid FROM pg_constraint c \
       JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid \
       JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid \
       WHERE c.contype = 'c' AND p.provolatile = 'v' AND p.pronamespace <> 'pg_catalog'::regnamespace";
/// Each table with each one that it inherits from or is a partition of, however far up.
const TREES: &str = "WITH RECURSIVE tree AS ( \
       SELECT inhrelid, inhparent FROM pg_inherits \
       UNION SELECT tree.inhrelid, i.inhparent FROM tree JOIN pg_inherits i ON i.inhrelid = tree.inhparent) \
     SELECT tree.inhrelid, tree.inhparent FROM tree JOIN pg_class c ON c.oid = tree.inhrelid \
     WHERE c.relkind IN ('r', 'p', 'f')";
const CASCADES: &str = "SELECT confrelid, conrelid, confdeltype, confupdtype, \
     (SELECT json_agg(attname ORDER BY array_position(conkey, attnum)) \
       FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY(conkey)), \
     (SELECT json_agg(attname ORDER BY array_position(confkey, attnum)) \
       FROM pg_attribute WHERE attrelid = confrelid AND attnum = ANY(confkey) \
       HAVING bool_and(attgenerated = '')) \
     FROM pg_constraint \
     WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))";
/// PostgreSQL keeps no dependency on what is its own, but the stored rule names every function by its oid. Each view
/// is followed through the views below it.
const VIEW_CALLS: &str = "WITH RECURSIVE below AS ( \
       SELECT ev_class AS view, ev_class AS inside FROM pg_rewrite WHERE oid >= 16384 AND ev_type = '1' \
       UNION SELECT below.view, d.refobjid FROM below JOIN pg_rewrite r ON r.ev_class = below.inside \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> below.inside), \
     calls AS (SELECT ev_class, \
         (regexp_matches(ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g'))[1]::oid AS function \
       FROM pg_rewrite WHERE oid >= 16384 AND ev_type = '1') \
     SELECT DISTINCT below.view, n.nspname, p.proname, p.provolatile FROM below \
     JOIN calls ON calls.ev_class = below.inside JOIN pg_proc p ON p.oid = calls.function \
     JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.provolatile <> 'i'";
/// Values of the moment or the session, samples, row locks, system relations, and text read as a date or time.
const MOMENTARY_VIEWS: &str = "WITH RECURSIVE below AS ( \
       SELECT ev_class AS view, ev_class AS inside FROM pg_rewrite WHERE oid >= 16384 AND ev_type = '1' \
       UNION SELECT below.view, d.refobjid FROM below JOIN pg_rewrite r ON r.ev_class = below.inside \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> below.inside) \
     SELECT DISTINCT below.view FROM below JOIN pg_rewrite r ON r.ev_class = below.inside AND r.ev_type = '1' \
     WHERE r.ev_action::text ~ '{(SQLVALUEFUNCTION|TABLESAMPLECLAUSE|ROWMARKCLAUSE|NEXTVALUEEXPR) ' \
     OR (r.ev_action::text ~ '{COERCEVIAIO ' \
       AND r.ev_action::text ~ ':resulttype (1082|1083|1114|1115|1182|1183|1184|1185|1266|1270|3908|3910|3912) ') \
     OR EXISTS (SELECT FROM regexp_matches(r.ev_action::text, ':relid (\\d+)', 'g') AS found \
       WHERE found[1]::bigint BETWEEN 1 AND 16383)";
/// A user's operator or cast that calls a function which is not immutable.
const HIDDEN_CALLS: &str = "SELECT EXISTS ( \
     SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
     WHERE p.provolatile <> 'i' AND l.lanname NOT IN ('c', 'internal') AND p.oid IN ( \
       SELECT oprcode FROM pg_operator WHERE oid >= 16384 \
       UNION SELECT castfunc FROM pg_cast WHERE oid >= 16384))";
