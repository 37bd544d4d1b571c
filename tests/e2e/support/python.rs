//! Real clients written in Python (psycopg, websockets), run from the project's virtual environment.

use std::{path::Path, process::Command};

use serde_json::Value;

/// Returns the interpreter that has the sample project's packages.
pub fn python() -> &'static str {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");
    assert!(Path::new(path).exists(), "{path} is missing: run `make setup` (or `make test`)");
    path
}

/// Runs `tests/e2e/clients/SCRIPT` with arguments; returns the JSON object it prints last. A failing script fails the test.
pub fn client(script: &str, arguments: &[&str]) -> Value {
    let output = Command::new(python())
        .arg(format!("tests/e2e/clients/{script}"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {}\n{stdout}\n{stderr}", output.status);
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{script} said {last:?}: {error}\n{stderr}"))
}
