//! The proxy's configuration for a dev cluster.

use std::fmt::Write;

use super::cluster::{APP, DATABASE, SUPERUSER};
use super::load::ranges;
use super::server::HOST;
use super::{Cluster, Role};

/// The text of `pgweir.toml`.
pub(super) fn toml(cluster: &Cluster, port: u16, admin_http: u16) -> String {
    format!(
        "# Written by `pgweir dev` at every start.\n\n\
         [general]\nhost = \"{HOST}\"\nport = {port}\nadmin_http = \"{HOST}:{admin_http}\"\n\
         admin_users = [\"{APP}\"]\n\n[cache]\nenabled = true\n\n{}",
        tables(cluster)
    )
}

/// All but `[general]`: the cluster's servers, users and key ranges.
pub fn tables(cluster: &Cluster) -> String {
    let state = cluster.state();
    let mut text = format!(
        "[control]\nuser = \"{SUPERUSER}\"\npassword = {:?}\n\n\
         [[users]]\nname = \"{APP}\"\ndatabase = \"{DATABASE}\"\npassword = {:?}\n",
        state.superuser_password, state.app_password
    );
    for server in cluster.servers() {
        let role = if server.role == Role::Primary { "primary" } else { "replica" };
        push(
            &mut text,
            &format!("\n[[databases]]\nname = \"{DATABASE}\"\nshard = {}\nrole = \"{role}\"\n", server.shard),
        );
        push(&mut text, &format!("host = \"{HOST}\"\nport = {}\n", server.port()));
    }
    for key in ["column = \"user_id\"", "name = \"users\"\ncolumn = \"id\""] {
        push(&mut text, &format!("\n[[sharded_tables]]\ndatabase = \"{DATABASE}\"\n{key}\ndata_type = \"bigint\"\n"));
        mappings(&mut text, state.rows, state.shards);
    }
    push(
        &mut text,
        &format!("\n[[reference_tables]]\ndatabase = \"{DATABASE}\"\ntables = [\"products\", \"categories\"]\n"),
    );
    text
}

/// The last range has no end: new users come after those that are there.
fn mappings(text: &mut String, users: u64, shards: u16) {
    for (shard, range) in ranges(users, shards).into_iter().enumerate() {
        push(text, &format!("[[sharded_tables.mapping]]\nstart = {}\n", range.start));
        if shard + 1 < usize::from(shards) {
            push(text, &format!("end = {}\n", range.end));
        }
        push(text, &format!("shard = {shard}\n"));
    }
}

fn push(text: &mut String, more: &str) {
    text.write_str(more).expect("writing to a String cannot fail");
}
