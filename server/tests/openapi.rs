//! The description of the routes, held against a server.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::{Server, make_key, skip, text};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance";
/// Requests that are made up for each operation beyond the systematic ones.
const EXAMPLES: &str = "3";
/// Profiles take their time, and it finds out how keys are called and revokes its own.
const LEFT_OUT: &str = "/v1/admin/(profile|keys/)";
/// The first key ends the open mode, and the next request would be refused.
const LEFT_OUT_WITHOUT_KEYS: &str = "/v1/admin/(keys|profile)";

#[test]
fn every_route_of_the_description_exists() {
    let server = Server::start();
    let description = server.get("/openapi.json").json();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 30);
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let (method, path) = (method.to_uppercase(), placed(path));
            let path = path.replace("/profile", "/profile?seconds=1");
            let answer = server.connect().request(&method, &path, &[], b"");
            let known = match answer.status {
                404 => path.contains("none"),
                status => status != 405,
            };
            assert!(known, "{method} {path}: {}", answer.status);
            let declared = &operations[&method.to_lowercase()]["responses"];
            assert!(declared.get(answer.status.to_string()).is_some(), "{method} {path}");
        }
    }
}

/// `path` with names in it that nothing has.
fn placed(path: &str) -> String {
    path.replace("{id}", "none").replace("{name}", "none")
}

/// Beside Python's readers, where CI installs it.
fn schemathesis() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("RINGLAKE_TEST_PYTHON")?);
    Some(python.with_file_name("st")).filter(|program| program.is_file())
}

#[test]
fn schemathesis_finds_no_fault_of_ours_and_no_undeclared_answer() {
    hold_against(&Server::start(), LEFT_OUT_WITHOUT_KEYS, None);
}

#[test]
fn schemathesis_finds_none_with_keys_either() {
    let server = Server::with_keys(&[]);
    let key = server.key().to_owned();
    hold_against(&server, LEFT_OUT, Some(&key));
    // Whoever may write is refused nearly everywhere.
    let key = make_key(&server.data, &["--scope", "write", "--tenant", "acme"]);
    hold_against(&server, LEFT_OUT, Some(&key));
}

/// Lets Schemathesis try all that the description allows, but for the paths `left_out`.
fn hold_against(server: &Server, left_out: &str, key: Option<&str>) {
    let Some(schemathesis) = schemathesis() else {
        skip("schemathesis, beside the Python that RINGLAKE_TEST_PYTHON names");
        return;
    };
    let url = server.url();
    // It leaves notes where it runs, and the description may be read with a key only.
    let scratch = tempfile::tempdir().unwrap();
    let description = scratch.path().join("openapi.json");
    std::fs::write(&description, server.get("/openapi.json").body).unwrap();
    let header = key.map(|key| format!("Authorization: Bearer {key}"));
    let output = Command::new(schemathesis)
        .arg("run")
        .arg(&description)
        .args(["--url", &url, "--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--exclude-path-regex", left_out, "--seed", "1", "--workers", "1"])
        .args(header.iter().flat_map(|header| ["--header", header]))
        .arg("--no-color")
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", text(&output.stderr));
    assert!(report.contains("passed"), "{report}");
}
