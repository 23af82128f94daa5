#![allow(clippy::unwrap_used, reason = "a failed test should panic")]
use std::ffi::OsString;

use super::*;

fn load(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: Vec<Flag>,
) -> Result<Config, UsageError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringlake.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), value.into()));
    Config::load(file.map(|_| path.as_path()), variables, flags)
}

fn error(file: Option<&str>, variables: &[(&str, &str)]) -> String {
    load(file, variables, vec![]).unwrap_err().to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = load(None, &[], vec![]).unwrap();
    assert_eq!(config.engine.data, PathBuf::from("./ringlake-data"));
    assert_eq!(config.listen, "127.0.0.1:8080");
    assert_eq!(config.ack, Ack::Disk);
    assert_eq!(config.engine.duckdb.memory_limit, "1GB");
    assert_eq!(config.http.body_max_bytes, 4 << 20);
    assert_eq!(config.engine.dedup.ids, 4_000_000);
    assert_eq!(config.engine.dedup.window.as_secs(), 24 * 3_600);
    assert_eq!(config.origin("listen"), &Origin::Default);
}

/// A line of `ops/CONFIGURATION.md`.
fn described(key: &keys::Key, defaults: &Table) -> String {
    let default = match (key.name, lookup(defaults, key.name)) {
        ("shards", _) => "one a core".into(),
        (_, None) => "not set".into(),
        (_, Some(value)) => format!("`{value}`"),
    };
    let range = match key.kind {
        Kind::Count { min, max } => format!(", {min} to {max}"),
        _ => String::new(),
    };
    format!("| `{}` | {default} | {}{range} | {} |", key.name, key.unit, key.meaning)
}

#[test]
fn the_reference_describes_every_key_as_the_code_has_it() {
    // Some defaults grow with the cores of the machine.
    let one = load(None, &[("RINGLAKE_SHARDS", "1")], vec![]).unwrap();
    let defaults = show::table(&one).unwrap();
    let expected: Vec<String> = KEYS.iter().map(|key| described(key, &defaults)).collect();
    let written = include_str!("../../ops/CONFIGURATION.md");
    let written: Vec<&str> = written.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(written == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn environment_overrides_the_file_and_flags_override_both() {
    let file = "listen = \"127.0.0.1:1\"\nack = \"memory\"\n[duckdb]\nmemory = \"2GB\"\n";
    let variables = [("RINGLAKE_DUCKDB_MEMORY", "3GB"), ("RINGLAKE_LISTEN", "127.0.0.1:2")];
    let flags = vec![("listen", "--listen", Value::String("127.0.0.1:3".into()))];
    let config = load(Some(file), &variables, flags).unwrap();
    assert_eq!(config.engine.duckdb.memory_limit, "3GB");
    assert_eq!(config.listen, "127.0.0.1:3");
    assert_eq!(config.ack, Ack::Memory);
    assert_eq!(config.origin("listen"), &Origin::Flag("--listen"));
    let variable = Origin::Environment("RINGLAKE_DUCKDB_MEMORY".into());
    assert_eq!(config.origin("duckdb.memory"), &variable);
    assert!(matches!(config.origin("ack"), Origin::File(_)));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_and_its_line() {
    let message = error(Some("[http]\nbody_max = 3\n"), &[]);
    assert!(message.contains("line 2") && message.contains("`body_max`"), "{message}");
    let message = error(Some("colour = \"red\"\n"), &[]);
    assert!(message.contains("`colour`"), "{message}");
}

#[test]
fn an_unknown_variable_is_an_error_that_names_it() {
    let message = error(None, &[("RINGLAKE_DUCKDB_MEMROY", "1GB")]);
    assert!(message.contains("RINGLAKE_DUCKDB_MEMROY"), "{message}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = [
        ("RINGLAKE_LOG", "debug"),
        ("RINGLAKE_KEY", "rl_a"),
        ("RINGLAKE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("RINGLAKE_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    assert!(load(None, &variables, vec![]).is_ok());
}

#[test]
fn a_value_out_of_range_is_an_error_with_the_range() {
    let message = error(None, &[("RINGLAKE_HTTP_EVENTS_MAX", "0")]);
    assert_eq!(message, "http.events_max is 0; it must be between 1 and 1000000 events");
    let message = error(None, &[("RINGLAKE_HTTP_EVENTS_MAX", "many")]);
    assert!(message.contains("`many`"), "{message}");
}

#[test]
fn a_ratio_is_between_nothing_and_everything() {
    for (text, sample) in [("0", 0.0), ("1", 1.0), (" 0.25", 0.25)] {
        let config = load(None, &[("RINGLAKE_TRACES_SAMPLE", text)], vec![]).unwrap();
        assert_eq!(config.traces.sample, sample);
    }
    assert_eq!(load(Some("[traces]\nsample = 1\n"), &[], vec![]).unwrap().traces.sample, 1.0);
    for text in ["1.5", "-0.1", "NaN"] {
        let message = error(None, &[("RINGLAKE_TRACES_SAMPLE", text)]);
        assert!(message.contains("it must be between 0 and 1"), "{message}");
    }
    let message = error(None, &[("RINGLAKE_TRACES_SAMPLE", "few")]);
    assert!(message.contains("`few`") && message.contains("between 0 and 1"), "{message}");
}

/// Packed and unpacked: else it would be answered 503 however often it is sent.
#[test]
fn every_core_has_room_for_one_of_the_largest_bodies() {
    let http = HttpConfig::default();
    assert_eq!(http.bodies_share(2), http.bodies_max_bytes / 2);
    assert_eq!(http.bodies_share(64), 2 * http.body_max_bytes);
}

#[test]
fn an_event_may_not_be_allowed_to_be_larger_than_its_body() {
    let message = error(Some("[http]\nbody_max_bytes = 2048\nevent_max_bytes = 4096\n"), &[]);
    assert!(message.contains("http.body_max_bytes"), "{message}");
}

#[test]
fn the_log_may_not_be_capped_below_what_stays_in_its_open_segments() {
    let variables = [("RINGLAKE_SHARDS", "2"), ("RINGLAKE_LOG_MAX_BYTES", "100000000")];
    let message = error(None, &variables);
    assert!(message.contains("log.max_bytes") && message.contains("117440512"), "{message}");
    assert!(load(None, &[variables[0]], vec![]).is_ok());
}

#[test]
fn a_batch_may_not_be_larger_than_a_frame_of_the_log() {
    let message = error(None, &[("RINGLAKE_LOG_BATCH_BYTES", "134217728")]);
    assert!(
        message.starts_with("log.batch_bytes is 134217728; it must be at most 125829120,"),
        "{message}"
    );
    assert!(message.contains("half of ring_bytes"), "{message}");
    assert!(load(None, &[("RINGLAKE_LOG_BATCH_BYTES", "67108864")], vec![]).is_ok());
}

#[test]
fn the_list_of_keys_and_the_file_format_agree() {
    let value = serde_json::to_value(Raw::default()).unwrap();
    let mut fields = Vec::new();
    for (name, value) in value.as_object().unwrap() {
        match value.as_object() {
            None => fields.push(name.clone()),
            Some(section) => fields.extend(section.keys().map(|key| format!("{name}.{key}"))),
        }
    }
    let mut names: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    fields.sort();
    names.sort();
    assert_eq!(fields, names);
}

#[test]
fn lists_are_separated_by_commas_in_the_environment() {
    let variables = [("RINGLAKE_HTTP_CORS_ORIGINS", "https://a.example, https://b.example")];
    let config = load(None, &variables, vec![]).unwrap();
    assert_eq!(config.http.cors_origins, ["https://a.example", "https://b.example"]);
    assert!(error(None, &[("RINGLAKE_HTTP_CORS_ORIGINS", "a.example")]).contains("a.example"));
}

#[test]
fn what_is_shown_gives_the_same_configuration() {
    let file = "[http]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nevents_max = 7\n\
        [[columns]]\nname = \"plan\"\npath = \"/properties/a b\"\ntype = \"string\"\n\
        [[columns]]\nname = \"n\"\npath = \"context.n\"\ntype = \"int64\"\n";
    let variables = [("RINGLAKE_HOT_ROLL_ROWS", "5000"), ("RINGLAKE_PRIVACY_STORE_IP", "true")];
    let flags = vec![("listen", "--listen", Value::String("127.0.0.1:3".into()))];
    let config = load(Some(file), &variables, flags).unwrap();
    let text = show(&config).unwrap();
    for key in KEYS {
        let name = key.name.split_once('.').map_or(key.name, |(_, name)| name);
        let starts = [format!("{name} = "), format!("# {name} is not set # ")];
        let is_line = |line: &&str| starts.iter().any(|start| line.starts_with(start));
        let mut lines = text.lines().filter(is_line);
        assert!(lines.any(|line| line.contains(&format!(" # {}; ", key.unit))), "{key:?}");
    }
    let again = load(Some(&text), &[], vec![]).unwrap();
    let values = |config| toml::to_string(&Raw::of(config)).unwrap();
    assert_eq!(values(&again), values(&config));
    assert_eq!(again.engine.hot.roll_rows, 5_000);
    assert_eq!((again.engine.columns.len(), &again.engine.columns), (2, &config.engine.columns));
}

#[test]
fn what_is_shown_says_where_values_come_from() {
    let variables = [("RINGLAKE_HTTP_EVENTS_MAX", "7")];
    let text = show(&load(None, &variables, vec![]).unwrap()).unwrap();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    assert_eq!(
        line("events_max"),
        "events_max = 7 # events; environment variable RINGLAKE_HTTP_EVENTS_MAX, default 50000"
    );
    assert_eq!(line("shutdown_timeout_ms"), "shutdown_timeout_ms = 5000 # ms; default");
    assert_eq!(line("# free_min_bytes"), "# free_min_bytes is not set # bytes; default");
}

#[test]
fn columns_are_tables_of_the_file_and_refused_by_their_number() {
    let table = |name: &str, rest: &str| {
        format!("[[columns]]\nname = \"{name}\"\npath = \"properties.a\"\n{rest}\n")
    };
    let fine = table("a", "type = \"double\"");
    let config = load(Some(&fine), &[], vec![]).unwrap();
    assert_eq!(config.engine.columns[0].name, "a");
    assert!(matches!(config.origin("columns"), Origin::File(_)));
    for (second, said) in [
        (table("a", "type = \"double\""), "columns[2].name is a; it must be"),
        (table("url", "type = \"double\""), "columns[2].name is url; it must be"),
        (table("b", "type = \"float\""), "columns[2].type is float; it must be one of string"),
        (table("b", ""), "missing field `type`"),
        (table("b", "type = \"double\"\ndefault = 1"), "unknown field `default`"),
    ] {
        let message = error(Some(&(fine.clone() + &second)), &[]);
        assert!(message.contains(said), "{message}");
    }
    let message = error(None, &[("RINGLAKE_COLUMNS", "a")]);
    assert!(message.contains("in the configuration file only"), "{message}");
}
