//! A machine on which other versions are installed than `infra/local/requirements.txt` names.

use std::fs;

use crate::{run, shell};

#[test]
fn another_ministack_than_the_emulator_is_written_for_is_told_in_a_sentence() {
    let installed = tempfile::tempdir().expect("a folder");
    let of_package = installed.path().join("ministack-0.0.1.dist-info");
    fs::create_dir(&of_package).expect("a folder");
    let metadata = "Metadata-Version: 2.1\nName: ministack\nVersion: 0.0.1\n";
    fs::write(of_package.join("METADATA"), metadata).expect("a file");
    let started =
        shell(&format!("PYTHONPATH={} python3 infra/local/emulator.py", installed.path().display()));
    assert_eq!(started.status.code(), Some(1));
    let written_for = run("sed -n s/^ministack==//p infra/local/requirements.txt");
    assert_eq!(
        String::from_utf8_lossy(&started.stderr).trim_end(),
        format!(
            "infra/local/emulator.py is written for MiniStack {written_for}, and 0.0.1 is installed: pip install -r infra/local/requirements.txt"
        )
    );
}
