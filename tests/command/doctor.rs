//! `keyward doctor` on a local run.

use std::fs;
use std::path::Path;

use tokio::net::TcpSocket;

use crate::process::{Dev, keyward};

/// What it prints about the run in this folder, and whether it found it well.
fn examine(folder: &Path) -> (bool, String) {
    let mut command = keyward(&["doctor", "--data-dir", folder.to_str().unwrap()]);
    // An installation that the environment names is not this one.
    let examined = command
        .env("KEYWARD_URL", "http://127.0.0.1:9")
        .env("KEYWARD_ROOT_KEY", "of another")
        .output()
        .unwrap();
    (examined.status.success(), String::from_utf8(examined.stdout).unwrap())
}

#[tokio::test]
async fn a_run_is_examined() {
    let folder = tempfile::tempdir().unwrap();
    let (well, told) = examine(folder.path());
    assert!(!well && told.starts_with("WRONG  dev.json: there is no dev.json in "), "{told}");
    assert!(told.contains("start an installation with 'keyward dev'") && told.lines().count() == 1, "{told}");

    let mut dev = Dev::start(folder.path(), "info");
    let (well, told) = examine(folder.path());
    let answering = told.lines().filter(|line| line.starts_with("ok     ") && line.ends_with(": answers"));
    assert!(well && answering.count() == 6 && !told.contains("WRONG"), "{told}");
    assert!(!told.contains(&dev.json.root_key), "{told}");

    let dev_json = folder.path().join("dev.json");
    let whole = fs::read_to_string(&dev_json).unwrap();
    let at = dev.json.root_key.len() - 1;
    let other =
        format!("{}{}", &dev.json.root_key[..at], if dev.json.root_key.ends_with('0') { '1' } else { '0' });
    fs::write(&dev_json, whole.replace(&dev.json.root_key, &other)).unwrap();
    let (well, told) = examine(folder.path());
    assert!(!well && told.matches("WRONG").count() == 1, "{told}");
    assert!(told.contains("WRONG  root key: this root key is not one of the installation's: "), "{told}");
    fs::write(&dev_json, &whole).unwrap();

    dev.signal("KILL");
    dev.wait();
    // Bound and not listened on: connections are refused, and no run of another test is given this port.
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind(dev.json.url.trim_start_matches("http://").parse().unwrap()).unwrap();
    let (well, told) = examine(folder.path());
    let silent = format!(
        "WRONG  url: {} does not answer (Connection refused (os error 111)): start it again with 'keyward dev'",
        dev.json.url
    );
    assert!(!well && told.contains(&silent), "{told}");
}
