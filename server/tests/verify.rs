//! `ringlake verify` finds what is wrong: one test for each kind of damage, through the command.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::fs;
use std::path::{Path, PathBuf};

use support::{Server, run, text};

mod support;

/// A stopped directory of one shard: events 1 to 40 in the table, a file for every ten, and 41 to
/// 50 in the log only.
fn stopped() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::on(&data, &[("RINGLAKE_SHARDS", "1")]);
    for round in 0..5 {
        let lines: Vec<String> = (0..10)
            .map(|number| {
                format!(r#"{{"event":"e{}","user_id":"u{number}"}}"#, round * 10 + number)
            })
            .collect();
        assert_eq!(server.post("/v1/events", lines.join("\n")).status, 202);
        if round < 4 {
            assert_eq!(server.post("/v1/admin/roll", "").status, 200);
        }
    }
    server.stop();
    let (code, said) = verify(&data);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("40 events in the table, 10 in the log only"), "{said}");
    assert!(said.contains("50 events, each exactly once"), "{said}");
    (directory, data)
}

/// The exit code, and everything printed.
fn verify(data: &Path) -> (Option<i32>, String) {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The live Parquet files, oldest first.
fn parquet_files(data: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for day in fs::read_dir(data.join("events")).unwrap() {
        let day = day.unwrap().path();
        if day.ends_with("_delta_log") {
            continue;
        }
        files.extend(fs::read_dir(day).unwrap().map(|file| file.unwrap().path()));
    }
    files.sort();
    files
}

/// Replaces a number in every commit of the Delta log that has it.
fn edit_delta_log(data: &Path, from: &str, to: &str) {
    let mut edited = 0;
    for entry in fs::read_dir(data.join("events/_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "crc") {
            // A cache of what the commits say.
            fs::remove_file(&path).unwrap();
        } else if let Ok(commit) = fs::read_to_string(&path)
            && commit.contains(from)
        {
            fs::write(&path, commit.replace(from, to)).unwrap();
            edited += 1;
        }
    }
    assert!(edited > 0, "no commit has {from}");
}

fn assert_found(data: &Path, problem: &str) {
    let (code, said) = verify(data);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(problem), "{problem} is not in: {said}");
    assert!(said.contains("damaged  "), "{said}");
}

#[test]
fn a_missing_number_is_found_in_the_table() {
    let (_directory, data) = stopped();
    // The table says that it holds the shard up to 42: 41 and 42 are in no file.
    edit_delta_log(&data, "\"version\":40", "\"version\":42");
    assert_found(&data, "shard 0: numbers 41 to 42 are missing from the table");
}

#[test]
fn a_missing_number_is_found_in_the_log() {
    let (_directory, data) = stopped();
    // Every start opens a segment of its own; one of them goes.
    for _ in 0..2 {
        let server = Server::on(&data, &[("RINGLAKE_SHARDS", "1")]);
        assert_eq!(server.post("/v1/events", r#"[{"event":"a"},{"event":"b"}]"#).status, 202);
        server.stop();
    }
    let mut segments: Vec<PathBuf> =
        fs::read_dir(data.join("log/0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    assert_found(&data, "shard 0: numbers 51 to 52 are missing from the log");
}

#[test]
fn rows_above_the_number_of_their_shard_are_found() {
    let (_directory, data) = stopped();
    edit_delta_log(&data, "\"version\":40", "\"version\":38");
    assert_found(&data, "shard 0: 2 rows of the table are above its number 38");
}

#[test]
fn a_doubled_number_is_found() {
    let (_directory, data) = stopped();
    // The second file in place of the third: the numbers 11 to 20 are there twice.
    let files = parquet_files(&data);
    let (second, third) = (&files[1], &files[2]);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let size = |path: &Path| format!("\"size\":{}", fs::metadata(path).unwrap().len());
    let (second_size, third_size) = (size(second), size(third));
    let copy = third.with_file_name(name(second).replacen("-", "-0", 1));
    fs::copy(second, &copy).unwrap();
    edit_delta_log(&data, &name(third), &name(&copy));
    if second_size != third_size {
        edit_delta_log(&data, &third_size, &second_size);
    }
    assert_found(&data, "shard 0: 10 rows are in the table twice");
    assert_found(&data, "shard 0: numbers 21 to 30 are missing from the table");
}

#[test]
fn a_changed_byte_in_a_parquet_file_is_found_wherever_it_is() {
    let (_directory, data) = stopped();
    let file = parquet_files(&data).remove(2);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&file).unwrap();
    for place in 0..8 {
        let at = (whole.len() - 1) * place / 7;
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, &bytes).unwrap();
        let (code, said) = verify(&data);
        assert_eq!(code, Some(1), "byte {at} of {}: {said}", whole.len());
        assert!(said.contains(&name) && said.contains("is damaged"), "byte {at}: {said}");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(verify(&data).0, Some(0));
}

#[test]
fn a_delta_entry_without_its_file_is_found() {
    let (_directory, data) = stopped();
    let file = parquet_files(&data).remove(0);
    fs::remove_file(&file).unwrap();
    assert_found(&data, file.file_name().unwrap().to_str().unwrap());
    assert_found(&data, "shard 0: numbers 1 to 10 are missing from the table");
}
