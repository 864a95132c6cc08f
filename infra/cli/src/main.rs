//! The `keyward` command.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use keyward_cli::audit;
use keyward_cli::dev::{DEFAULT_DATA_DIR, Dev, DevError, DevJson, Installation, Options};
use keyward_cli::doctor::{Examination, Finding};
use keyward_cli::local_run::{LocalRun, LocalRunError};
use keyward_cli::operator::{self, OperatorError};
use keyward_cli::peppers::{Peppers, PeppersError};
use keyward_cli::stack::Stack;
use keyward_core::PublicUrl;
use keyward_core::deployment::Mode;
use keyward_core::hashing::PepperVersion;
use keyward_core::id::RootKeyId;
use keyward_core::pepper::{self, PepperRecord, RowCount};
use keyward_core::root_key::Scope;
use keyward_core::text::Name;
use keyward_pepper::forbid_core_dumps;
use keyward_runtime::log_filter;
use keyward_store::Table;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

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
    /// All functions share one port, over an embedded DynamoDB. When requests are accepted, what a program needs
    /// to use the installation is printed and written to dev.json in the data folder. SIGINT (Ctrl-C) and SIGTERM stop
    /// it without losing anything. Set KEYWARD_LOG (such as "warn") to log less.
    Dev(DevArgs),
    /// Set up a deployed stack: its first pepper, deployment and root key
    ///
    /// Needs AWS credentials that may describe the stack, write to its table and use its KMS key. Prints the first root
    /// key once. Running it again changes nothing.
    Init(InitArgs),
    /// Find what is missing or wrong in an installation, and say how to fix it
    ///
    /// Examines the installation that runs on this machine or, with --stack, a deployed one: what was changed by hand,
    /// the roles' permissions, the functions' code, the table, the KMS key, the peppers, and whether each function responds.
    /// Changes nothing. Exits with 1 if a check fails.
    Doctor(DoctorArgs),
    /// Create, list and revoke root keys of a deployed stack
    #[command(subcommand)]
    RootKey(RootKeyCommand),
    /// Manage the versions of the pepper, under which all credentials are hashed
    ///
    /// Routinely, 'rotate' creates another version, and each row moves to it when its credential is next used. After a leak,
    /// run 'rotate' and then 'repepper', which leaves no row that the leaked version alone protects. 'status' counts the rows that
    /// need each version; one that no row needs can be retired.
    #[command(subcommand)]
    Pepper(PepperCommand),
    /// Restore audit events that are in a log and not in the table
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    stack: StackArg,
    /// The name of the first deployment
    #[arg(long, default_value = "Keyward")]
    name: String,
    /// How browsers carry its sessions
    #[arg(long, value_enum, default_value_t = ModeArg::Production)]
    mode: ModeArg,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Folder of the local run to examine [default: .keyward]
    #[arg(long, value_name = "FOLDER", conflicts_with = "stack")]
    data_dir: Option<PathBuf>,
    /// The CloudFormation stack to examine
    ///
    /// Needs AWS credentials that may read the stack's resources. With a root key in KEYWARD_ROOT_KEY, the functions are
    /// called with it. Finding changes made by hand takes up to a minute.
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// With --stack: the URL of its API from here [default: the stack's output Url]
    #[arg(long, env = "KEYWARD_URL", value_name = "URL")]
    url: Option<String>,
    #[arg(skip = std::env::var("KEYWARD_ROOT_KEY").ok().map(SecretString::from))]
    root_key: Option<SecretString>,
}

#[derive(Debug, Args)]
struct StackArg {
    /// The CloudFormation stack
    #[arg(long, value_name = "NAME")]
    stack: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    /// In a cookie, from allowed origins only
    Production,
    /// In a parameter and a header, from any origin
    Staging,
}

#[derive(Debug, Subcommand)]
enum RootKeyCommand {
    /// Create a root key, and print it once
    Create {
        #[command(flatten)]
        stack: StackArg,
        /// The name of the root key
        #[arg(long)]
        name: String,
        /// The scopes of the root key, separated by commas [default: all]
        #[arg(long, value_enum, value_delimiter = ',')]
        scopes: Vec<ScopeArg>,
    },
    /// List the root keys: id, time of creation, scopes, name
    List {
        #[command(flatten)]
        stack: StackArg,
    },
    /// Revoke a root key, immediately and for good
    Revoke {
        #[command(flatten)]
        stack: StackArg,
        /// Its id, as `keyward root-key list` prints it
        id: RootKeyId,
    },
}

#[derive(Debug, Subcommand)]
enum PepperCommand {
    /// Create the first version, unless there is one ('keyward init' does this too)
    Init {
        #[command(flatten)]
        installation: InstallationArgs,
    },
    /// List the versions with the rows that need them
    ///
    /// ROWS have a tag that was made with the version; LAYERED counts rows that were re-peppered, and need it until their
    /// credential is next used. The counts are kept, with their time.
    Status {
        #[command(flatten)]
        installation: InstallationArgs,
        /// Show the last counts, without counting again
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Create another version, which makes all tags from now on
    ///
    /// Every process uses it within a minute. No credentials change.
    Rotate {
        #[command(flatten)]
        installation: InstallationArgs,
    },
    /// After a leak of an earlier version: move every row under the current one, without its secret
    ///
    /// Checks continue meanwhile. Tickets and sessions of earlier versions are ended. Takes at least a minute and a half, until
    /// no process creates rows with an earlier version. If it is stopped, run it again: it continues where it stopped.
    Repepper {
        #[command(flatten)]
        installation: InstallationArgs,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Erase a version for good, if no row needs it
    Retire {
        /// The version
        version: u32,
        #[command(flatten)]
        installation: InstallationArgs,
        #[command(flatten)]
        pace: PaceArgs,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Write the events that the table did not take, from the logs that have them
    ///
    /// A function logs an event that it cannot write, and the metric RefusedWrites counts it. Give this the lines of the log
    /// groups, as 'aws logs filter-log-events' or 'aws logs tail --format short' prints them; it passes over all others. Each event is
    /// written once: what is in the table stays as it is, so running it again changes nothing. Exits with 1 if an event could
    /// not be read or written.
    Replay {
        #[command(flatten)]
        installation: InstallationArgs,
        /// The log; without it, standard input
        log: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct InstallationArgs {
    /// The CloudFormation stack [default: the installation that runs on this machine]
    ///
    /// Needs AWS credentials that may describe the stack, scan and write its table and use its KMS key.
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// Folder of the local run [default: .keyward]
    #[arg(long, value_name = "FOLDER", conflicts_with = "stack")]
    data_dir: Option<PathBuf>,
}

impl InstallationArgs {
    async fn peppers(self) -> Result<Peppers, PeppersError> {
        match self.stack {
            Some(stack) => Ok(Peppers::of_stack(&Stack::find(&stack).await?)),
            None => Peppers::of_run(self.local_run().await?),
        }
    }

    async fn table(self) -> Result<Table, Box<dyn Error>> {
        match self.stack {
            Some(stack) => Ok(Stack::find(&stack).await?.table()),
            None => Ok(self.local_run().await?.table),
        }
    }

    async fn local_run(self) -> Result<LocalRun, LocalRunError> {
        LocalRun::find(&self.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))).await
    }
}

#[derive(Debug, Args)]
struct PaceArgs {
    /// Capacity units that reading and writing the table may use in a second
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_PACE)]
    units_per_second: NonZeroU32,
}

const DEFAULT_PACE: NonZeroU32 = NonZeroU32::new(500).unwrap();

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// Manage apps, keys and rate-limit schemes
    Manage,
    /// Issue tickets
    Tickets,
    /// Check requests
    Verify,
    /// Read the audit log
    Audit,
}

impl ScopeArg {
    fn scope(self) -> Scope {
        match self {
            Self::Manage => Scope::Manage,
            Self::Tickets => Scope::Tickets,
            Self::Verify => Scope::Verify,
            Self::Audit => Scope::Audit,
        }
    }
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 8787, value_name = "PORT")]
    port: u16,
    /// Folder for the data, the key file and dev.json [default: .keyward]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Keep the data in memory only
    #[arg(long)]
    ephemeral: bool,
    /// Run only the embedded DynamoDB, on PORT, for functions that `cargo lambda watch` runs
    ///
    /// Writes their environment to functions.env in the data folder.
    #[arg(long, conflicts_with = "ephemeral")]
    only_store: bool,
    /// With --only-store: the URL of the functions
    #[arg(long, default_value = "http://127.0.0.1:9000", value_name = "URL", requires = "only_store")]
    public_url: PublicUrl,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = forbid_core_dumps() {
        eprintln!("keyward: core dumps, which would contain the peppers, cannot be disabled: {error}");
        return ExitCode::FAILURE;
    }
    // An operator's command says itself what came of it.
    let is_dev = matches!(cli.command, None | Some(Command::Dev(_)));
    let level = if is_dev { Level::INFO } else { Level::ERROR };
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    registry().with(lines.with_filter(log_filter(level))).init();
    let done: Result<(), Box<dyn Error>> = match cli.command {
        None => run(cli.dev).await.map_err(Into::into),
        Some(Command::Dev(args)) => run(args).await.map_err(Into::into),
        Some(Command::Init(args)) => init(args).await.map_err(Into::into),
        Some(Command::Doctor(args)) => doctor(args).await,
        Some(Command::RootKey(command)) => root_key(command).await.map_err(Into::into),
        Some(Command::Pepper(command)) => pepper(command).await.map_err(Into::into),
        Some(Command::Audit(command)) => audit(command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyward: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn init(args: InitArgs) -> Result<(), OperatorError> {
    let name = Name::parse("name", &args.name)?;
    let mode = match args.mode {
        ModeArg::Production => Mode::Production,
        ModeArg::Staging => Mode::Staging,
    };
    let stack = Stack::find(&args.stack.stack).await?;
    let ready = operator::init(&stack, name, mode).await?;
    let root_key = match &ready.root_key {
        Some(token) => format!(
            "root key         {}\n\nThe root key is shown only once: keep it in a safe place.",
            token.expose_secret()
        ),
        None => "root key         (created before; 'keyward root-key create' creates another)".to_owned(),
    };
    print(&format!(
        "URL              {}\npublishable key  {}\ndeployment       {}\n{root_key}",
        stack.url, ready.publishable_key, ready.deployment.id,
    ));
    Ok(())
}

async fn doctor(args: DoctorArgs) -> Result<(), Box<dyn Error>> {
    let mut report = |finding: &Finding| match &finding.outcome {
        Ok(well) => print(&format!("ok     {}: {well}", finding.subject)),
        Err(fault) => print(&format!("WRONG  {}: {fault}", finding.subject)),
    };
    let mut examination = Examination::new(&mut report);
    match args.stack {
        Some(stack) => {
            let root_key = args.root_key.as_ref().map(ExposeSecret::expose_secret);
            examination.stack(&stack, args.url.as_deref(), root_key).await;
        }
        None => {
            let folder = args.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
            examination.local(&folder).await;
        }
    }
    match examination.faults() {
        0 => Ok(()),
        1 => Err("1 check failed".into()),
        faults => Err(format!("{faults} checks failed").into()),
    }
}

async fn root_key(command: RootKeyCommand) -> Result<(), OperatorError> {
    match command {
        RootKeyCommand::Create { stack, name, scopes } => {
            let name = Name::parse("name", &name)?;
            let scopes: Vec<Scope> = scopes.into_iter().map(ScopeArg::scope).collect();
            let scopes = if scopes.is_empty() { Scope::ALL.to_vec() } else { scopes };
            let stack = Stack::find(&stack.stack).await?;
            let token = operator::create_root_key(&stack, name, &scopes).await?;
            print(token.expose_secret());
        }
        RootKeyCommand::List { stack } => {
            for key in operator::root_keys(&Stack::find(&stack.stack).await?).await? {
                let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
                let created = key.created_at.format("%Y-%m-%dT%H:%M:%SZ");
                print(&format!("{}  {created}  {}  {}", key.id, scopes.join(","), key.name));
            }
        }
        RootKeyCommand::Revoke { stack, id } => {
            operator::revoke_root_key(&Stack::find(&stack.stack).await?, id).await?;
            print("revoked");
        }
    }
    Ok(())
}

async fn pepper(command: PepperCommand) -> Result<(), PeppersError> {
    match command {
        PepperCommand::Init { installation } => match installation.peppers().await?.init().await? {
            Some(version) => print(&format!("version {version} makes all tags")),
            None => print("there is a pepper already; nothing was changed"),
        },
        PepperCommand::Status { installation, last, pace } => {
            let peppers = installation.peppers().await?;
            let versions =
                if last { peppers.last().await? } else { peppers.count(pace.units_per_second).await? };
            if versions.is_empty() {
                return Err(PeppersError::None);
            }
            print(&table(&versions));
        }
        PepperCommand::Rotate { installation } => {
            let version = installation.peppers().await?.rotate().await?;
            print(&format!("version {version} makes all tags, in every process within a minute"));
        }
        PepperCommand::Repepper { installation, pace } => {
            let done = installation.peppers().await?.repepper(pace.units_per_second).await?;
            print(&format!(
                "rows moved under the current version: {}; tickets and sessions of earlier versions ended: {}",
                done.rows, done.ended
            ));
        }
        PepperCommand::Retire { version, installation, pace } => {
            installation.peppers().await?.retire(PepperVersion(version), pace.units_per_second).await?;
            print(&format!("version {version} is erased"));
        }
    }
    Ok(())
}

/// The versions of the pepper, a line each.
fn table(versions: &[PepperRecord]) -> String {
    let current = pepper::current(versions);
    let time = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let line = |cells: [&str; 7]| {
        let [version, state, created, activated, rows, layered, counted] = cells;
        format!(
            "{version:>7}  {state:<8}  {created:<20}  {activated:<20}  {rows:>10}  {layered:>10}  {counted}"
        )
    };
    let mut lines = vec![line(["VERSION", "STATE", "CREATED", "ACTIVATED", "ROWS", "LAYERED", "COUNTED"])];
    for version in versions {
        let state = match version {
            version if version.retired_at.is_some() => "retired",
            version if Some(version.version) == current => "current",
            version if version.activated_at.is_none() => "created",
            _ => "earlier",
        };
        let count = |of: fn(&RowCount) -> u64| {
            version.counted.as_ref().map_or_else(|| "-".to_owned(), |count| of(count).to_string())
        };
        lines.push(line([
            &version.version.to_string(),
            state,
            &time(Some(version.created_at)),
            &time(version.activated_at),
            &count(|count| count.rows),
            &count(|count| count.layered),
            &time(version.counted.map(|count| count.at)),
        ]));
    }
    lines.join("\n")
}

async fn audit(AuditCommand::Replay { installation, log }: AuditCommand) -> Result<(), Box<dyn Error>> {
    let log: Box<dyn BufRead> = match &log {
        Some(path) => {
            let file =
                File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(io::stdin().lock()),
    };
    let table = installation.table().await?;
    let report = |line: usize, error: &_| eprintln!("line {line}: {error}");
    let replayed =
        audit::replay(&table, log, report).await.map_err(|error| format!("cannot read the log: {error}"))?;
    print(&format!("restored: {}; in the table already: {}", replayed.restored, replayed.present));
    match replayed.failed {
        0 => Ok(()),
        failed => {
            Err(format!("{failed} could not be restored: run the command again with the same log").into())
        }
    }
}

async fn run(args: DevArgs) -> Result<(), DevError> {
    // Before anything starts, so that an early signal is not the end without a clean stop.
    let mut stopped = StopSignal::listen()?;
    let options = Options { port: args.port, data_dir: args.data_dir, ephemeral: args.ephemeral };
    if args.only_store {
        return only_store(&options, args.public_url, stopped).await;
    }
    let dev = Dev::start(&options).await?;
    print(&describe(dev.dev_json(), &options));
    stopped.wait().await;
    dev.stop().await;
    Ok(())
}

async fn only_store(
    options: &Options,
    public_url: PublicUrl,
    mut stopped: StopSignal,
) -> Result<(), DevError> {
    let installation = Installation::open(options, options.port).await?;
    let services = installation.services(public_url).await?;
    let described = installation.describe(&services).await?;
    let env = installation.write_functions_env(&described.url)?;
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
struct StopSignal {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignal {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
