//! A proxy before DynamoDB that lets the events of checks wait.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A gate before a DynamoDB, open at first. Only puts of events wait where it is closed.
#[derive(Clone)]
pub struct Gate {
    /// Where it is.
    pub url: String,
    engine: String,
    http: reqwest::Client,
    is_open: Arc<watch::Sender<bool>>,
    /// The number of puts that have come to it.
    puts: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// A gate before the engine at this URL.
    pub async fn before(engine: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gate = Self {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            engine: engine.to_owned(),
            http: reqwest::Client::new(),
            is_open: Arc::new(watch::Sender::new(true)),
            puts: Arc::default(),
        };
        let routes = Router::new().fallback(Self::pass).with_state(gate.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        gate
    }

    pub fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Waits until so many puts have come since it was made.
    pub async fn has_seen(&self, puts: usize) {
        self.puts.subscribe().wait_for(|seen| *seen >= puts).await.expect("a gate");
    }

    async fn pass(
        State(gate): State<Self>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        if target.is_some_and(|target| target.ends_with(".PutItem")) {
            gate.puts.send_modify(|puts| *puts += 1);
            gate.is_open.subscribe().wait_for(|open| *open).await.expect("a gate");
        }
        let sent = gate.http.post(&gate.engine).headers(headers).body(body).send().await;
        let response = sent.expect("an answer of the engine");
        let (status, headers) = (response.status(), response.headers().clone());
        (status, headers, response.bytes().await.expect("a body"))
    }
}
