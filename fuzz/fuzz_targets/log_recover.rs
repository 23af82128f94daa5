//! Recovery of a damaged directory: it never refuses, everything that the damage left whole is read
//! or in quarantine, nothing else is, and the log goes on.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringlake_disk::RealDisk;
use ringlake_fuzz::log::{Directory, LOGS, SHARD, batch, contains, damage, identity, scratch};
use ringlake_log::{Error, Log, SegmentReader, recover, scan};

fuzz_target!(|bytes: &[u8]| {
    // Too few bytes are no damage.
    let _ = directory(&mut Unstructured::new(bytes));
});

fn directory(bytes: &mut Unstructured<'_>) -> Result<()> {
    let log = &LOGS[bytes.choose_index(LOGS.len())?];
    let mut files = Vec::new();
    for segment in &log.segments {
        let mut file = segment.bytes.clone();
        damage(&mut file, bytes)?;
        files.push(file);
    }
    let scratch = scratch();
    for (segment, file) in log.segments.iter().zip(&files) {
        fs::write(scratch.path().join(&segment.name), file).unwrap();
    }
    start(scratch.path(), log, &files);
    Ok(())
}

fn start(directory: &Path, log: &Directory, files: &[Vec<u8>]) {
    let quarantine = directory.join("quarantine");
    let found = match recover(SHARD, 0, directory, &quarantine, &RealDisk, &mut |_| ()) {
        Ok(found) => found,
        Err(error) => {
            assert!(error.to_string().contains("is a log of format"), "{error}");
            let is_other =
                |file: &Vec<u8>| file.starts_with(b"ringlog\0") && file[8..12] != [2, 0, 0, 0];
            assert!(files.iter().any(is_other), "{error}");
            return;
        }
    };
    let aside = set_aside(&quarantine);
    let read = frames(directory, log);
    for (segment, file) in log.segments.iter().zip(files) {
        for frame in segment.untouched(file) {
            let kept = segment.has_header(file) && read.contains(&frame.first);
            let kept = kept || aside.iter().any(|bytes| contains(bytes, &frame.bytes));
            assert!(kept, "frame {} is whole and gone", frame.first);
        }
    }
    assert!(read.iter().all(|first| *first <= found.last));
    goes_on(directory, log, &read);
}

/// The contents of the quarantine files.
fn set_aside(quarantine: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(quarantine) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|found| found == "bin"));
    files.map(|path| fs::read(path).unwrap()).collect()
}

/// The first numbers of all frames; each is one that was written, in its segment.
fn frames(directory: &Path, log: &Directory) -> Vec<i64> {
    let mut found = Vec::new();
    scan::<Error>(directory, &mut |frame| {
        let rows = i64::try_from(frame.batch().unwrap().num_rows()).unwrap();
        assert_eq!(rows, frame.last() - frame.first() + 1);
        let same = |segment: &&ringlake_fuzz::log::Segment| {
            segment.frames.iter().any(|written| {
                (written.first, written.body.as_slice()) == (frame.first(), frame.body())
            })
        };
        assert!(log.segments.iter().any(|segment| same(&segment)), "never written");
        found.push(frame.first());
        Ok(())
    })
    .unwrap();
    found
}

/// Starts once more, writes, and reads everything back.
fn goes_on(directory: &Path, log: &Directory, before: &[i64]) {
    let again = recover(SHARD, 0, directory, &directory.join("quarantine"), &RealDisk, &mut |_| ())
        .unwrap();
    assert_eq!(again.torn_bytes, 0, "a tail is torn once");
    let next = again.last + 1;
    let disk = Arc::new(RealDisk);
    let mut writer =
        Log::new(directory.into(), disk, identity(), 1 << 20, again.segments, again.voids).unwrap();
    writer.append(&batch(&["one more".into()]), next).unwrap();
    let newest = ringlake_fuzz::log::paths(directory).pop().unwrap();
    let mut reader = SegmentReader::open(&newest).unwrap();
    assert!(reader.next_item().unwrap().is_some());
    fs::remove_file(newest).unwrap();
    assert_eq!(frames(directory, log), before);
}
