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
        if cache.memory == 0 {
            self.problem("no memory holds nothing", "cache.memory", "Give a size, or enabled = false.");
        }
        if cache.max_result == 0 {
            self.problem("no answer is of no size", "cache.max_result", "Give a size, or enabled = false.");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::topology::Topology;
    use std::path::Path;

    fn topology(cache: &str) -> Result<Topology, String> {
        let servers = "[[databases]]\nname = \"shop\"\nhost = \"h\"\n[[users]]\nname = \"a\"\npassword = \"b\"\n";
        let config = Config::parse(Path::new("f.toml"), &format!("{servers}{cache}"));
        config.and_then(|config| Topology::new(&config, 1)).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_section_nothing_is_cached() {
        let topology = topology("").unwrap();
        assert_eq!(topology.process.cache, None);
        assert!(!topology.database("shop").unwrap().caching.enabled);
    }

    #[test]
    fn the_first_rule_that_names_a_table_holds() {
        let rules = "[cache]\nenabled = true\nmemory = \"1MiB\"\nttl = \"1m\"\npolicy = \"lru\"\n\
             [[cache.rules]]\ntables = [\"audit.log\", \"sessions\"]\ncache = false\n\
             [[cache.rules]]\ntables = [\"sessions\", \"log\"]\nttl = \"10m\"\n";
        let topology = topology(rules).unwrap();
        let caching = &topology.database("shop").unwrap().caching;
        assert_eq!(caching.ttl_of("public", "sessions"), None);
        assert_eq!(caching.ttl_of("audit", "log"), None);
        assert_eq!(caching.ttl_of("public", "log"), Some(Duration::from_secs(600)));
        assert_eq!(caching.ttl_of("public", "users"), Some(Duration::from_secs(60)));
        let limits = topology.process.cache.unwrap();
        // The store must not drop what a rule keeps longer.
        assert_eq!((limits.memory, limits.ttl), (1 << 20, Duration::from_secs(600)));
        assert_eq!(limits.policy, EvictionPolicy::Lru);
    }

    #[test]
    fn what_cannot_be_done_is_refused_where_it_stands() {
        for (text, refusal) in [
            ("invalidation = \"writes_and_stream\"", "f.toml:9:16: invalidation = \"writes_and_stream\" is not in"),
            ("ttl = \"0s\"", "f.toml:9:7: ttl bounds every entry's life"),
            ("memory = 0", "f.toml:9:10: no memory holds nothing"),
            ("max_result = 0", "f.toml:9:14: no answer is of no size"),
            ("policy = \"mru\"", "f.toml:9:10: unknown value \"mru\""),
            ("max_invalidation_lag = \"1s\"", "f.toml:9:1: \"cache.max_invalidation_lag\" is not in this version"),
            ("[[cache.rules]]\ntables = []", "f.toml:10:10: a rule for no table"),
            ("[[cache.rules]]\ntables = [\"a\"]\nttl = \"0s\"", "f.toml:11:7: ttl bounds every entry's life"),
            ("[[cache.rules]]\ntables = [\"a\"]\nttl = \"1s\"\ncache = false", "f.toml:11:7: a ttl for what is not"),
        ] {
            let error = topology(&format!("[cache]\nenabled = true\n{text}\n")).unwrap_err();
            assert!(error.starts_with(refusal), "{text}: {error}");
        }
    }
}
