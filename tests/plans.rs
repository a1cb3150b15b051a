//! Every routing rule as query to plan text: the cases stand in `tests/plans/*.txt`.
//!
//! A case is a query (lines with `? `), perhaps parameters (lines with `$ `: type, format, value) and what EXPLAIN ROUTE
//! says of it. `kind`, `table`, `key` and `hint` are compared where a case names them; all other properties always.
//! `@ plain` before cases: in a database of one shard.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pgweir::catalog::{Catalog, Column, Function, Relation, RelationKind, Sequence, ViewCall, Volatility};
use pgweir::config::Config;
use pgweir::plan::{Surroundings, Template, explain};
use pgweir::statement::{Parameters, ShapeCache, Values};
use pgweir::topology::Topology;

#[test]
fn every_rule_is_kept() {
    let (topology, catalog) = (topology(), catalog());
    let mut files: Vec<_> = fs::read_dir("tests/plans").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut failures) = (0, String::new());
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for case in Case::read_all(&text) {
            cases += 1;
            let database = topology.database(if case.plain { "plain" } else { "shop" }).unwrap();
            let surroundings = Surroundings { database, catalog: &catalog, search_path: &["public".to_owned()] };
            let found = case.found(&surroundings);
            if found != case.expected {
                let place = file.file_name().unwrap().to_string_lossy();
                let Case { query, expected, .. } = &case;
                write!(failures, "{place}: {query}\n--- by the rules\n{expected}--- found\n{found}\n").unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(cases > 300, "only {cases} cases were found");
}

struct Case {
    query: String,
    parameters: Vec<Parameter>,
    expected: String,
    plain: bool,
}

/// Type OID, format, value; `None` for NULL.
type Parameter = (u32, u16, Option<Vec<u8>>);

impl Case {
    fn read_all(text: &str) -> Vec<Self> {
        let mut cases = Vec::new();
        let mut plain = false;
        for block in text.split("\n\n") {
            let mut case = Self { query: String::new(), parameters: Vec::new(), expected: String::new(), plain };
            for line in block.lines().filter(|line| !line.starts_with('#')) {
                match line.split_at_checked(2) {
                    Some(("? ", query)) if case.query.is_empty() => query.clone_into(&mut case.query),
                    Some(("? ", query)) => case.query.extend(["\n", query]),
                    Some(("$ ", parameter)) => case.parameters.push(self::parameter(parameter)),
                    Some(("@ ", "plain")) => plain = true,
                    _ => {
                        let (name, value) = line.split_once("  ").unwrap_or_else(|| panic!("{line}"));
                        writeln!(case.expected, "{name}  {}", value.trim()).unwrap();
                    }
                }
            }
            case.plain = plain;
            if !case.query.is_empty() {
                cases.push(case);
            }
        }
        cases
    }

    fn found(&self, surroundings: &Surroundings<'_>) -> String {
        let mut shapes = ShapeCache::<()>::new(1 << 20);
        let (entry, literals) = shapes.resolve(&self.query);
        let types: Vec<u32> = self.parameters.iter().map(|(type_oid, ..)| *type_oid).collect();
        let body = bind(&self.parameters);
        let parameters = Parameters::parse(&body, &types).unwrap();
        let parameters = (!types.is_empty()).then_some(&parameters);
        let values = Values { text: &self.query, literals, parameters };
        let mut found = String::new();
        for statement in &entry.analysis.statements {
            let template = Template::resolve(statement, surroundings);
            for (name, value) in explain::explain(&template, &values) {
                let optional = matches!(name.as_str(), "kind" | "table" | "key" | "hint" | "cache");
                let value = if name == "refused" { self.refusal(&value) } else { value };
                if !optional || self.expected.lines().any(|line| line.starts_with(&format!("{name}  "))) {
                    writeln!(found, "{name}  {}", value.trim()).unwrap();
                }
            }
        }
        found
    }

    /// A case names the SQLSTATE and some of the words.
    fn refusal(&self, message: &str) -> String {
        let expected = self.expected.lines().find_map(|line| line.strip_prefix("refused  "));
        let agrees = |expected: &&str| {
            let (sqlstate, words) = expected.split_once(' ').unwrap_or((expected, ""));
            message.ends_with(&format!("(SQLSTATE {sqlstate})")) && message.contains(words)
        };
        expected.filter(agrees).unwrap_or(message).to_owned()
    }
}

/// `int8 text 42`, `int4 binary 7`, `int8[] binary 1,2`, `unknown text NULL`.
fn parameter(line: &str) -> Parameter {
    let mut words = line.splitn(3, ' ');
    let (name, format, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let type_oid = match name {
        "unknown" => 0,
        "int2" => 21,
        "int4" => 23,
        "int8" => 20,
        "text" => 25,
        "numeric" => 1700,
        "float8" => 701,
        "int8[]" => 1016,
        "int4[]" => 1007,
        other => panic!("{other}"),
    };
    let number = |value: &str| match name {
        "int2" => value.parse::<i16>().unwrap().to_be_bytes().to_vec(),
        "int4" | "int4[]" => value.parse::<i32>().unwrap().to_be_bytes().to_vec(),
        "float8" => value.parse::<f64>().unwrap().to_be_bytes().to_vec(),
        "text" => value.as_bytes().to_vec(),
        _ => value.parse::<i64>().unwrap().to_be_bytes().to_vec(),
    };
    let value = match (value, format) {
        ("NULL", _) => None,
        (value, "text") => Some(value.as_bytes().to_vec()),
        (value, "binary") if name.ends_with("[]") => {
            let element: u32 = if name == "int4[]" { 23 } else { 20 };
            let items: Vec<Vec<u8>> = value.split(',').map(number).collect();
            let count = u32::try_from(items.len()).unwrap();
            let mut bytes: Vec<u8> = [1, 0, element, count, 1].iter().flat_map(|word| word.to_be_bytes()).collect();
            for item in items {
                bytes.extend(u32::try_from(item.len()).unwrap().to_be_bytes());
                bytes.extend(item);
            }
            Some(bytes)
        }
        (value, "binary") => Some(number(value)),
        other => panic!("{other:?}"),
    };
    (type_oid, u16::from(format == "binary"), value)
}

/// A Bind message's body behind its names, as PostgreSQL's documentation 55.7 has it.
fn bind(parameters: &[Parameter]) -> Vec<u8> {
    let count = u16::try_from(parameters.len()).unwrap().to_be_bytes();
    let mut body = count.to_vec();
    parameters.iter().for_each(|(_, format, _)| body.extend(format.to_be_bytes()));
    body.extend(count);
    for (.., value) in parameters {
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.iter().flatten());
    }
    body.extend([0, 0]);
    body
}

/// Users 1 to 999 are on shard 0, to 1999 on shard 1, to 2999 on shard 2.
fn topology() -> Topology {
    let mut text = String::from("[[users]]\nname = \"app\"\npassword = \"x\"\n");
    text.push_str("[[databases]]\nname = \"plain\"\nhost = \"p\"\n");
    for shard in 0..3 {
        write!(text, "[[databases]]\nname = \"shop\"\nshard = {shard}\nhost = \"s{shard}\"\n").unwrap();
    }
    for by in ["column = \"user_id\"", "name = \"users\"\ncolumn = \"id\""] {
        write!(text, "[[sharded_tables]]\ndatabase = \"shop\"\n{by}\n").unwrap();
        for (start, end, shard) in [(1, 1000, 0), (1000, 2000, 1), (2000, 3000, 2)] {
            let range = format!("start = {start}\nend = {end}\nshard = {shard}\n");
            write!(text, "[[sharded_tables.mapping]]\n{range}").unwrap();
        }
    }
    // Sharded by something else: equal keys are on other shards.
    text.push_str(
        "[[sharded_tables]]\ndatabase = \"shop\"\nname = \"tenants\"\ncolumn = \"slug\"\ndata_type = \"text\"\n",
    );
    text.push_str("[[sharded_tables.mapping]]\nend = \"m\"\nshard = 0\n");
    text.push_str("[[sharded_tables.mapping]]\nstart = \"m\"\nshard = 2\n");
    text.push_str("[[reference_tables]]\ndatabase = \"shop\"\ntables = [\"products\", \"categories\"]\n");
    let config = Config::parse(Path::new("shop.toml"), &text).unwrap();
    Topology::new(&config, 1).unwrap()
}

/// The shop's tables, a table `jobs` that is neither sharded nor reference, views and functions.
fn catalog() -> Catalog {
    let mut catalog = Catalog { epoch: 1, loaded: true, ..Catalog::default() };
    let mut tables = HashMap::new();
    for (name, columns) in [
        (
            "users",
            "id handle! email~ full_name~ born country balance verified interests settings avatar last_seen_at created_at*",
        ),
        ("orders", "user_id id tracking status~ total currency~ gift note~ placed_at* shipped_at"),
        ("order_items", "user_id order_id line product_id quantity unit_price discount"),
        ("carts", "user_id product_id quantity added_at*"),
        ("posts", "user_id id public_id body~ tags attachments likes score visible published_at* edited_at"),
        ("follows", "user_id followed_id muted since*"),
        ("products", "id sku category_id name~ description~ price weight_kg tags attributes available created_at*"),
        ("categories", "id name~ parent_id slug~"),
        ("tenants", "slug! plan~"),
        ("jobs", "id name~ run_at"),
        ("nicknames", "user_id nickname?"),
        ("accounts", "user_id# id^ name"),
        ("drafts", "id body~"),
        ("big_orders", "user_id id total"),
        ("catalogue", "id name~ price"),
        ("backlog", "id name~"),
        ("queue", "id name~"),
        ("reports", "id total"),
        ("unsaved", "id body~"),
    ] {
        tables.insert(name.to_owned(), Arc::new(relation(name, columns)));
    }
    catalog.relations.insert("public".to_owned(), tables);
    let system = HashMap::from([("pg_class".to_owned(), Arc::new(relation("pg_class", "oid relname")))]);
    let system = system.into_iter().map(|(name, table)| {
        let table = Relation { schema: "pg_catalog".to_owned(), ..Relation::clone(&table) };
        (name, Arc::new(table))
    });
    catalog.relations.insert("pg_catalog".to_owned(), system.collect());
    functions(&mut catalog);
    catalog
}

/// `~` after a column: text in a collation that is not by bytes, `?`: by which other bytes may be equal, `!`: by bytes;
/// `*`: its default is `now()`; `#`: a serial column, `^`: an identity column that is always generated.
fn relation(name: &str, columns: &str) -> Relation {
    let column = |written: &str| Column {
        name: written.trim_end_matches(['~', '!', '?', '*', '#', '^']).to_owned(),
        type_oid: if written.ends_with(['~', '!', '?']) { 25 } else { 20 },
        not_null: false,
        needs_value: false,
        collation_is_bytes: !written.ends_with(['~', '?']),
        is_nondeterministic: written.ends_with('?'),
        varying_default: written.ends_with('*'),
        is_generated: false,
        sequence: written.ends_with(['#', '^']).then(|| Sequence {
            schema: "public".to_owned(),
            name: format!("{name}_{}_seq", written.trim_end_matches(['#', '^'])),
            always: written.ends_with('^'),
        }),
    };
    let reads = match name {
        "big_orders" => "orders",
        "catalogue" => "products",
        "backlog" | "queue" | "reports" => "jobs",
        "unsaved" => "drafts",
        _ => "",
    };
    Relation {
        oid: 20_000,
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: if reads.is_empty() { RelationKind::Table } else { RelationKind::View },
        columns: columns.split(' ').map(column).collect(),
        primary_key: vec!["id".to_owned()],
        primary_only: name == "drafts",
        definition: None,
        reads: (!reads.is_empty()).then(|| ("public".to_owned(), reads.to_owned())).into_iter().collect(),
        calls: match name {
            "queue" => vec![view_call("pg_catalog", "nextval", Volatility::Volatile)],
            "backlog" => vec![view_call("pg_catalog", "random", Volatility::Volatile)],
            "reports" => vec![view_call("public", "report", Volatility::Stable)],
            _ => Vec::new(),
        },
        is_momentary: false,
        has_triggers: false,
        kept_unique: Vec::new(),
        row_security: false,
        descendants: Vec::new(),
        ancestors: Vec::new(),
        cascades: Vec::new(),
    }
}

fn view_call(schema: &str, name: &str, volatility: Volatility) -> ViewCall {
    ViewCall { schema: schema.to_owned(), name: name.to_owned(), volatility }
}

fn functions(catalog: &mut Catalog) {
    use Volatility::{Immutable, Stable, Volatile};
    let built_in = [
        (
            Immutable,
            "count sum avg min max bool_and bool_or string_agg array_agg lower upper length abs row_number rank",
        ),
        (Immutable, "generate_series unnest any_value"),
        (
            Stable,
            "now date_trunc current_setting to_char pg_table_is_visible pg_is_in_recovery pg_stat_get_live_tuples",
        ),
        (
            Volatile,
            "random clock_timestamp gen_random_uuid pg_sleep nextval setval currval pg_advisory_lock set_config",
        ),
        (Volatile, "pg_advisory_xact_lock pg_notify txid_current pg_is_wal_replay_paused"),
    ];
    for (volatility, names) in built_in {
        for name in names.split(' ') {
            let is_aggregate = matches!(name, "count" | "sum" | "avg" | "min" | "max" | "bool_and" | "bool_or");
            let schema = "pg_catalog".to_owned();
            let function = Function { schema, volatility, is_user_defined: false, is_aggregate };
            Arc::make_mut(&mut catalog.functions).insert(name.to_owned(), vec![function]);
        }
    }
    for (name, volatility) in
        [("discounted", Immutable), ("report", Stable), ("touch", Volatile), ("median", Immutable)]
    {
        let schema = "public".to_owned();
        let function = Function { schema, volatility, is_user_defined: true, is_aggregate: name == "median" };
        Arc::make_mut(&mut catalog.functions).insert(name.to_owned(), vec![function]);
    }
}
