//! Measures the check on a local server, beside a bare `GetItem` through the same SDK on the same store, and prints a table
//! in Markdown. See README.md.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::Utc;
use clap::Parser;
use futures::future::join_all;
use hdrhistogram::Histogram;
use keyward_audit::Recorder;
use keyward_cli::dev::{Dev, Options, TABLE};
use keyward_core::target::Target;
use keyward_core::token::ApiKeyToken;
use keyward_store::{Error, dynamodb_client};
use keyward_tests::{Backend, FLUSH_TIME, check_body, text};
use keyward_verifier::{Accepted, Check, CheckError, Verifier};
use reqwest::StatusCode;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

const CALLERS: [usize; 3] = [1, 8, 64];
/// The number of keys of each app, which are checked in turn.
const KEYS: usize = 100;
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures the check beside a bare GetItem on the same store.
#[derive(Parser)]
struct Arguments {
    /// The time for which each row is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only rows whose name contains this, beside the GetItem.
    #[arg(long, default_value = "")]
    only: String,
    /// The argument that `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The call to measure, with each of the keys in turn.
#[derive(Clone)]
enum Call {
    GetItem(Client),
    Verifier(Verifier, Target),
    Http(Backend),
}

impl Call {
    /// Whether it completed: on a machine that is busy with something else, the store's time limit may be too short.
    async fn make(&self, secret: &str) -> bool {
        match self {
            Self::GetItem(client) => {
                let id = ApiKeyToken::parse(secret).expect("a key").id;
                let get = client.get_item().table_name(TABLE).consistent_read(true);
                let get = get.key("pk", AttributeValue::S(format!("KEY#{}", id.base62())));
                let found =
                    get.key("sk", AttributeValue::S("KEY".to_owned())).send().await.expect("an answer");
                found.item.is_some()
            }
            Self::Verifier(verifier, target) => {
                let check = Check {
                    presented: secret,
                    accepted: &Accepted::ANY,
                    target,
                    required_permissions: &[],
                    client_ip: "127.0.0.1".parse().ok(),
                    user_agent: None,
                    request_id: None,
                };
                match verifier.check(&check, None).await {
                    Err(CheckError::Store(Error::Unavailable(_))) => return false,
                    decided => assert!(decided.expect("a decision").allowed()),
                }
                true
            }
            Self::Http(backend) => {
                let request = backend.http.post(format!("{}/v1/authz/check", backend.url));
                let response = request.json(&check_body(secret)).send().await.expect("an answer");
                let completed = response.status() != StatusCode::SERVICE_UNAVAILABLE;
                let body = response.text().await.expect("a body");
                assert!(!completed || body.contains("\"allowed\":true"), "{body}");
                completed
            }
        }
    }
}

struct Measured {
    latencies: Histogram<u64>,
    /// Calls that timed out after 1.8 s.
    timed_out: u64,
    a_second: f64,
    cpu: Duration,
}

/// Runs this number of callers, each making one call after another. The calls are done when their events are written.
async fn measure(
    call: &Call,
    secrets: &Arc<[String]>,
    callers: usize,
    time: Duration,
    recorder: &Recorder,
) -> Measured {
    let (start, cpu) = (Instant::now(), cpu());
    let callers = (0..callers).map(|caller| {
        let (call, secrets) = (call.clone(), secrets.clone());
        tokio::spawn(async move {
            let (mut latencies, mut timed_out) = (Histogram::<u64>::new(3).expect("a histogram"), 0);
            for secret in secrets.iter().cycle().skip(caller) {
                if start.elapsed() >= time {
                    break;
                }
                let called = Instant::now();
                let completed = call.make(secret).await;
                let took = u64::try_from(called.elapsed().as_micros()).expect("a short time");
                latencies.record(took).expect("a latency");
                timed_out += u64::from(!completed);
            }
            (latencies, timed_out)
        })
    });
    let (mut latencies, mut timed_out) = (Histogram::<u64>::new(3).expect("a histogram"), 0);
    for caller in join_all(callers).await {
        let (own, own_timed_out) = caller.expect("a caller");
        latencies.add(own).expect("latencies");
        timed_out += own_timed_out;
    }
    recorder.flush(FLUSH_TIME).await;
    let a_second = (latencies.len() - timed_out) as f64 / start.elapsed().as_secs_f64();
    Measured { latencies, timed_out, a_second, cpu: self::cpu() - cpu }
}

/// The processor time that this process has used.
fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a duration")
}

/// An app whose keys these rules limit, and the secrets of its keys.
async fn secrets(backend: &Backend, slug: &str, rules: Value) -> Arc<[String]> {
    let mut app = json!({"app_slug": slug, "name": slug});
    if rules != json!([]) {
        let scheme = json!({"slug": slug, "name": slug, "rules": rules});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
        app["rate_limit_scheme_slug"] = slug.into();
    }
    backend.post("/api-auth/apps", app).await.ok();
    let mut secrets = vec![];
    for _ in 0..KEYS {
        secrets.push(text(&backend.create_key(slug, json!({})).await["secret"]));
    }
    secrets.into()
}

/// A rule that no row reaches. Above 500 a second on average, its counter is spread over shards.
fn rule(unit: &str, max_requests: i64, mode: &str) -> Value {
    json!({"unit": unit, "duration": 1, "max_requests": max_requests, "mode": mode})
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    format!("{}, {cores} cores, load before {load}", model.unwrap_or("unknown processor"))
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let time = Duration::from_secs(arguments.seconds);
    let machine = machine();
    let options = Options { port: 0, data_dir: None, ephemeral: true };
    let dev = Dev::start(&options).await.expect("a local server");
    let described = dev.dev_json();
    let backend = Backend::new(&described.url, &described.root_key, reqwest::Client::new());
    let services = dev.services();
    let recorder = &services.recorder;

    let get_item = Call::GetItem(dynamodb_client(dev.installation().sdk_config()));
    let target = Target::parse("GET", "/v1/users").expect("a target");
    let verifier = Call::Verifier(
        Verifier::new(services.store.clone(), recorder.clone(), services.public.deployment_id()),
        target,
    );
    let http = Call::Http(backend.clone());
    let limits = [
        ("no limits", json!([])),
        ("one rule per key", json!([rule("day", 40_000_000, "per_key")])),
        (
            "four rules per key",
            json!([
                rule("hour", 1_700_000, "per_key"),
                rule("day", 40_000_000, "per_key"),
                rule("calendar_day", 40_000_000, "per_key"),
                rule("month", 1_200_000_000, "per_key"),
            ]),
        ),
        (
            "a rule per key and one per app",
            json!([rule("day", 40_000_000, "per_key"), rule("day", 40_000_000, "per_app")]),
        ),
        ("one rule per app, above 500 a second", json!([rule("day", 100_000_000, "per_app")])),
    ];
    let mut rows = vec![];
    for (number, (name, rules)) in limits.into_iter().enumerate() {
        let secrets = secrets(&backend, &format!("bench-{number}"), rules).await;
        if number == 0 {
            rows.push(("GetItem".to_owned(), get_item.clone(), secrets.clone()));
        }
        for (way, call) in [("verifier", &verifier), ("HTTP", &http)] {
            rows.push((format!("{way}, {name}"), call.clone(), secrets.clone()));
        }
    }
    rows.retain(|(name, ..)| name == "GetItem" || name.contains(&arguments.only));

    let profile = if cfg!(debug_assertions) { "dev" } else { "bench" };
    println!("{machine}; {}; profile {profile}\n", Utc::now().format("%Y-%m-%d"));
    println!(
        "| callers | | calls a second | p50, ms | p99, ms | CPU a call, ms | GetItems in the time of one |"
    );
    println!("|---|---|---|---|---|---|---|");
    for callers in CALLERS {
        let mut get_items = 0.0;
        for (name, call, secrets) in &rows {
            eprintln!("{callers} callers: {name}");
            measure(call, secrets, callers, WARM_UP, recorder).await;
            let Measured { latencies, timed_out, a_second, cpu } =
                measure(call, secrets, callers, time, recorder).await;
            if timed_out > 0 {
                eprintln!("  {timed_out} were not answered in time: the machine does something else, too");
            }
            if matches!(call, Call::GetItem(_)) {
                get_items = a_second;
            }
            let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
            println!(
                "| {callers} | {name} | {a_second:.0} | {:.2} | {:.2} | {:.3} | {:.1} |",
                ms(0.5),
                ms(0.99),
                cpu.as_secs_f64() * 1_000.0 / latencies.len() as f64,
                get_items / a_second,
            );
        }
    }
    dev.stop().await;
}
