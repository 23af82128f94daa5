//! What holds for every record, whichever body it came from.

use ringlake_event::{Assembly, Record, Request};
use serde_json::{Deserializer, Value};

/// Checks that the record of `assembly` reads back, and that nothing in it is stored that is no JSON.
pub fn check(assembly: &Assembly, request: &Request<'_>) {
    let mut record = vec![0; assembly.record_len(request)];
    let len = assembly.write(request, &mut record);
    if assembly.is_empty() {
        assert_eq!(len, 0);
        return;
    }
    let record = Record::parse(&record[..len]).unwrap();
    assert_eq!(record.iter().count(), assembly.events());
    for text in record.iter().flat_map(|event| [event.properties, event.context]).flatten() {
        let mut deserializer = Deserializer::from_str(text);
        deserializer.disable_recursion_limit();
        let mut values = deserializer.into_iter::<Value>();
        assert!(values.all(|value| value.is_ok()), "stored text is JSON");
    }
}
