//! Whether every server is there and what it is configured to be.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Findings;
use crate::control::catalog::{flag, text};
use crate::control::connect::{Client, Login, SqlError, connect};
use crate::control::login;
use crate::topology::{ConfiguredRole, CrossShardWrites, Database, Role, Server, Topology};

/// Where a shard is written.
pub(super) struct Primary {
    pub client: Client,
    pub login: Login,
}

/// The primary of each shard, where there is just one.
pub(super) async fn look(database: &Database, topology: &Topology, findings: &mut Findings) -> Vec<Option<Primary>> {
    let mut primaries = Vec::new();
    for shard in &database.shards {
        let servers: Vec<&Server> = shard.servers.iter().map(|&id| &**topology.server(id)).collect();
        let answers = join_all(servers.iter().map(|server| ask(server, topology))).await;
        let number = Some(shard.id.0);
        let mut seen: Vec<Seen> = Vec::new();
        for (server, answer) in servers.iter().zip(answers) {
            match answer {
                Ok(found) => seen.push(found),
                Err(why) => drop(findings.fault(number, address(server), why)),
            }
        }
        seen.iter().for_each(|server| check_role(server, findings));
        let (leading, replicas): (Vec<_>, Vec<_>) = seen.into_iter().partition(|server| server.role == Role::Primary);
        let [primary] = <[Seen; 1]>::try_from(leading).map_or_else(
            |leading| {
                let all = leading.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(" and ");
                let what = if all.is_empty() { "no server".to_owned() } else { all };
                findings.fault(number, "primary", format!("{what} of this shard takes writes"));
                [None]
            },
            |[primary]| [Some(primary)],
        );
        if let Some(primary) = &primary {
            let is_needed = database.is_sharded() && database.cross_shard_writes == CrossShardWrites::TwoPhase;
            primary.check_primary(is_needed, &replicas, findings);
        }
        primaries.push(primary.map(|Seen { client, login, .. }| Primary { client, login }));
    }
    primaries
}

/// A server that answered.
struct Seen {
    client: Client,
    login: Login,
    shard: u16,
    address: String,
    configured: ConfiguredRole,
    role: Role,
    /// Same for a primary and its replicas, and for nobody else.
    identifier: String,
    max_prepared: u32,
}

async fn ask(server: &Server, topology: &Topology) -> Result<Seen, String> {
    let login = login(server, topology).ok_or("no password to log in with; give [control]")?;
    let asked = async {
        let client = connect(&login).await?;
        let rows = client.rows(STATE).await?;
        Ok::<_, SqlError>((client, rows))
    };
    let answer = timeout(topology.process.connect_timeout, asked).await;
    let (client, rows) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(cause)) => return Err(format!("does not let pgweir in: {cause}")),
        Err(_) => return Err("does not answer in time".to_owned()),
    };
    let row = rows.first().ok_or("answers nothing")?;
    Ok(Seen {
        client,
        login,
        shard: server.shard.0,
        address: address(server),
        configured: server.role,
        role: if flag(row, 0) { Role::Replica } else { Role::Primary },
        identifier: text(row, 1),
        max_prepared: text(row, 2).parse().unwrap_or(0),
    })
}

fn check_role(server: &Seen, findings: &mut Findings) {
    let (number, address) = (Some(server.shard), &server.address);
    match (server.configured, server.role) {
        (ConfiguredRole::Primary, Role::Replica) => {
            findings.fault(number, address, "is a replica, and is configured as the primary");
        }
        (ConfiguredRole::Replica, Role::Primary) => {
            findings.fault(number, address, "takes writes, and is configured as a replica");
        }
        _ => {}
    }
}

impl Seen {
    fn check_primary(&self, prepares: bool, replicas: &[Self], findings: &mut Findings) {
        if prepares && self.max_prepared == 0 {
            let what = "max_prepared_transactions is 0: writes over several shards are refused";
            findings.fault(Some(self.shard), &self.address, what).repair =
                Some("ALTER SYSTEM SET max_prepared_transactions = 100, then start the server anew".to_owned());
        }
        for replica in replicas.iter().filter(|replica| replica.identifier != self.identifier) {
            let what = format!("is a replica, but not of {}", self.address);
            findings.fault(Some(self.shard), &replica.address, what);
        }
    }
}

fn address(server: &Server) -> String {
    format!("{}:{}/{}", server.host, server.port, server.database_name)
}

const STATE: &str = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), \
     current_setting('max_prepared_transactions')";
