//! `[[hba]]` and `[[ident]]`: who may come from where, and by what proof.

use serde::Deserialize;

use super::choices::{CertificateName, ClientCertificate, Method};
use super::sections::OneOrMany;

/// `[[hba]]`: the first rule that fits a connection decides, as in PostgreSQL's `pg_hba.conf`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HbaEntry {
    #[serde(default = "everything")]
    pub database: OneOrMany,
    #[serde(default = "everything")]
    pub user: OneOrMany,
    /// Networks, or "local".
    #[serde(default = "everything")]
    pub address: OneOrMany,
    pub tls: Option<bool>,
    /// Without one: as the user's own `auth` says.
    pub method: Option<Method>,
    pub clientcert: Option<ClientCertificate>,
    pub clientname: Option<CertificateName>,
    pub map: Option<String>,
}

/// `[[ident]]`: whom a certificate's name stands for, as in PostgreSQL's `pg_ident.conf`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentEntry {
    pub map: String,
    /// A name, or "/" and a regular expression.
    pub identity: String,
    /// May contain `\1`.
    pub user: String,
}

fn everything() -> OneOrMany {
    OneOrMany::One("*".to_owned())
}
