#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn names(path: &str) -> Vec<String> {
    Path::parse(path).unwrap().names
}

/// What `paths` give in `object`, by their places.
fn found<'t>(paths: &[Vec<String>], object: &'t str) -> Vec<Option<&'t str>> {
    let wanted = Wanted::new(paths.iter().map(Vec::as_slice).enumerate());
    let mut found = vec![None; paths.len()];
    wanted.find(object, |number, raw| {
        assert!(found[number].replace(raw).is_none(), "{object}: {number} twice");
    });
    found
}

#[test]
fn paths_are_dotted_or_json_pointers() {
    let path = Path::parse("properties.cart.total").unwrap();
    assert_eq!((path.root, path.names), (Root::Properties, vec!["cart".into(), "total".into()]));
    let path = Path::parse("/context/utm.source/a~1b~0c").unwrap();
    assert_eq!((path.root, path.names), (Root::Context, vec!["utm.source".into(), "a/b~c".into()]));
    for wrong in [
        "",
        "properties",
        "/properties",
        "user_id",
        "url.path",
        "properties.",
        "properties..a",
        "properties.a.b.c.d.e.f.g.h.i",
        "/properties/a~",
        "/properties/a~2",
        &format!("properties.{}", "a".repeat(PATH_MAX_BYTES)),
    ] {
        assert!(Path::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Path::parse("properties.a.b.c.d.e.f.g.h").is_ok());
}

#[test]
fn values_are_found_wherever_they_stand() {
    let paths = ["properties.plan", "properties.cart.total", "properties.cart", "properties.plan"];
    let paths = paths.map(names);
    let object = r#" { "x":[{"plan":1},"}"], "cart" : {"a":{"total":2},"total": 9.5 ,"z":[]},
        "pl\u0061n":"pro\n", "rest":"\"" } "#;
    let values = found(&paths, object);
    assert_eq!(values[0], Some(r#""pro\n""#));
    assert_eq!(values[1], Some("9.5"));
    assert_eq!(values[2], Some(r#"{"a":{"total":2},"total": 9.5 ,"z":[]}"#));
    assert_eq!(values[3], values[0], "two columns of one path");
    assert_eq!(found(&paths, r#"{"cart":7}"#), [None, None, Some("7"), None]);
    assert_eq!(found(&paths, "{}"), [None; 4]);
}

#[test]
fn what_is_no_json_gives_no_panic() {
    let whole = r#"{"a":{"b":[1,"\u00e9"]},"c":-1.5e3,"d":"ä"}"#;
    let paths = ["properties.a.b", "properties.c", "properties.d"].map(names);
    for end in (0..whole.len()).filter(|&end| whole.is_char_boundary(end)) {
        let values = found(&paths, &whole[..end]);
        let count = values.iter().filter(|value| value.is_some()).count();
        // All that is wanted is there without the last brace.
        assert!(count < 3 || end == whole.len() - 1, "{}", &whole[..end]);
    }
    for text in ["", "[]", "7", "{]", "{\"a\"", "{\"a\":}", "{\"c\":", "}{", "{\"a\":{\"b\"}"] {
        let _ = found(&paths, text);
    }
}

#[test]
fn values_have_one_type() {
    assert_eq!(text(r#""a\u00e9\"""#).unwrap(), "aé\"");
    assert_eq!(text(r#""""#).unwrap(), "");
    assert!(["1", "null", "true", "{}", "[\"a\"]", "\""].iter().all(|raw| text(raw).is_none()));
    for (raw, value) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("-7", Some(-7)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("5.0", Some(5)),
        ("1e3", Some(1_000)),
        ("5.5", None),
        ("9007199254740992.0", None),
        ("1e400", None),
        ("\"5\"", None),
        ("true", None),
    ] {
        assert_eq!(whole(raw), value, "{raw}");
    }
    assert_eq!(float("-1.5e3"), Some(-1_500.0));
    assert_eq!(float("7"), Some(7.0));
    assert!(["\"1\"", "null", "inf", "nan", "1e999"].iter().all(|raw| float(raw).is_none()));
    assert_eq!((boolean("true"), boolean("false")), (Some(true), Some(false)));
    assert!(["1", "\"true\"", "null"].iter().all(|raw| boolean(raw).is_none()));
    assert_eq!(moment("\"1970-01-01T00:00:01Z\""), Some(1_000_000));
    assert_eq!(moment("1700000000"), Some(1_700_000_000_000_000));
    assert!(["\"1700000000\"", "true", "\"yesterday\""].iter().all(|raw| moment(raw).is_none()));
}

/// Names that occur in paths and those that do not, some with escapes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "c", "é\"", "a.b", "\u{1}"]).prop_map(str::to_owned),
        "[a-c\\\\/ ]{0,2}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |it| it.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("2026-01-31T12:00:00.5Z")),
    ];
    leaf.prop_recursive(4, 24, 4, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            object(inside).prop_map(Value::Object),
        ]
    })
}

fn object(inside: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((name(), inside), 0..5).prop_map(|members| members.into_iter().collect())
}

/// What serde_json finds below `names`.
fn expected<'v>(object: &'v Map<String, Value>, names: &[String]) -> Option<&'v Value> {
    let (name, rest) = names.split_first()?;
    let value = object.get(name)?;
    if rest.is_empty() { Some(value) } else { expected(value.as_object()?, rest) }
}

proptest! {
    #[test]
    fn every_value_is_what_serde_json_finds(
        object in object(value()),
        paths in prop::collection::vec(prop::collection::vec(name(), 1..4), 1..6),
        pretty in any::<bool>(),
    ) {
        let written = match pretty {
            true => serde_json::to_string_pretty(&object),
            false => serde_json::to_string(&object),
        };
        let written = written.unwrap();
        let found = found(&paths, &written);
        for (path, raw) in paths.iter().zip(found) {
            let expected = expected(&object, path);
            let parsed = raw.map(|raw| serde_json::from_str::<Value>(raw).unwrap());
            // Compared as text: a float may come back from serde_json's parser rounded.
            let again = expected.map(|value| serde_json::from_str(&value.to_string()).unwrap());
            prop_assert_eq!(&parsed, &again, "{:?} in {}", path, written);
            let (Some(raw), Some(expected)) = (raw, expected) else { continue };
            let plain = text(raw);
            prop_assert_eq!(plain.as_deref(), expected.as_str());
            prop_assert_eq!(float(raw), expected.as_f64());
            prop_assert_eq!(boolean(raw), expected.as_bool());
            if !expected.is_f64() {
                prop_assert_eq!(whole(raw), expected.as_i64());
            }
        }
    }
}
