//! Whether Lambda can start each function's code: a program `bootstrap`, built for the processor that the function is
//! configured for.
//!
//! <https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html>,
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html>

use std::io::{Cursor, Read};
use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::DisplayErrorContext;
use aws_sdk_lambda::types::Architecture;
use zip::ZipArchive;
use zip::result::ZipError;

use super::{functions, unknown};
use crate::stack::{Stack, cause};

/// The program that the runtimes `provided.*` start.
const BOOTSTRAP: &str = "bootstrap";
/// The largest package that is read, in bytes: Lambda takes 50 MB at once.
const MAX_PACKAGE: u64 = 50 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A sentence for each function that cannot start by its code.
pub(super) async fn faults(stack: &Stack) -> Result<Vec<String>, String> {
    let lambda = Client::new(stack.sdk_config());
    let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| cause(&error))?;
    let mut faults = Vec::new();
    for function in functions::names() {
        let name = format!("{}-{function}", stack.name);
        let unread = |error: &dyn std::fmt::Display| unknown(&name, "lambda:GetFunction", error);
        let sent = lambda.get_function().function_name(&name).send().await;
        let found = sent.map_err(|error| unread(&DisplayErrorContext(error)))?;
        let configured = found.configuration().map(|of| of.architectures()).unwrap_or_default();
        let configured = configured.first().cloned().unwrap_or(Architecture::X8664);
        let location = found.code().and_then(|code| code.location());
        let location = location.ok_or_else(|| unread(&"its code has no location to download it from"))?;
        let package = fetch(&http, location).await.map_err(|error| unread(&error))?;
        match processor(package).map_err(|error| unread(&error))? {
            Some(built_for) if built_for == configured => {}
            Some(built_for) => faults.push(format!(
                "{function} runs on {configured}, and its code was built for {built_for}: build it with 'sam build --parameter-overrides Architecture={configured}', or give it the Architecture {built_for}, and deploy it"
            )),
            None => faults.push(format!(
                "the code of {function} contains no program '{BOOTSTRAP}': run 'sam build' before 'sam deploy', or deploy the template of a release"
            )),
        }
    }
    Ok(faults)
}

async fn fetch(http: &reqwest::Client, location: &str) -> Result<Vec<u8>, String> {
    // The address is signed, so an error does not tell it.
    let innermost = |error: reqwest::Error| cause(&error.without_url());
    let response =
        http.get(location).send().await.map_err(innermost)?.error_for_status().map_err(innermost)?;
    match response.content_length() {
        Some(length) if length <= MAX_PACKAGE => Ok(response.bytes().await.map_err(innermost)?.into()),
        _ => Err(format!("its code is larger than {MAX_PACKAGE} bytes, or has no Content-Length")),
    }
}

/// The processor that the program in this package was built for, if it holds one.
fn processor(package: Vec<u8>) -> Result<Option<Architecture>, String> {
    let mut package = ZipArchive::new(Cursor::new(package)).map_err(|error| error.to_string())?;
    let mut header = Vec::new();
    match package.by_name(BOOTSTRAP) {
        Ok(program) => program.take(20).read_to_end(&mut header).map_err(|error| error.to_string())?,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    // `e_ident` and `e_machine` of an ELF header: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>.
    Ok(match header.as_slice() {
        [0x7f, b'E', b'L', b'F', .., 62, 0] => Some(Architecture::X8664),
        [0x7f, b'E', b'L', b'F', .., 183, 0] => Some(Architecture::Arm64),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn package(name: &str, program: &[u8]) -> Vec<u8> {
        let mut package = ZipWriter::new(Cursor::new(Vec::new()));
        package.start_file(name, SimpleFileOptions::default()).unwrap();
        package.write_all(program).unwrap();
        package.finish().unwrap().into_inner()
    }

    fn program(machine: u8) -> Vec<u8> {
        let mut program = vec![0; 64];
        program[..4].copy_from_slice(b"\x7fELF");
        program[18] = machine;
        program
    }

    #[test]
    fn a_program_says_which_processor_it_was_built_for() {
        assert_eq!(processor(package(BOOTSTRAP, &program(62))), Ok(Some(Architecture::X8664)));
        assert_eq!(processor(package(BOOTSTRAP, &program(183))), Ok(Some(Architecture::Arm64)));
    }

    #[test]
    fn sources_are_no_program() {
        for sources in [
            package("src/main.rs", b"fn main() {}"),
            package(BOOTSTRAP, b"#!/bin/sh\n"),
            package(BOOTSTRAP, &program(40)),
            package(BOOTSTRAP, b""),
        ] {
            assert_eq!(processor(sources), Ok(None));
        }
        assert!(processor(b"no zip".to_vec()).is_err());
    }
}
