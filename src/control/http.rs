//! `/healthz` and `/readyz`, for whoever watches the process.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Control;
use crate::topology::Role;

/// Answers until the future is dropped.
pub async fn serve(listener: TcpListener, control: Arc<Control>) -> std::io::Result<()> {
    let routes = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(control);
    axum::serve(listener, routes).await
}

/// Ready when every shard of every database has a primary that is up.
async fn ready(State(control): State<Arc<Control>>) -> (StatusCode, Json<Value>) {
    let super::Cluster { topology, fleet } = control.cluster();
    let mut missing = Vec::new();
    for database in topology.databases.values() {
        for shard in &database.shards {
            let has_primary = shard.servers.iter().any(|&server| {
                let health = fleet.state(server).health();
                health.up == Some(true) && health.role == Some(Role::Primary)
            });
            if !has_primary {
                missing.push(json!({ "database": database.name, "shard": shard.id.0, "reason": "no primary is up" }));
            }
        }
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": missing.is_empty(), "missing": missing })))
}
