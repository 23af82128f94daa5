//! Any bytes as a record: an error or events, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_event::Record;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else {
        return;
    };
    assert_eq!(record.iter().count(), record.events());
    assert_eq!(record.message_ids().count(), record.events());
    let texts = record.iter().map(|event| {
        let optional = [
            event.message_id,
            event.event,
            event.user_id,
            event.anonymous_id,
            event.session_id,
            event.url,
            event.referrer,
            event.user_agent,
            event.properties,
            event.context,
        ];
        optional.into_iter().flatten().map(str::len).sum::<usize>()
    });
    assert!(texts.sum::<usize>() <= bytes.len());
    // Every length is used up: a record that is cut short is none.
    assert!(
        bytes.len() > 4_096 || (0..bytes.len()).all(|end| Record::parse(&bytes[..end]).is_err())
    );
});
