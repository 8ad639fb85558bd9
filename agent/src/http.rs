//! `/healthz`, `/readyz` and `/metrics`, for probes and for Prometheus.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::ready::Readiness;

/// What the endpoints read.
#[derive(Clone, Debug)]
struct Sources {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// The body of `/readyz`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    ready: bool,
    waiting_for: Vec<String>,
}

/// Listens for HTTP.
///
/// # Errors
/// When `address` cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = "choose another address with `http` in manxd.yaml, or null for none";
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address} for HTTP: {error}; {advice}"),
        )
    })
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, readiness: Readiness, registry: Arc<Registry>) -> io::Result<()> {
    axum::serve(listener, router(Sources { readiness, registry })).await
}

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn readyz(State(sources): State<Sources>) -> impl IntoResponse {
    let waiting_for = sources.readiness.waiting_for();
    let ready = waiting_for.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { ready, waiting_for }))
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &sources.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
