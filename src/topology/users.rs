//! Who may log in, and by what.

use std::collections::HashSet;
use std::sync::Arc;

use super::access::ANYBODY;
use super::build::{Builder, EMPTY_POOL};
use super::found::OTHERS;
use super::{Credential, User, UserDatabases};
use crate::config::{Auth, OneOrMany, SecretEntry, UserEntry};

impl Builder<'_> {
    pub(super) fn users(&mut self) -> Vec<Arc<User>> {
        let config = self.config;
        let mut seen = HashSet::new();
        let mut users = Vec::new();
        for (index, entry) in config.users.iter().enumerate() {
            let databases = self.user_databases(index, entry);
            let keys = match &databases {
                UserDatabases::All => vec!["*".to_owned()],
                UserDatabases::Named(names) => names.clone(),
            };
            for key in keys {
                if !seen.insert((entry.name.clone(), key)) {
                    let message = format!("user \"{}\" stands twice for the same database", entry.name);
                    self.problem(message, format!("users.{index}.name"), "One entry for each user and database.");
                }
            }
            users.push(Arc::new(self.user(index, entry, databases)));
        }
        if users.is_empty() && !config.databases.is_empty() {
            self.problem("no [[users]]", "", "Name those who may connect.");
        }
        for (index, name) in config.general.admin_users.iter().enumerate() {
            if !users.iter().any(|user| user.name == *name || user.name == ANYBODY) {
                let at = format!("general.admin_users.{index}");
                self.problem(format!("no user \"{name}\""), at, "Name one of the [[users]].");
            }
        }
        users
    }

    fn user_databases(&mut self, index: usize, entry: &UserEntry) -> UserDatabases {
        let names = match &entry.database {
            OneOrMany::One(name) if name == "*" => return UserDatabases::All,
            OneOrMany::One(name) => vec![name.clone()],
            OneOrMany::Many(names) => names.clone(),
        };
        for name in &names {
            if !self.config.databases.iter().any(|database| database.name == *name || database.name == OTHERS) {
                let at = format!("users.{index}.database");
                self.problem(format!("no database \"{name}\""), at, "Name one of the [[databases]], or \"*\".");
            }
        }
        UserDatabases::Named(names)
    }

    fn user(&mut self, index: usize, entry: &UserEntry, databases: UserDatabases) -> User {
        let general = &self.config.general;
        let at = |key: &str| format!("users.{index}.{key}");
        let password = self.credential(index, entry);
        self.check_way(index, entry);
        if entry.pool_size == Some(0) {
            self.problem(EMPTY_POOL, at("pool_size"), "Give 1 or more.");
        }
        let most = entry.pool_size.unwrap_or(general.default_pool_size);
        if let Some(least) = entry.min_pool_size.filter(|least| *least > most) {
            let message = format!("min_pool_size {least} is more than the pool's {most}");
            self.problem(message, at("min_pool_size"), "Raise pool_size, too.");
        }
        User {
            name: entry.name.clone(),
            databases,
            auth: entry.auth,
            server_password: entry.server_password.as_ref().map(|secret| secret.value().clone()),
            password,
            server_user: entry.server_user.clone(),
            pool_size: entry.pool_size,
            min_pool_size: entry.min_pool_size.unwrap_or(general.min_pool_size),
            pooler_mode: entry.pooler_mode,
            consistency: entry.consistency,
        }
    }

    /// What proofs are checked against.
    fn credential(&mut self, index: usize, entry: &UserEntry) -> Credential {
        let at = |key: &str| format!("users.{index}.{key}");
        let secret = |entry: &SecretEntry| entry.value().clone();
        if let (Some(_), Some(_)) = (&entry.password, &entry.passwords) {
            let message = format!("user \"{}\" has both password and passwords", entry.name);
            self.problem(message, at("name"), "Put all of them into passwords.");
        }
        if entry.passwords.as_ref().is_some_and(Vec::is_empty) {
            self.problem("an empty list of passwords", at("passwords"), "Give one or more.");
        }
        let passwords = entry.passwords.as_deref().or(entry.password.as_ref().map(std::slice::from_ref));
        match (entry.auth, passwords, &entry.scram_verifier) {
            (Auth::Query, None, None) => Credential::Query,
            (Auth::Query, _, _) => {
                let help = "Leave password and scram_verifier out, or auth.";
                self.problem("the servers are asked for what is given here", at("auth"), help);
                Credential::Query
            }
            (Auth::Passthrough, None, None) => Credential::Passthrough,
            (Auth::Passthrough, _, _) => {
                let help = "Leave password and scram_verifier out, or auth.";
                self.problem("the servers are asked whether a password is right", at("auth"), help);
                Credential::Passthrough
            }
            (_, Some(passwords), _) => Credential::Passwords(passwords.iter().map(secret).collect()),
            (Auth::Md5, None, _) => {
                let message = format!("md5 needs the password of user \"{}\"", entry.name);
                self.problem(message, at("auth"), "Give password: of a SCRAM verifier there is no MD5 hash.");
                Credential::Nothing
            }
            (_, None, Some(verifier)) => Credential::ScramVerifier(secret(verifier)),
            (Auth::Trust | Auth::Cert, None, None) => Credential::Nothing,
            (Auth::Scram | Auth::Password, None, None) => {
                let help = "Give password, scram_verifier, or auth = \"trust\".";
                self.problem(format!("user \"{}\" has no password", entry.name), at("name"), help);
                Credential::Nothing
            }
        }
    }

    /// What `auth` needs.
    fn check_way(&mut self, index: usize, entry: &UserEntry) {
        let at = format!("users.{index}.auth");
        if entry.name == ANYBODY && !matches!(entry.auth, Auth::Query | Auth::Passthrough) {
            let help = "Give auth = \"query\" or \"passthrough\", or the user's name.";
            self.problem("everybody is whom the servers know", format!("users.{index}.name"), help);
        }
        if entry.name == ANYBODY && entry.min_pool_size.is_some_and(|least| least > 0) {
            let help = "Leave it out: it is not known beforehand who comes.";
            self.problem("no pool of everybody can be filled", format!("users.{index}.min_pool_size"), help);
        }
        if entry.auth == Auth::Query && self.config.control.is_none() {
            let help = "Give [control]: a role that may read pg_authid, or call the function of auth_query.";
            self.problem("nobody is named who may ask for passwords", at, help);
        } else if entry.auth == Auth::Passthrough && self.config.control.is_none() {
            let help = "Give [control]: what clients tell of their passwords is theirs alone.";
            self.problem("nobody is named who may look at the servers", at, help);
        } else if matches!(entry.auth, Auth::Password | Auth::Passthrough)
            && !self.is_tls_offered()
            && self.config.general.unix_socket_dir.is_none()
        {
            let help = "Give [general.tls] or unix_socket_dir, or leave auth out.";
            self.problem("passwords are told over TLS or a UNIX socket only", at, help);
        } else if entry.auth == Auth::Cert && !self.asks_for_certificates() {
            let help = "Give [general.tls] with client_ca, the PEM file of who signs clients.";
            self.problem("no client certificate can be checked", at, help);
        }
    }
}
