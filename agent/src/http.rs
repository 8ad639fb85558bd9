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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::Metrics;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_prometheus_are_answered() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, (metrics, registry)) = (Readiness::default(), Metrics::new());
        let guard = readiness.wait_for("datastore");
        tokio::spawn(serve(listener, readiness, Arc::new(registry)));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let waiting = get(address, "/readyz").await;
        assert!(
            waiting.starts_with("HTTP/1.1 503") && waiting.contains(r#""waitingFor":["datastore"]"#),
            "{waiting}"
        );
        guard.done();
        let ready = get(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 200") && ready.contains(r#""ready":true"#),
            "{ready}"
        );
        metrics.blocks.set(2);
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("\nmanx_ipam_blocks 2\n"), "{metrics}");
    }
}
