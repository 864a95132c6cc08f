//! The soak: verifications, revocations, rotations and disablings interleaved, in one process. See README.md.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Parser;
use keyward_cli::dev::{Dev, Options};
use keyward_tests::{Backend, Soak};
use keyward_verifier::Verifier;

/// Checks keys while access is taken away, and fails at the first check that is allowed afterwards.
#[derive(Parser)]
struct Arguments {
    /// The number of verifications and revocations.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// The argument that `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let count = Arguments::parse().count;
    let options = Options { port: 0, data_dir: None, ephemeral: true };
    let dev = Dev::start(&options).await.expect("a local server");
    let described = dev.dev_json();
    let backend = Backend::new(&described.url, &described.root_key, reqwest::Client::new());
    // As another process: with a store of its own.
    let other = dev.installation().services(described.url.parse().expect("a URL")).await.expect("services");
    let verifier = Verifier::new(other.store.clone(), other.recorder.clone(), other.public.deployment_id());
    let soak = Soak::prepare(backend, verifier, count).await;
    let start = Instant::now();
    tokio::select! {
        () = soak.run() => {}
        () = progress(&soak, start, count) => {}
    }
    let seconds = start.elapsed().as_secs();
    println!("\n{soak} in {seconds} s: none was allowed that should not be, and none refused");
    other.recorder.close().await;
    dev.stop().await;
}

/// Shows the progress: on a terminal every second in one line, otherwise every half minute.
async fn progress(soak: &Soak, start: Instant, count: u64) {
    let terminal = std::io::stderr().is_terminal();
    let mut tick = tokio::time::interval(Duration::from_secs(if terminal { 1 } else { 30 }));
    tick.tick().await;
    loop {
        tick.tick().await;
        let done = soak.done();
        let rate = done as f64 / start.elapsed().as_secs_f64();
        let left = count.saturating_sub(done) as f64 / rate;
        let line = format!("{soak}; {rate:.0} a second, {left:.0} s to go");
        if terminal { eprint!("\r{line}   ") } else { eprintln!("{line}") }
    }
}
