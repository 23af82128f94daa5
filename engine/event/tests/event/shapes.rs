//! Which bodies are one event, several or none.

use ringlake_event::ErrorKind;

use crate::{decode, decode_partial};

/// The event names of an accepted body.
fn names(body: impl AsRef<[u8]>) -> Vec<String> {
    let outcome = decode(body).unwrap();
    outcome.events().iter().map(|event| event.event.unwrap().to_owned()).collect()
}

#[test]
fn one_object_is_one_event() {
    assert_eq!(names(r#"{"event":"a"}"#), ["a"]);
    assert_eq!(names(" \r\n\t{ \"event\" :\n \"a\" } \r\n "), ["a"]);
}

#[test]
fn an_array_is_its_objects() {
    assert_eq!(names(r#"[{"event":"a"},{"event":"b"}]"#), ["a", "b"]);
    assert_eq!(names("\n[ {\"event\":\"a\"} ,\n{\"event\":\"b\"}\n] \n"), ["a", "b"]);
}

#[test]
fn an_empty_array_is_no_event() {
    for body in ["[]", " [ \n ] "] {
        let outcome = decode(body).unwrap();
        assert_eq!((outcome.decoded.accepted, outcome.decoded.record_len), (0, 0));
    }
}

#[test]
fn objects_on_lines_of_their_own_are_events() {
    assert_eq!(names("{\"event\":\"a\"}\n{\"event\":\"b\"}"), ["a", "b"]);
    assert_eq!(names("{\"event\":\"a\"}\r\n{\"event\":\"b\"}\r\n"), ["a", "b"]);
    assert_eq!(names("{\"event\":\"a\"}\n\n \r\n\t\n {\"event\":\"b\"} \n\n"), ["a", "b"]);
    assert_eq!(names("{\n \"event\": \"a\"\n}\n{\n \"event\": \"b\"\n}\n"), ["a", "b"]);
}

#[test]
fn objects_on_one_line_are_refused() {
    for body in [
        r#"{"event":"a"}{"event":"b"}"#,
        r#"{"event":"a"} {"event":"b"}"#,
        "{\"event\":\"a\"}\r{\"event\":\"b\"}",
        r#"{"event":"a"},{"event":"b"}"#,
        r#"{"event":"a"}]"#,
    ] {
        let error = decode(body).unwrap_err();
        assert_eq!((error.kind, error.index), (ErrorKind::NotJson, Some(0)), "{body}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_at_the_start_only() {
    assert_eq!(names("\u{feff}{\"event\":\"a\"}"), ["a"]);
    assert_eq!(names("\u{feff} [{\"event\":\"a\"}]"), ["a"]);
    assert_eq!(decode("\u{feff}").unwrap_err().kind, ErrorKind::Empty);
    let error = decode("{\"event\":\"a\"}\n\u{feff}{\"event\":\"b\"}").unwrap_err();
    assert_eq!((error.kind, error.index), (ErrorKind::NotJson, Some(1)));
}

#[test]
fn a_body_of_nothing_is_empty() {
    for body in ["", " ", "\r\n\t \n"] {
        for error in [decode(body).unwrap_err(), decode_partial(body).unwrap_err()] {
            assert_eq!((error.kind, error.index, error.events_seen), (ErrorKind::Empty, None, 1));
        }
    }
}

#[test]
fn other_json_has_the_wrong_shape() {
    for body in ["1", "-0.5", "\"{}\"", "null", "true", " false"] {
        let error = decode(body).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Shape, "{body}");
    }
    for body in ["[1]", "[[]]", "[null]", "[\"{}\"]", "[[{\"type\":\"a\"}]]"] {
        let error = decode(body).unwrap_err();
        assert_eq!((error.kind, error.index), (ErrorKind::Shape, Some(0)), "{body}");
    }
    for body in ["\n{\"type\":\"a\"}\n1", "{\"type\":\"a\"}\n[]"] {
        let error = decode(body).unwrap_err();
        assert_eq!((error.kind, error.index), (ErrorKind::Shape, Some(1)), "{body}");
    }
}

#[test]
fn other_text_is_not_json() {
    for body in [
        "hello",
        "<html>",
        "nul",
        "type=track",
        "'a'",
        "]",
        "}",
        ",",
        "{",
        "[",
        "[{",
        "[{\"type\":\"a\"}",
        "{\"type\":\"a\"",
        "[{\"type\":\"a\"},]",
        "[{\"type\":\"a\"}] x",
        "[{\"type\":\"a\"}][]",
        "[{\"type\":\"a\"} {\"type\":\"a\"}]",
        "[,{\"type\":\"a\"}]",
        "{\"type\":\"a\",}",
        "\0",
    ] {
        assert_eq!(decode(body).unwrap_err().kind, ErrorKind::NotJson, "{body}");
    }
}
