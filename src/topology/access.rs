//! Who may come from where, and by what proof (PostgreSQL documentation, 21.1 and 21.2).

use std::net::IpAddr;
use std::sync::Arc;

use regex::Regex;

use super::ADMIN;
use super::build::Builder;
use crate::config::{Auth, CertificateName, ClientCertificate, ClientTlsMode, HbaEntry, IdentEntry, Method, OneOrMany};

/// The rules in their order. None: everybody may come from everywhere.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

/// One rule: for whom it is, and what it says.
#[derive(Clone, Debug)]
struct Rule {
    databases: Names,
    users: Names,
    origin: Origin,
    /// `None`: with or without.
    tls: Option<bool>,
    demand: Demand,
}

/// What a rule says.
#[derive(Clone, Debug)]
pub struct Demand {
    /// `None`: as the user's own entry says.
    pub method: Option<Method>,
    /// A certificate beside the proof; with [`Method::Cert`] it is the proof.
    pub certificate: Option<ClientCertificate>,
    pub identity: CertificateName,
    /// Whom the certificate's name stands for; `None`: the user of just this name.
    pub map: Option<Arc<IdentMap>>,
}

/// A connection, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub database: &'a str,
    pub user: &'a str,
    /// `None`: it came by the UNIX socket.
    pub address: Option<IpAddr>,
    pub is_encrypted: bool,
}

/// What the rules say together.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'r> {
    /// There are no rules.
    AsEver,
    By(&'r Demand),
    Rejected,
    NoRule,
}

/// Whom names in certificates stand for.
#[derive(Clone, Debug)]
pub struct IdentMap(Vec<Ident>);

#[derive(Clone, Debug)]
struct Ident {
    identity: Name,
    user: String,
}

#[derive(Clone, Debug)]
enum Names {
    Any,
    Some(Vec<Name>),
}

#[derive(Clone, Debug)]
enum Name {
    Exactly(String),
    Like(Regex),
}

#[derive(Clone, Debug)]
enum Origin {
    Anywhere,
    Some { local: bool, networks: Vec<Network> },
}

/// Addresses whose first `bits` bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Rules {
    pub fn verdict(&self, visitor: &Visitor<'_>) -> Verdict<'_> {
        match self.0.iter().find(|rule| rule.fits(visitor)).map(|rule| &rule.demand) {
            Some(demand) if demand.method == Some(Method::Reject) => Verdict::Rejected,
            Some(demand) => Verdict::By(demand),
            None if self.0.is_empty() => Verdict::AsEver,
            None => Verdict::NoRule,
        }
    }
}

impl Rule {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        // A UNIX socket is neither encrypted nor in the clear.
        let tls = self.tls.is_none_or(|tls| visitor.address.is_some() && tls == visitor.is_encrypted);
        tls && self.origin.has(visitor.address) && self.databases.has(visitor.database) && self.users.has(visitor.user)
    }

    /// No connection gets past it.
    fn is_for_all(&self) -> bool {
        let is_any = |names: &Names| matches!(names, Names::Any);
        self.tls.is_none() && matches!(self.origin, Origin::Anywhere) && is_any(&self.databases) && is_any(&self.users)
    }
}

impl Demand {
    fn is_certificate_asked(&self) -> bool {
        self.method == Some(Method::Cert) || self.certificate.is_some()
    }
}

impl IdentMap {
    /// Whether the name in a certificate stands for this user.
    pub fn allows(&self, identity: &str, user: &str) -> bool {
        self.0.iter().any(|entry| match &entry.identity {
            Name::Exactly(name) => name == identity && entry.user == user,
            Name::Like(pattern) => pattern.captures(identity).is_some_and(|found| match found.get(1) {
                Some(group) => entry.user.replacen(GROUP, group.as_str(), 1) == user,
                None => !entry.user.contains(GROUP) && entry.user == user,
            }),
        })
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Some(names) => names.iter().any(|known| match known {
                Name::Exactly(known) => known == name,
                Name::Like(pattern) => pattern.is_match(name),
            }),
        }
    }

    fn exact(&self) -> impl Iterator<Item = &str> {
        let names = if let Self::Some(names) = self { names.as_slice() } else { &[] };
        names.iter().filter_map(|name| if let Name::Exactly(name) = name { Some(name.as_str()) } else { None })
    }
}

impl Name {
    /// A name, or what stands behind a slash.
    fn new(text: &str) -> Result<Self, String> {
        let Some(pattern) = text.strip_prefix('/') else { return Ok(Self::Exactly(text.to_owned())) };
        let reason = |cause: regex::Error| cause.to_string().lines().last().unwrap_or_default().trim().to_owned();
        Regex::new(pattern).map(Self::Like).map_err(reason)
    }
}

impl Origin {
    fn has(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Anywhere, _) => true,
            (Self::Some { local, .. }, None) => *local,
            (Self::Some { networks, .. }, Some(address)) => networks.iter().any(|network| network.has(address)),
        }
    }
}

impl Network {
    /// `10.0.0.0/8`, `fe80::/10`, or an address alone.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Self { address, bits })
    }

    /// The first address of the network.
    fn first(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & mask_of_32(self.bits)).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & mask_of_128(self.bits)).into()),
        };
        Self { address, ..self }
    }

    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u32::from(own) ^ u32::from(other)) & mask_of_32(self.bits) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own) ^ u128::from(other)) & mask_of_128(self.bits) == 0,
            _ => false,
        }
    }
}

fn mask_of_32(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn mask_of_128(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

impl Builder<'_> {
    pub(super) fn rules(&mut self) -> Rules {
        let config = self.config;
        for (index, entry) in config.ident.iter().enumerate() {
            if !config.hba.iter().any(|rule| rule.map.as_ref() == Some(&entry.map)) {
                let message = format!("no rule of [[hba]] has map \"{}\"", entry.map);
                self.problem(message, format!("ident.{index}.map"), "Name it in a rule, or leave it out.");
            }
        }
        let mut rules: Vec<Rule> = Vec::new();
        for (index, entry) in config.hba.iter().enumerate() {
            let Some(rule) = self.rule(index, entry) else { continue };
            if rules.iter().any(Rule::is_for_all) {
                let help = "Rules are tried in their order: put the one for all connections last.";
                self.problem("no connection gets to this rule", format!("hba.{index}"), help);
            }
            self.check_certificate(index, entry, &rule);
            self.check_tls(index, &rule);
            self.check_names_of(index, &rule);
            rules.push(rule);
        }
        Rules(rules)
    }

    fn rule(&mut self, index: usize, entry: &HbaEntry) -> Option<Rule> {
        let at = |key: &str| format!("hba.{index}.{key}");
        let databases = self.names(&entry.database, &at("database"))?;
        let users = self.names(&entry.user, &at("user"))?;
        let origin = self.origin(&entry.address, &at("address"))?;
        let map = match &entry.map {
            Some(name) => Some(Arc::new(self.ident_map(name, &at("map"))?)),
            None => None,
        };
        let identity = entry.clientname.unwrap_or_default();
        let demand = Demand { method: entry.method, certificate: entry.clientcert, identity, map };
        Some(Rule { databases, users, origin, tls: entry.tls, demand })
    }

    fn names(&mut self, written: &OneOrMany, at: &str) -> Option<Names> {
        let names = match written {
            OneOrMany::One(name) if name == "*" => return Some(Names::Any),
            OneOrMany::One(name) => std::slice::from_ref(name),
            OneOrMany::Many(names) => names,
        };
        if names.is_empty() {
            self.problem("an empty list fits nothing", at, "Name somebody, or leave the key out for all.");
        }
        if names.iter().any(|name| name == "*") {
            self.problem("\"*\" is no name of a list", at, "Leave the key out for all.");
        }
        names.iter().map(|name| self.name(name, at)).collect::<Option<_>>().map(Names::Some)
    }

    fn name(&mut self, text: &str, at: &str) -> Option<Name> {
        let name = Name::new(text);
        if let Err(why) = &name {
            self.problem(format!("\"{text}\" is no regular expression: {why}"), at, REGEX);
        }
        name.ok()
    }

    fn origin(&mut self, written: &OneOrMany, at: &str) -> Option<Origin> {
        let texts = match written {
            OneOrMany::One(text) if text == "*" => return Some(Origin::Anywhere),
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts,
        };
        if texts.is_empty() {
            self.problem("an empty list fits nothing", at, "Name a network, or leave the key out for all.");
        }
        let is_local = |text: &&String| *text == LOCAL;
        let local = texts.iter().any(|text| is_local(&text));
        if local && self.config.general.unix_socket_dir.is_none() {
            self.problem("no UNIX socket is listened on", at, "Give unix_socket_dir, or leave \"local\" out.");
        }
        let networks = texts.iter().filter(|text| !is_local(text)).map(|text| self.network(text, at));
        Some(Origin::Some { local, networks: networks.collect::<Option<_>>()? })
    }

    fn network(&mut self, text: &str, at: &str) -> Option<Network> {
        let Some(network) = Network::parse(text) else {
            let help = "Give an address, a network as \"10.0.0.0/8\" or \"fd00::/8\", or \"local\".";
            self.problem(format!("\"{text}\" is no address"), at, help);
            return None;
        };
        // Whatever socket it came by, such a connection counts as one from an IPv4 address.
        if let IpAddr::V6(address) = network.address
            && let Some(address) = address.to_ipv4_mapped()
        {
            let help = format!("Give it as \"{address}\".");
            self.problem(format!("\"{text}\" is an IPv4 address"), at, &help);
            return None;
        }
        let first = network.first();
        if first != network {
            let help = format!("The network of this address is \"{}/{}\".", first.address, first.bits);
            self.problem(format!("\"{text}\" has bits behind its mask"), at, &help);
        }
        Some(network)
    }

    fn ident_map(&mut self, name: &str, at: &str) -> Option<IdentMap> {
        let config = self.config;
        let entries = config.ident.iter().enumerate().filter(|(_, entry)| entry.map == name);
        let idents = entries.map(|(index, entry)| self.ident(index, entry)).collect::<Option<Vec<_>>>()?;
        if idents.is_empty() {
            self.problem(format!("no [[ident]] has map \"{name}\""), at, "Give one, or leave map out.");
        }
        Some(IdentMap(idents))
    }

    fn ident(&mut self, index: usize, entry: &IdentEntry) -> Option<Ident> {
        let identity = self.name(&entry.identity, &format!("ident.{index}.identity"))?;
        let has_group = matches!(&identity, Name::Like(pattern) if pattern.captures_len() > 1);
        if entry.user.contains(GROUP) && !has_group {
            let help = "Give identity = \"/…(…)…\": what stands in the parentheses is \\1.";
            self.problem("there is nothing that \\1 could be", format!("ident.{index}.user"), help);
        }
        Some(Ident { identity, user: entry.user.clone() })
    }

    fn check_certificate(&mut self, index: usize, entry: &HbaEntry, rule: &Rule) {
        let at = |key: &str| format!("hba.{index}.{key}");
        let demand = &rule.demand;
        let by = if demand.method == Some(Method::Cert) { at("method") } else { at("clientcert") };
        if demand.is_certificate_asked() {
            if !self.asks_for_certificates() {
                let help = "Give [general.tls] with client_ca, the PEM file of who signs clients.";
                self.problem("no client certificate can be checked", by, help);
            } else if rule.tls != Some(true) {
                let help = "Give tls = true; rules below it are then for the others.";
                self.problem("certificates are shown over TLS only", by, help);
            }
        }
        let reads_name =
            demand.method == Some(Method::Cert) || demand.certificate == Some(ClientCertificate::VerifyFull);
        let unread = [("map", entry.map.is_some()), ("clientname", entry.clientname.is_some())];
        for (key, _) in unread.iter().filter(|(_, given)| *given && !reads_name) {
            let help = "Give method = \"cert\" or clientcert = \"verify-full\".";
            self.problem(format!("no certificate's name is read that {key} could be for"), at(key), help);
        }
        if demand.certificate.is_some() && matches!(demand.method, Some(Method::Cert | Method::Reject)) {
            let help = "Leave clientcert out: \"cert\" asks for one by itself, \"reject\" for nothing.";
            self.problem("clientcert is beside another proof", at("clientcert"), help);
        }
    }

    fn check_tls(&mut self, index: usize, rule: &Rule) {
        let at = |key: &str| format!("hba.{index}.{key}");
        let only_local = matches!(&rule.origin, Origin::Some { local: true, networks } if networks.is_empty());
        if rule.tls.is_some() && only_local {
            self.problem("there is no TLS on a UNIX socket", at("tls"), "Leave it out: nobody listens in there.");
        } else if rule.tls == Some(true) && !self.is_tls_offered() {
            self.problem("no connection is encrypted", at("tls"), "Give [general.tls], or leave the rule out.");
        }
        let is_heard = match rule.tls {
            Some(tls) => !tls,
            None => !self.is_tls_offered() && self.config.general.unix_socket_dir.is_none(),
        };
        if rule.demand.method == Some(Method::Password) && is_heard {
            let help = "Give tls = true, or address = \"local\".";
            self.problem("passwords are told over TLS or a UNIX socket only", at("method"), help);
        }
    }

    /// Names that stand for nobody, and users who cannot prove what is asked of them.
    fn check_names_of(&mut self, index: usize, rule: &Rule) {
        let config = self.config;
        let is_database = |name: &str| name == ADMIN || config.databases.iter().any(|known| known.name == name);
        for name in rule.databases.exact().filter(|name| !is_database(name)) {
            let message = format!("no database \"{name}\"");
            self.problem(message, format!("hba.{index}.database"), "Name one of the [[databases]], or \"pgweir\".");
        }
        let asks_password = matches!(rule.demand.method, Some(Method::Scram | Method::Md5 | Method::Password));
        for name in rule.users.exact() {
            let mut entries = config.users.iter().filter(|user| user.name == name).peekable();
            if entries.peek().is_none() && !config.users.iter().any(|user| user.name == ANYBODY) {
                let at = format!("hba.{index}.user");
                self.problem(format!("no user \"{name}\""), at, "Name one of the [[users]].");
            }
            let mut has_none = entries.filter(|user| {
                let has = user.password.is_some() || user.passwords.is_some() || user.scram_verifier.is_some();
                let tells = user.auth == Auth::Passthrough && rule.demand.method == Some(Method::Password);
                !has && !tells && user.auth != Auth::Query
            });
            if asks_password && has_none.next().is_some() {
                let help = "Give the user a password, or the rule another method.";
                self.problem(format!("user \"{name}\" has no password"), format!("hba.{index}.method"), help);
            }
        }
    }

    pub(super) fn is_tls_offered(&self) -> bool {
        self.config.general.tls.as_ref().is_some_and(|tls| tls.mode != ClientTlsMode::Disable)
    }

    pub(super) fn asks_for_certificates(&self) -> bool {
        self.is_tls_offered() && self.config.general.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
}

/// Of connections by the UNIX socket.
const LOCAL: &str = "local";
/// In the user of an `[[ident]]`: what the first parentheses of the regular expression have found.
const GROUP: &str = "\\1";
/// The user that stands for everybody whom the servers know.
pub(super) const ANYBODY: &str = "*";
const REGEX: &str = "What begins with \"/\" is one, in the syntax of the Rust crate regex.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_the_addresses_that_begin_as_they_do() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("10.1.2.2/31", "10.1.2.3", true),
            ("10.1.2.2/31", "10.1.2.4", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
            ("::ffff:1.2.3.4", "1.2.3.4", false),
        ] {
            assert_eq!(Network::parse(network).unwrap().has(address.parse().unwrap()), expected, "{network} {address}");
        }
        for text in
            ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0", "localhost", "10.0.0.0/8/8", "1.2.3.4/"]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_in_certificates_stand_for_users() {
        let entry =
            |identity: &str, user: &str| Ident { identity: Name::new(identity).unwrap(), user: user.to_owned() };
        let map = IdentMap(vec![
            entry("carla", "app"),
            entry("carla", "admin"),
            entry(r"/^(.+)@shop\.example$", r"\1"),
            entry(r"/^robot-\d+$", "robot"),
            entry(r"/^([a-z]*):x$", r"\1_\1"),
            entry(r"/^none(1)?$", r"perhaps\1"),
        ]);
        for (identity, user, expected) in [
            ("carla", "app", true),
            ("carla", "admin", true),
            ("carla", "carla", false),
            ("carl", "app", false),
            ("eve@shop.example", "eve", true),
            ("eve@shop.example", "app", false),
            ("eve@shop.example.org", "eve", false),
            ("@shop.example", "", false),
            ("robot-12", "robot", true),
            ("robot-x", "robot", false),
            // As in PostgreSQL, the first \1 alone is one.
            ("a:x", r"a_\1", true),
            ("a:x", "a_a", false),
            ("none1", "perhaps1", true),
            ("none", "perhaps", false),
        ] {
            assert_eq!(map.allows(identity, user), expected, "{identity} {user}");
        }
    }
}
