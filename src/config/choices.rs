//! Values that are one word of a few.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    /// Each statement: where it went, not what it said.
    Debug,
    Trace,
}

impl LogLevel {
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfiguredRole {
    #[default]
    Primary,
    Replica,
    /// Asked of the server.
    Auto,
}

/// libpq's `sslmode` as far as it makes sense between a proxy and its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerTls {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What clients may or must do about encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientTlsMode {
    Disable,
    #[default]
    Prefer,
    Require,
    /// Clients must show a certificate.
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolerMode {
    Session,
    Transaction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadWriteSplit {
    /// Reads go to replicas; to the primary only when none is fit.
    ExcludePrimary,
    /// The primary takes its share of reads.
    IncludePrimary,
    /// Every statement goes to the primary.
    PrimaryOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    Ewma,
    LeastConnections,
    RoundRobin,
    Random,
}

/// What a read may miss (see `balance`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    Eventual,
    Session,
    Global,
    Strong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CrossShardWrites {
    TwoPhase,
    Refuse,
}

/// Which cached answers make room for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvictionPolicy {
    /// Those asked for least (TinyLFU).
    #[default]
    Lfu,
    /// Those not asked for for longest.
    Lru,
}

/// How the cache learns of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invalidation {
    /// They go through this process.
    #[default]
    Writes,
    /// And by logical decoding, those of others.
    WritesAndStream,
}

/// How a client proves to be the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// By the password or the SCRAM verifier.
    #[default]
    Scram,
    /// By the password's MD5 hash: for old drivers.
    Md5,
    /// By telling the password: over TLS only.
    Password,
    /// By what the servers keep of the password, SCRAM verifier or MD5 hash.
    Query,
    /// By telling the password, with which the server is asked whether it is right.
    Passthrough,
    /// By a certificate in the user's name.
    Cert,
    /// Not at all.
    Trust,
}

/// How a rule of `[[hba]]` wants it proved, or that it is no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[serde(rename = "scram-sha-256")]
    Scram,
    Md5,
    Password,
    Cert,
    Trust,
    Reject,
}

/// The certificate that a rule asks for beside another proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// Anybody's who is known to `client_ca`.
    VerifyCa,
    /// The user's own.
    VerifyFull,
}

/// What of a certificate is the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum CertificateName {
    #[default]
    CN,
    DN,
}

/// How encryption towards a server begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsNegotiation {
    /// The server is asked first.
    #[default]
    Postgres,
    /// At once, by a TLS handshake that names the protocol: PostgreSQL 17.
    Direct,
}

/// The type of a shard key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    #[default]
    Bigint,
    Integer,
    Uuid,
    Text,
    Date,
    Timestamptz,
}
