//! Numbered SQL files, applied to the primaries of all shards: to all of them or to none.
//!
//! A run is one transaction per shard, prepared everywhere before it is committed anywhere. A run that died between
//! the two is finished by the next one: rolled back, unless some shard has already committed it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use futures_util::future::{join_all, try_join_all};
use sha2::{Digest, Sha256};

use super::connect::{Client, Login, SqlError, connect};
use crate::statement::{quoted_literal, quoted_name};

/// A folder of numbered SQL files.
#[derive(Clone, Debug)]
pub struct Migrations {
    /// The folder's name, under which its files are recorded.
    folder: String,
    /// In the order of their numbers.
    files: Vec<File>,
    /// The role that is to own what the files make; `None`: whoever logs in.
    role: Option<String>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    sql: String,
    checksum: String,
}

/// What a run did: one line per file and shard, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// (index of the shard among the servers, `folder/file`).
    pub applied: Vec<(usize, String)>,
}

/// Why a run changed nothing, or, where it says so, not everything.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: std::io::Error },
    #[error("{path}: a migration's name starts with a number of its own, as in 0001_users.sql")]
    Name { path: String },
    #[error("{file} was changed after it was applied on {server}: put the change into a new file")]
    Changed { file: String, server: String },
    #[error("{file} failed, nothing was changed on any shard: {cause}")]
    File { file: String, cause: SqlError },
    #[error("nothing was changed on any shard: {0}")]
    Server(#[from] SqlError),
    #[error("committed on {done} of {all} shards, then: {cause}; run it again to finish the others")]
    Partial { done: usize, all: usize, cause: SqlError },
}

impl Migrations {
    /// What pgweir needs on the servers for itself: schema `pgweir`.
    pub fn own() -> Self {
        let files = OWN.iter().map(|(name, sql)| File::new((*name).to_owned(), (*sql).to_owned()));
        Self { folder: "pgweir".to_owned(), files: files.collect(), role: None }
    }

    /// The demo's shop.
    pub fn shop() -> Self {
        let files = SHOP.iter().map(|(name, sql)| File::new((*name).to_owned(), (*sql).to_owned()));
        Self { folder: "shop".to_owned(), files: files.collect(), role: None }
    }

    /// All `*.sql` files of a folder; other files are not looked at.
    pub fn read(folder: &Path) -> Result<Self, MigrateError> {
        let error = |path: &Path, cause| MigrateError::Io { path: path.display().to_string(), cause };
        let full = folder.canonicalize().map_err(|cause| error(folder, cause))?;
        let mut numbered = Vec::new();
        for entry in fs::read_dir(&full).map_err(|cause| error(folder, cause))? {
            let path = entry.map_err(|cause| error(folder, cause))?.path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                let sql = fs::read_to_string(&path).map_err(|cause| error(&path, cause))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let number = number(&name).ok_or_else(|| MigrateError::Name { path: path.display().to_string() })?;
                numbered.push((number, File::new(name, sql)));
            }
        }
        numbered.sort_by_key(|(number, _)| *number);
        if let Some(pair) = numbered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(MigrateError::Name { path: full.join(&pair[1].1.name).display().to_string() });
        }
        let folder = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { folder, files: numbered.into_iter().map(|(_, file)| file).collect(), role: None })
    }

    /// Runs the files as `role`, so that it owns what they make.
    #[must_use]
    pub fn run_as(mut self, role: &str) -> Self {
        self.role = Some(role.to_owned());
        self
    }

    fn path(&self, file: &File) -> String {
        format!("{}/{}", self.folder, file.name)
    }
}

impl File {
    fn new(name: String, sql: String) -> Self {
        let mut checksum = String::with_capacity(64);
        for byte in Sha256::digest(sql.as_bytes()) {
            write!(checksum, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Self { name, sql, checksum }
    }
}

/// Applies what is not yet applied, pgweir's own schema first, to every server: on all of them or on none.
///
/// Two runs at once wait for each other.
pub async fn apply(servers: &[Login], folders: &[Migrations]) -> Result<Report, MigrateError> {
    let own = Migrations::own();
    let folders: Vec<&Migrations> = std::iter::once(&own).chain(folders).collect();
    let mut clients = Vec::new();
    for server in servers {
        let client = connect(server).await?;
        // Every run takes the locks in the order of the servers. They end with the session, whatever happens to us.
        client.batch(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
        clients.push(client);
    }
    finish_dead_runs(&clients).await?;
    let run = format!("{RUN_PREFIX}{:032x}", rand::random::<u128>());
    let applied = try_join_all(clients.iter().map(|client| apply_on(client, &folders, &run))).await?;
    let changed: Vec<(usize, &Client)> =
        clients.iter().enumerate().filter(|(shard, _)| !applied[*shard].is_empty()).collect();
    commit(&changed, &run).await?;
    let lines = applied.into_iter().enumerate();
    Ok(Report { applied: lines.flat_map(|(shard, files)| files.into_iter().map(move |file| (shard, file))).collect() })
}

/// Runs in one open transaction what this server lacks: the files' names.
async fn apply_on(client: &Client, folders: &[&Migrations], run: &str) -> Result<Vec<String>, MigrateError> {
    client.batch("BEGIN").await?;
    let recorded = recorded(client).await?;
    let mut applied = Vec::new();
    for folder in folders {
        for file in &folder.files {
            match recorded.iter().find(|(name, _)| *name == folder.path(file)) {
                None => {
                    run_file(client, folder, file, run).await?;
                    applied.push(folder.path(file));
                }
                Some((_, checksum)) if *checksum == file.checksum => {}
                Some((file, _)) => {
                    let server = client.server().to_owned();
                    return Err(MigrateError::Changed { file: file.clone(), server });
                }
            }
        }
    }
    Ok(applied)
}

/// `EXECUTE` refuses BEGIN and COMMIT, with which a file could end the transaction that makes the run one.
async fn run_file(client: &Client, folder: &Migrations, file: &File, run: &str) -> Result<(), MigrateError> {
    let failed = |cause| MigrateError::File { file: folder.path(file), cause };
    if let Some(role) = &folder.role {
        client.batch(&format!("SET LOCAL ROLE {}", quoted_name(role))).await?;
    }
    client.execute("SELECT set_config('pgweir.migration', $1, true)", &[&file.sql]).await?;
    client.batch("DO $$BEGIN EXECUTE current_setting('pgweir.migration'); END$$").await.map_err(failed)?;
    client.batch("RESET ROLE").await?;
    let record = "INSERT INTO pgweir.migrations (name, sha256, run) VALUES ($1, $2, $3)";
    client.execute(record, &[&folder.path(file), &file.checksum, run]).await?;
    Ok(())
}

/// (name, checksum) of what a server has had.
async fn recorded(client: &Client) -> Result<Vec<(String, String)>, SqlError> {
    if client.rows(RECORDED).await?.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.rows("SELECT name, sha256 FROM pgweir.migrations").await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().collect::<Option<Vec<_>>>()).filter_map(pair).collect())
}

fn pair(row: Vec<String>) -> Option<(String, String)> {
    let [name, checksum] = <[String; 2]>::try_from(row).ok()?;
    Some((name, checksum))
}

/// Two phases where there is something to agree on and every server can.
async fn commit(changed: &[(usize, &Client)], run: &str) -> Result<(), MigrateError> {
    let two_phases = changed.len() > 1 && can_prepare(changed).await?;
    if two_phases {
        prepare(changed, run).await?;
    }
    for (done, (shard, client)) in changed.iter().enumerate() {
        let sql = if two_phases { format!("COMMIT PREPARED '{run}:{shard}'") } else { "COMMIT".to_owned() };
        let partial = |cause| MigrateError::Partial { done, all: changed.len(), cause };
        client.batch(&sql).await.map_err(partial)?;
    }
    Ok(())
}

async fn can_prepare(changed: &[(usize, &Client)]) -> Result<bool, SqlError> {
    for (_, client) in changed {
        let rows = client.rows("SHOW max_prepared_transactions").await?;
        if rows == [[Some("0".to_owned())]] {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn prepare(changed: &[(usize, &Client)], run: &str) -> Result<(), SqlError> {
    let each = changed.iter().map(|&(shard, client)| async move {
        let sql = format!("PREPARE TRANSACTION '{run}:{shard}'");
        client.batch(&sql).await
    });
    let prepared = join_all(each).await;
    let Some(cause) = prepared.into_iter().find_map(Result::err) else { return Ok(()) };
    for (shard, client) in changed {
        // Whoever failed to prepare has nothing to roll back; what else is left over, the next run clears.
        let _ = client.batch(&format!("ROLLBACK PREPARED '{run}:{shard}'")).await;
    }
    Err(cause)
}

/// Transactions that a run left prepared. It is dead: its sessions would still hold the locks that we have.
async fn finish_dead_runs(clients: &[Client]) -> Result<(), SqlError> {
    let prepared = format!(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, '{RUN_PREFIX}')"
    );
    for client in clients {
        for gid in client.rows(&prepared).await?.into_iter().flatten().flatten() {
            let run = gid.rsplit_once(':').map_or(gid.as_str(), |(run, _)| run);
            let verb = if committed_anywhere(clients, run).await? { "COMMIT" } else { "ROLLBACK" };
            client.batch(&format!("{verb} PREPARED {}", quoted_literal(&gid))).await?;
        }
    }
    Ok(())
}

async fn committed_anywhere(clients: &[Client], run: &str) -> Result<bool, SqlError> {
    for client in clients {
        if client.rows(RECORDED).await?.is_empty() {
            continue;
        }
        let sql = format!("SELECT 1 FROM pgweir.migrations WHERE run = {} LIMIT 1", quoted_literal(run));
        if !client.rows(&sql).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number that a file's name starts with.
fn number(name: &str) -> Option<u64> {
    let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    name[..digits].parse().ok()
}

/// Says whether the server has a table of what it has had.
const RECORDED: &str = "SELECT 1 WHERE to_regclass('pgweir.migrations') IS NOT NULL";

/// Key of the advisory lock that one run holds: "pgweir" in ASCII.
const LOCK: i64 = 0x7067_7765_6972;

const RUN_PREFIX: &str = "pgweir-migrate:";

const OWN: &[(&str, &str)] = &[
    ("0001_migrations.sql", include_str!("../../migrations/pgweir/0001_migrations.sql")),
    ("0002_decisions.sql", include_str!("../../migrations/pgweir/0002_decisions.sql")),
    ("0003_marks.sql", include_str!("../../migrations/pgweir/0003_marks.sql")),
    ("0004_parties.sql", include_str!("../../migrations/pgweir/0004_parties.sql")),
    ("0005_unique.sql", include_str!("../../migrations/pgweir/0005_unique.sql")),
];

const SHOP: &[(&str, &str)] = &[
    ("0001_catalog.sql", include_str!("../../migrations/shop/0001_catalog.sql")),
    ("0002_users.sql", include_str!("../../migrations/shop/0002_users.sql")),
    ("0003_orders.sql", include_str!("../../migrations/shop/0003_orders.sql")),
    ("0004_social.sql", include_str!("../../migrations/shop/0004_social.sql")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10_last.sql", "2_second.sql", "0001_first.sql", "README.md"] {
            fs::write(folder.path().join(name), "select 1").unwrap();
        }
        let names: Vec<_> = Migrations::read(folder.path()).unwrap().files.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["0001_first.sql", "2_second.sql", "10_last.sql"]);
    }

    #[test]
    fn names_without_a_number_of_their_own_are_refused() {
        for names in [["users.sql", "1_a.sql"], ["1_a.sql", "01_b.sql"]] {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                fs::write(folder.path().join(name), "select 1").unwrap();
            }
            let refused = Migrations::read(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("starts with a number of its own"), "{refused}");
        }
    }

    /// A file that is in the folder and not in the binary would be applied by nobody.
    #[test]
    fn every_file_is_embedded() {
        for embedded in [Migrations::own(), Migrations::shop()] {
            let read = Migrations::read(&Path::new("migrations").join(&embedded.folder)).unwrap();
            let names = |migrations: &Migrations| migrations.files.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&embedded), names(&read));
        }
    }
}
