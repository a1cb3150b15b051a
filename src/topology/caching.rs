//! What may be cached, and how much of it.

use std::time::Duration;

use super::build::{Builder, pattern};
use super::{EvictionPolicy, TablePattern};
use crate::config::{Cache, Invalidation};

/// How much is kept and for how long, over all databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all entries with their keys.
    pub memory: usize,
    /// The longest that any table's entries live.
    pub ttl: Duration,
    /// Bytes of one answer.
    pub max_result: usize,
    pub policy: EvictionPolicy,
}

/// What is cached of a database's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    pub enabled: bool,
    /// Of tables that no rule gives another.
    pub ttl: Duration,
    pub rules: Vec<CacheRule>,
}

/// The first one that names a table holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    pub tables: Vec<TablePattern>,
    pub cache: bool,
    pub ttl: Option<Duration>,
}

impl CacheLimits {
    pub(super) fn new(cache: &Cache) -> Option<Self> {
        let ttls = cache.rules.iter().filter(|rule| rule.cache).filter_map(|rule| rule.ttl);
        let ttl = ttls.fold(cache.ttl, Duration::max);
        let (memory, max_result, policy) = (cache.memory, cache.max_result, cache.policy);
        cache.enabled.then_some(Self { memory, ttl, max_result, policy })
    }
}

impl Caching {
    pub(super) fn new(cache: &Cache) -> Self {
        let rules = cache.rules.iter().map(|rule| CacheRule {
            tables: rule.tables.iter().map(|table| pattern(table)).collect(),
            cache: rule.cache,
            ttl: rule.ttl,
        });
        Self { enabled: cache.enabled, ttl: cache.ttl, rules: rules.collect() }
    }

    /// How long answers from a table may live; `None`: they are not kept.
    pub fn ttl_of(&self, schema: &str, name: &str) -> Option<Duration> {
        let names = |rule: &&CacheRule| rule.tables.iter().any(|pattern| pattern.is(Some(schema), name));
        match self.rules.iter().find(names) {
            Some(rule) => rule.cache.then(|| rule.ttl.unwrap_or(self.ttl)),
            None => Some(self.ttl),
        }
    }
}

impl Builder<'_> {
    pub(super) fn check_cache(&mut self) {
        let cache = &self.config.cache;
        if cache.invalidation == Invalidation::WritesAndStream {
            let message = "invalidation = \"writes_and_stream\" is not in this version";
            self.problem(message, "cache.invalidation", "Use \"writes\": writes that bypass pgweir show after ttl.");
        }
        if cache.ttl.is_zero() {
            self.problem("ttl bounds every entry's life", "cache.ttl", "Give a duration above 0.");
        }
        if cache.memory < SMALLEST {
            self.problem("so little memory holds nothing", "cache.memory", "Give at least \"64KiB\".");
        }
        if cache.max_result == 0 || cache.max_result > cache.memory {
            let help = "Give a size above 0, and no more than memory.";
            self.problem("no answer can be of this size", "cache.max_result", help);
        }
        for (index, rule) in cache.rules.iter().enumerate() {
            let at = |key: &str| format!("cache.rules.{index}.{key}");
            if rule.tables.is_empty() {
                self.problem("a rule for no table", at("tables"), "Name tables as \"name\" or \"schema.name\".");
            }
            if rule.ttl.is_some_and(|ttl| ttl.is_zero()) {
                self.problem("ttl bounds every entry's life", at("ttl"), "Say cache = false to keep nothing.");
            }
            if rule.ttl.is_some() && !rule.cache {
                self.problem("a ttl for what is not cached", at("ttl"), "Leave out ttl, or cache = false.");
            }
        }
    }
}

/// Less than a few small entries.
const SMALLEST: usize = 64 << 10;
