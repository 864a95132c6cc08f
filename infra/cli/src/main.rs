//! The `keyward` command.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use keyward_cli::dev::{DEFAULT_DATA_DIR, Dev, DevError, DevJson, Installation, Options};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// API-key management in your own AWS account.
///
/// Without a command, `keyward` does what `keyward dev` does.
#[derive(Debug, Parser)]
#[command(name = "keyward", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: DevArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole installation on this machine
    ///
    /// All functions answer on one port, over an embedded DynamoDB. When requests are accepted, what a program needs
    /// to use the installation is printed and written to dev.json in the data folder. SIGINT (Ctrl-C) and SIGTERM stop
    /// it without losing anything. Set KEYWARD_LOG (such as "debug") to log more.
    Dev(DevArgs),
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Port to answer on; 0 picks a free one
    #[arg(long, default_value_t = 8787, value_name = "PORT")]
    port: u16,
    /// Folder for the data, the key file and dev.json [default: .keyward]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: data lives in memory
    #[arg(long)]
    ephemeral: bool,
    /// Run only the embedded DynamoDB, on PORT, for functions that `cargo lambda watch` runs
    ///
    /// Writes their environment to functions.env in the data folder.
    #[arg(long, conflicts_with = "ephemeral")]
    only_store: bool,
    /// With --only-store: where the functions will be reached
    #[arg(long, default_value = "http://127.0.0.1:9000", value_name = "URL", requires = "only_store")]
    public_url: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let args = match cli.command {
        Some(Command::Dev(args)) => args,
        None => cli.dev,
    };
    let filter = EnvFilter::try_from_env("KEYWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyward: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: DevArgs) -> Result<(), DevError> {
    // Before anything starts, so that an early signal is not the end without a clean stop.
    let mut stopped = Stop::listen()?;
    let options = Options { port: args.port, data_dir: args.data_dir, ephemeral: args.ephemeral };
    if args.only_store {
        return only_store(&options, &args.public_url, stopped).await;
    }
    let dev = Dev::start(&options).await?;
    print(&describe(dev.described(), &options));
    stopped.wait().await;
    dev.stop().await;
    Ok(())
}

async fn only_store(options: &Options, public_url: &str, mut stopped: Stop) -> Result<(), DevError> {
    let installation = Installation::open(options, options.port).await?;
    let public_url = public_url.trim_end_matches('/');
    let services = installation.services(public_url).await?;
    let described = installation.describe(&services).await?;
    let env = installation.write_functions_env(public_url)?;
    installation.announce(&described)?;
    print(&format!(
        "DynamoDB   {}\n\nRun the functions on it:\n\n    cargo lambda watch --env-file {}\n\n{}",
        installation.store_url(),
        env.display(),
        describe(&described, options),
    ));
    stopped.wait().await;
    services.recorder.close().await;
    installation.close().await;
    Ok(())
}

fn describe(dev: &DevJson, options: &Options) -> String {
    let folder = options.data_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    let kept = if options.ephemeral {
        "nothing is kept".to_owned()
    } else {
        format!("data and dev.json are in {}", folder.display())
    };
    format!(
        "URL              {}\nroot key         {}\npublishable key  {}\ndeployment       {}\ndemo app         {}\nhosted page      {}\n\n{kept}; Ctrl-C stops\n",
        dev.url, dev.root_key, dev.publishable_key, dev.deployment_id, dev.app_slug, dev.hosted_page_url,
    )
}

/// Prints to whoever still reads: a closed pipe is no reason to stop serving.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "standard output cannot be written");
    }
}

/// SIGINT or SIGTERM.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, DevError> {
        let listen = |kind| signal(kind).map_err(|error| DevError::Start(error.to_string()));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
