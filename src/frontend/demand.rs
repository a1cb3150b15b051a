//! What is demanded of a client: by the rules of `[[hba]]`, else by its user's own entry.

use super::login::Refusal;
use crate::error::{Error, SqlState};
use crate::topology::{
    Auth, CertificateName, ClientCertificate, Credential, Demand, Method, Topology, User, Verdict, Visitor,
};
use crate::wire::{Channel, certificate};

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Scram,
    /// By MD5 where the password or its MD5 hash is known; of a SCRAM verifier by SCRAM.
    Md5,
    /// As whatever is kept of the password allows; nobody knows what that is of who is not known.
    Kept,
    /// By telling the password.
    Told,
    /// By the certificate that it has shown already.
    Certificate,
    Trust,
}

pub(super) struct Demanded<'r> {
    pub way: Way,
    rule: Option<&'r Demand>,
}

impl<'r> Demanded<'r> {
    pub(super) fn of(topology: &'r Topology, visitor: &Visitor<'_>, user: Option<&User>) -> Result<Self, Refusal> {
        let rule = match topology.rules.verdict(visitor) {
            Verdict::AsEver => None,
            Verdict::By(demand) => Some(demand),
            Verdict::Rejected => return Err(refused("pg_hba.conf rejects connection", visitor).into()),
            Verdict::NoRule => return Err(refused("no pg_hba.conf entry", visitor).into()),
        };
        let own = || user.map_or(Way::Scram, |user| own_way(user.auth));
        let is_asked = |user: &User| user.password == Credential::Query;
        let way = match rule.and_then(|demand| demand.method) {
            None | Some(Method::Reject) => own(),
            Some(Method::Scram) => Way::Scram,
            Some(Method::Md5) => match user {
                Some(user) if !is_asked(user) => Way::Md5,
                None if !topology.users.iter().any(|user| is_asked(user)) => Way::Md5,
                _ => Way::Kept,
            },
            Some(Method::Password) => Way::Told,
            Some(Method::Cert) => Way::Certificate,
            Some(Method::Trust) => Way::Trust,
        };
        Ok(Self { way, rule })
    }

    /// Whether the client has to know a password.
    pub(super) fn is_of_password(&self) -> bool {
        !matches!(self.way, Way::Certificate | Way::Trust)
    }

    /// The certificate comes first: who has none is asked for nothing else.
    pub(super) fn check_certificate(&self, channel: &Channel, name: &str) -> Result<(), Error> {
        let beside = self.rule.and_then(|demand| demand.certificate);
        let is_named = self.way == Way::Certificate || beside == Some(ClientCertificate::VerifyFull);
        if !is_named && beside.is_none() {
            return Ok(());
        }
        // Others than those of `client_ca` have got no further than the handshake.
        let Some(shown) = channel.peer_certificate() else {
            return Err(Error::new(SqlState::INVALID_AUTHORIZATION, "connection requires a valid client certificate"));
        };
        if !is_named || self.stands_for(shown, name) {
            return Ok(());
        }
        let message = format!("certificate authentication failed for user \"{name}\"");
        Err(Error::new(SqlState::INVALID_AUTHORIZATION, message))
    }

    fn stands_for(&self, shown: &[u8], name: &str) -> bool {
        let identity = match self.rule.map(|demand| demand.identity).unwrap_or_default() {
            CertificateName::CN => certificate::common_name(shown),
            CertificateName::DN => certificate::distinguished_name(shown),
        };
        let map = self.rule.and_then(|demand| demand.map.as_ref());
        identity.is_some_and(|identity| match map {
            Some(map) => map.allows(&identity, name),
            None => identity == name,
        })
    }
}

fn own_way(auth: Auth) -> Way {
    match auth {
        Auth::Scram => Way::Scram,
        Auth::Md5 => Way::Md5,
        Auth::Password | Auth::Passthrough => Way::Told,
        Auth::Query => Way::Kept,
        Auth::Cert => Way::Certificate,
        Auth::Trust => Way::Trust,
    }
}

/// In PostgreSQL's words.
fn refused(what: &str, visitor: &Visitor<'_>) -> Error {
    let host = visitor.address.map_or("[local]".to_owned(), |address| address.to_string());
    let encryption = if visitor.is_encrypted { "SSL encryption" } else { "no encryption" };
    let (user, database) = (visitor.user, visitor.database);
    let message = format!("{what} for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}");
    Error::new(SqlState::INVALID_AUTHORIZATION, message).with_hint("So say the rules [[hba]] of pgweir.")
}
