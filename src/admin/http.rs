//! `/metrics`, `/healthz` and `/readyz`, for whoever watches the process.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::metrics;
use crate::control::Cluster;
use crate::session::Shared;
use crate::topology::Role;

/// Answers until the future is dropped.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(shared);
    axum::serve(listener, routes).await
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let page = metrics::page(&shared).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR);
    page.map(|page| ([(header::CONTENT_TYPE, OPEN_METRICS)], page))
}

/// The process answers: that is all a supervisor that may kill it should ask.
async fn alive(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let uptime = shared.figures.started.elapsed().as_secs();
    Json(json!({ "healthy": true, "version": env!("CARGO_PKG_VERSION"), "uptime_s": uptime }))
}

/// Ready when every shard of every database has a primary that is up, and the process does not end.
async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let missing = missing(&shared);
    let ending = *shared.closing.borrow();
    let is_ready = missing.is_empty() && !ending;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let paused = shared.pools.paused();
    (status, Json(json!({ "ready": is_ready, "shutting_down": ending, "missing": missing, "paused": paused })))
}

fn missing(shared: &Shared) -> Vec<Value> {
    let Cluster { topology, fleet } = shared.control.cluster();
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
    missing
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
