//! `cargo xtask`: generates files from the code.

mod document;
mod files;
mod reference;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use document::Endpoint;
use files::{FileError, GeneratedFile};

/// Writes the files of this repository that follow from its code.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes what follows from the routes that the functions' handlers declare, and from the codes of errors:
    /// docs/openapi.json, the tables in docs/api.md and docs/errors/README.md, the routes in template.yaml, and the router
    /// of `cargo lambda watch` in Cargo.toml
    Routes {
        /// Write nothing, and fail if a file is not as it would be written
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let Command::Routes { check } = Arguments::parse().command;
    match routes(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that this workspace is in.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

fn routes(check: bool) -> Result<(), FileError> {
    let stale: Vec<GeneratedFile> =
        generated_files()?.into_iter().filter(|file| !file.is_current()).collect();
    for file in &stale {
        if check {
            eprintln!("{} is out of date", file.name);
        } else {
            file.write()?;
            println!("wrote {}", file.name);
        }
    }
    if check && !stale.is_empty() {
        return Err(FileError::Stale);
    }
    if stale.is_empty() {
        println!("all files are up to date");
    }
    Ok(())
}

/// All files as the code says that they are.
fn generated_files() -> Result<Vec<GeneratedFile>, FileError> {
    let endpoints = Endpoint::all();
    let api = document::openapi(&endpoints);
    let json = api.to_pretty_json().map_err(FileError::Json)?;
    Ok(vec![
        GeneratedFile::whole(root(), "docs/openapi.json", json + "\n")?,
        GeneratedFile::parts(root(), "docs/api.md", &reference::tables(&endpoints, &api))?,
        GeneratedFile::parts(root(), "docs/errors/README.md", &[("errors", reference::errors())])?,
        GeneratedFile::parts(root(), "template.yaml", &[("routes", reference::template(&endpoints))])?,
        GeneratedFile::parts(root(), "Cargo.toml", &[("router", reference::router(&endpoints))])?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_as_the_code_says() {
        let stale: Vec<_> =
            generated_files().unwrap().into_iter().filter(|file| !file.is_current()).collect();
        let names: Vec<&str> = stale.iter().map(|file| file.name).collect();
        assert!(names.is_empty(), "run 'cargo xtask routes': {names:?} are not as the code says");
    }
}
