//! `keyward doctor` on a local run.

use std::fs;
use std::path::Path;

use tokio::net::TcpSocket;

use crate::process::{Dev, keyward};

/// Examines the run in this folder: whether all is well, and the output.
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
    let (well, printed) = examine(folder.path());
    assert!(!well && printed.starts_with("WRONG  dev.json: there is no dev.json in "), "{printed}");
    assert!(
        printed.contains("start an installation with 'keyward dev'") && printed.lines().count() == 1,
        "{printed}"
    );

    let mut dev = Dev::start(folder.path(), "info");
    let (well, printed) = examine(folder.path());
    let answering =
        printed.lines().filter(|line| line.starts_with("ok     ") && line.ends_with(": responds"));
    assert!(well && answering.count() == 6 && !printed.contains("WRONG"), "{printed}");
    assert!(!printed.contains(&dev.json.root_key), "{printed}");

    let dev_json = folder.path().join("dev.json");
    let whole = fs::read_to_string(&dev_json).unwrap();
    let at = dev.json.root_key.len() - 1;
    let other =
        format!("{}{}", &dev.json.root_key[..at], if dev.json.root_key.ends_with('0') { '1' } else { '0' });
    fs::write(&dev_json, whole.replace(&dev.json.root_key, &other)).unwrap();
    let (well, printed) = examine(folder.path());
    assert!(!well && printed.matches("WRONG").count() == 1, "{printed}");
    assert!(
        printed.contains("WRONG  root key: this root key does not belong to the installation: "),
        "{printed}"
    );
    fs::write(&dev_json, &whole).unwrap();

    dev.signal("KILL");
    dev.wait();
    // Bound and not listened on: connections are refused, and no run of another test is given this port.
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind(dev.json.url.trim_start_matches("http://").parse().unwrap()).unwrap();
    let (well, printed) = examine(folder.path());
    let no_response = format!(
        "WRONG  url: {} does not respond (Connection refused (os error 111)): restart it with 'keyward dev'",
        dev.json.url
    );
    assert!(!well && printed.contains(&no_response), "{printed}");
}
