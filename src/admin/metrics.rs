//! `/metrics` as OpenMetrics. The counters are `figures`; the library writes them down.
//!
//! Labels are names of the configuration and of lists in this program; nothing that a client or a server said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::process::Process;
use super::show::{cache_figures, state_name};
use crate::backend::Pool;
use crate::balance::Condition;
use crate::figures::{BOUNDS_MICROS, Distribution, Route, Totals};
use crate::session::Shared;
use crate::topology::{Role, Server};

/// All there is to tell now.
pub(super) fn page(shared: &Arc<Shared>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything(Arc::clone(shared))));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry)?;
    Ok(page)
}

struct Everything(Arc<Shared>);

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Everything")
    }
}

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        durations(&mut page, &self.0)?;
        totals(&mut page, &self.0.figures.totals())?;
        clients(&mut page, &self.0)?;
        pools(&mut page, &self.0)?;
        servers(&mut page, &self.0)?;
        replicas(&mut page, &self.0)?;
        cache(&mut page, &self.0)?;
        process(&mut page, &self.0)
    }
}

type Labels = Vec<(&'static str, String)>;

/// Families of samples, written one after the other.
struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn counters(&mut self, name: &str, help: &str, rows: Vec<(Labels, u64)>) -> fmt::Result {
        self.family((name, help, None, MetricType::Counter), rows, |encoder, count| {
            ConstCounter::new(*count).encode(encoder)
        })
    }

    fn byte_counters(&mut self, name: &str, help: &str, rows: Vec<(Labels, u64)>) -> fmt::Result {
        self.family((name, help, Some(Unit::Bytes), MetricType::Counter), rows, |encoder, count| {
            ConstCounter::new(*count).encode(encoder)
        })
    }

    fn gauges(&mut self, name: &str, help: &str, rows: Vec<(Labels, u64)>) -> fmt::Result {
        self.measures(name, help, None, rows)
    }

    fn measures(&mut self, name: &str, help: &str, unit: Option<Unit>, rows: Vec<(Labels, u64)>) -> fmt::Result {
        self.family((name, help, unit, MetricType::Gauge), rows, |encoder, value| {
            ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(encoder)
        })
    }

    fn seconds(&mut self, name: &str, help: &str, rows: Vec<(Labels, Duration)>) -> fmt::Result {
        self.family((name, help, Some(Unit::Seconds), MetricType::Gauge), rows, |encoder, span| {
            ConstGauge::new(span.as_secs_f64()).encode(encoder)
        })
    }

    fn histograms(&mut self, name: &str, help: &str, rows: Vec<(Labels, Distribution)>) -> fmt::Result {
        self.family((name, help, Some(Unit::Seconds), MetricType::Histogram), rows, put_histogram)
    }

    fn family<T>(
        &mut self,
        (name, help, unit, kind): (&str, &str, Option<Unit>, MetricType),
        rows: Vec<(Labels, T)>,
        put: impl Fn(MetricEncoder<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, row) in rows {
            match labels.is_empty() {
                // One sample without labels is the whole family.
                true => return put(family, &row),
                false => put(family.encode_family(&labels)?, &row)?,
            }
        }
        Ok(())
    }
}

fn put_histogram(mut encoder: MetricEncoder<'_>, read: &Distribution) -> fmt::Result {
    let bounds = BOUNDS_MICROS.iter().map(|&micros| Duration::from_micros(micros).as_secs_f64());
    let bounds = bounds.chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(read.buckets).collect();
    encoder.encode_histogram::<NoLabelSet>(read.sum.as_secs_f64(), read.count(), &buckets, None)
}

fn durations(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let series = shared.figures.series();
    let labels = |(database, route): &(Arc<str>, Route)| {
        vec![
            ("database", database.to_string()),
            ("shard", route.shard().map(|shard| shard.0.to_string()).unwrap_or_default()),
            ("role", route.role().map_or("", Role::name).to_owned()),
            ("route", route.name().to_owned()),
        ]
    };
    let rows = |index: usize| series.iter().map(|(key, read)| (labels(key), read[index].clone())).collect::<Vec<_>>();
    let help = "From a statement's first byte here to the end of its answer, by where it went";
    page.histograms("pgweir_statement_duration", help, rows(0))?;
    let waited = rows(1).into_iter().filter(|(_, read)| read.count() > 0).collect();
    page.histograms(
        "pgweir_connection_wait",
        "Waited for server connections, for each statement that took some",
        waited,
    )
}

fn totals(page: &mut Page<'_>, totals: &BTreeMap<Arc<str>, Totals>) -> fmt::Result {
    let of = |count: fn(&Totals) -> u64| {
        totals.iter().map(|(database, totals)| (of_database(database), count(totals))).collect::<Vec<_>>()
    };
    page.counters("pgweir_statements", "Queries, or pipelines up to a Sync", of(|totals| totals.units))?;
    page.counters("pgweir_transactions", "Transactions that have ended", of(|totals| totals.transactions))?;
    page.counters("pgweir_retries", "Servers asked in place of one out of reach", of(|totals| totals.retries))?;
    page.byte_counters("pgweir_received", "From clients", of(|totals| totals.received))?;
    page.byte_counters("pgweir_sent", "To clients", of(|totals| totals.sent))?;
    let by = |label: &'static str, counts: fn(&Totals) -> &BTreeMap<&'static str, u64>| {
        let rows = totals.iter().flat_map(|(database, totals)| {
            counts(totals).iter().map(move |(code, count)| {
                (vec![("database", database.to_string()), (label, (*code).to_owned())], *count)
            })
        });
        rows.collect::<Vec<_>>()
    };
    page.counters("pgweir_errors", "Errors that clients were told, by class of SQLSTATE", by("class", |t| &t.errors))?;
    page.counters("pgweir_refused", "Errors of the proxy's own among them", by("sqlstate", |totals| &totals.refused))
}

fn clients(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let now = Instant::now();
    let mut states: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let mut pinned: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let mut longest: BTreeMap<String, Duration> = BTreeMap::new();
    for client in shared.registry.all() {
        *states.entry((client.database.clone(), state_name(client.state()))).or_default() += 1;
        if let Some(reason) = client.pinned() {
            *pinned.entry((client.database.clone(), reason)).or_default() += 1;
        }
        let known = longest.entry(client.database.clone()).or_default();
        *known = (*known).max(client.waits_since(now).unwrap_or_default());
    }
    let rows = |counts: BTreeMap<(String, &'static str), u64>, label: &'static str| {
        let row = |((database, what), count): ((String, &'static str), u64)| {
            (vec![("database", database), (label, what.to_owned())], count)
        };
        counts.into_iter().map(row).collect::<Vec<_>>()
    };
    page.gauges("pgweir_clients", "Clients, by what they do", rows(states, "state"))?;
    page.gauges("pgweir_pinned_clients", "Clients that keep a connection, by reason", rows(pinned, "reason"))?;
    let longest = longest.into_iter().map(|(database, waited)| (of_database(&database), waited)).collect();
    page.seconds("pgweir_oldest_wait", "The client that has waited longest for a connection", longest)
}

fn pools(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let pools = shared.pools.all();
    let labels = |pool: &Pool| {
        let mut labels = of_server(&pool.server);
        labels.push(("user", pool.user.clone()));
        labels
    };
    let mut connections = Vec::new();
    for pool in &pools {
        let usage = pool.usage();
        let active = usage.lent.saturating_sub(usage.opening);
        for (state, count) in [("idle", usage.idle), ("active", active), ("opening", usage.opening)] {
            let mut labels = labels(pool);
            labels.push(("state", state.to_owned()));
            connections.push((labels, count as u64));
        }
    }
    page.gauges("pgweir_server_connections", "Connections to servers, by state", connections)?;
    let of =
        |count: fn(&Pool) -> usize| pools.iter().map(|pool| (labels(pool), count(pool) as u64)).collect::<Vec<_>>();
    page.gauges("pgweir_pool_size", "Most connections of the pool", of(|pool| pool.limits().size))?;
    page.gauges("pgweir_pool_waiting", "Clients that wait for the pool", of(|pool| pool.usage().waiting))?;
    let (topology, paused) = (shared.control.topology(), shared.pools.paused());
    let rows = topology.databases.keys().map(|name| (of_database(name), u64::from(paused.contains(name)))).collect();
    page.gauges("pgweir_paused", "1: PAUSE holds the database's clients back", rows)
}

fn servers(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let fleet = shared.control.fleet();
    let of = |count: fn(&Condition) -> u64| {
        fleet.states().iter().map(|state| (of_server(&state.server), count(state))).collect::<Vec<_>>()
    };
    let up = fleet.states().iter().map(|state| {
        let health = state.health().clone();
        let mut labels = of_server(&state.server);
        labels.push(("role", health.role.map_or("unknown", Role::name).to_owned()));
        (labels, u64::from(health.up == Some(true)))
    });
    page.gauges("pgweir_server_up", "1: the last probe was answered", up.collect())?;
    page.gauges("pgweir_server_in_flight", "Statements at the server", of(|state| u64::from(state.in_flight())))?;
    page.counters("pgweir_server_requests", "Statements sent to the server", of(Condition::served))?;
    page.counters("pgweir_probe_failures", "Probes without an answer", of(Condition::failed_probes))?;
    let latencies = fleet.states().iter().map(|state| (of_server(&state.server), state.latency())).collect();
    page.seconds("pgweir_server_latency", "Moving average (peak EWMA) that balancing goes by", latencies)
}

/// What is not known has no sample.
fn replicas(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let (fleet, now) = (shared.control.fleet(), Instant::now());
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for state in fleet.states() {
        let (time, behind) = fleet.lag(state, now);
        times.extend(time.map(|time| (of_server(&state.server), time)));
        bytes.extend(behind.map(|behind| (of_server(&state.server), behind)));
    }
    page.seconds("pgweir_replica_lag", "Since when the replica lacks something that the primary had", times)?;
    page.measures("pgweir_replica_lag", "Write-ahead log that the replica lacks", Some(Unit::Bytes), bytes)
}

fn cache(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let figures = cache_figures(shared);
    if !figures.enabled {
        return Ok(());
    }
    let one = |count: u64| vec![(Vec::new(), count)];
    page.gauges("pgweir_cache_entries", "Results that are kept", one(figures.entries))?;
    page.measures("pgweir_cache_size", "What they take", Some(Unit::Bytes), one(figures.bytes))?;
    page.measures("pgweir_cache_limit", "What they may take", Some(Unit::Bytes), one(figures.limit_bytes))?;
    page.counters("pgweir_cache_hits", "Answers from the cache", one(figures.hits))?;
    let misses = figures.misses.iter().map(|(reason, count)| (vec![("reason", (*reason).to_owned())], *count));
    page.counters("pgweir_cache_misses", "Reads that were not answered from it, by reason", misses.collect())?;
    page.counters("pgweir_cache_fills", "Results put in", one(figures.fills))?;
    page.counters("pgweir_cache_evictions", "Results put out for want of room", one(figures.evictions))?;
    page.counters("pgweir_cache_invalidations", "Writes that made results invalid", one(figures.invalidations))?;
    page.counters("pgweir_cache_follows", "Reads that waited for another's same query", one(figures.follows))?;
    page.gauges("pgweir_cache_in_flight", "Queries that fill a result for others too", one(figures.in_flight))
}

fn process(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let [taken, refused] = &shared.figures.reloads;
    let reloads = [("ok", taken.read()), ("refused", refused.read())];
    let reloads = reloads.map(|(result, count)| (vec![("result", result.to_owned())], count));
    page.counters("pgweir_reloads", "Configurations read again", reloads.to_vec())?;
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.gauges("pgweir_build_info", "1, and the version", vec![(version, 1)])?;
    let uptime = shared.figures.started.elapsed();
    page.seconds("pgweir_uptime", "Since the start", vec![(Vec::new(), uptime)])?;
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(uptime);
    page.seconds("process_start_time", "Since 1970", vec![(Vec::new(), started)])?;
    let process = Process::read();
    let cpu = process.cpu.into_iter().map(|cpu| (Vec::new(), cpu.as_secs_f64())).collect();
    page.family(("process_cpu", "User and system", Some(Unit::Seconds), MetricType::Counter), cpu, |encoder, cpu| {
        ConstCounter::new(*cpu).encode(encoder)
    })?;
    let one = |count: Option<u64>| count.into_iter().map(|count| (Vec::new(), count)).collect::<Vec<_>>();
    let resident = one(process.resident_bytes);
    page.measures("process_resident_memory", "Resident memory", Some(Unit::Bytes), resident)?;
    page.gauges("process_open_fds", "Open descriptors", one(process.open_files))?;
    page.gauges("process_max_fds", "Most descriptors", one(process.most_files))
}

fn of_database(name: &str) -> Labels {
    vec![("database", name.to_owned())]
}

fn of_server(server: &Server) -> Labels {
    vec![
        ("database", server.database.clone()),
        ("shard", server.shard.0.to_string()),
        ("server", format!("{}:{}", server.host, server.port)),
    ]
}
