//! What the power-cut model and reading the code have found, one test each.

use super::*;

/// A power cut while a segment was being created left a file of the right length full of zeros: the
/// file system had made the length durable before the bytes. The start took it for damage, set it
/// aside and reported it, although no frame can be in a segment whose header is not synced. It now
/// counts as never finished, whatever its length.
#[test]
fn a_segment_whose_header_never_reached_the_disk_is_no_damage() {
    let scratch = tempfile::tempdir().unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(1, 2), 1).unwrap();
    let header = {
        let reader = SegmentReader::open(&segments(scratch.path())[0]).unwrap();
        usize::try_from(reader.position()).unwrap()
    };
    let unfinished = scratch.path().join("00000000000000000002.log");
    fs::write(&unfinished, vec![0; header]).unwrap();
    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!((found.last, found.segments.len()), (2, 1));
    assert!(found.quarantined.is_empty());
    assert!(!unfinished.exists());
}

/// One changed bit in the length that a segment's header gives made the header seem to reach beyond
/// the end of the file. That was taken for a segment that was never finished, and the file was
/// deleted with every frame in it. Whatever may hold a frame is now set aside.
#[test]
fn a_segment_that_seems_cut_short_is_not_deleted_while_frames_are_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(1, 2), 1).unwrap();
    let path = segments(scratch.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[18] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!(found.quarantined.len(), 1);
    assert_eq!(fs::read(quarantine.join("log-0-00000000000000000001.bin")).unwrap(), bytes);
}

/// The numbers in a segment whose header was damaged were given out again, to other events, and `verify`
/// found none missing. The start now numbers above them, also when it is repeated, and says which are
/// lost; what the segment's blocks held in an earlier life does not count.
#[test]
fn numbers_of_a_segment_with_a_bad_header_are_not_given_out_again() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 2), 1).unwrap();
    log.close_released(2);
    for first in [3, 7, 11] {
        log.append(&numbered(first, 4), first).unwrap();
    }
    let paths = segments(scratch.path());
    let mut bytes = fs::read(&paths[1]).unwrap();
    // An old frame behind the end, with other numbers and another stamp.
    let mut old = Vec::new();
    let mut encoder = FrameEncoder::new().unwrap();
    encoder.encode(&numbered(900, 5), 0, 77, 900, &mut old).unwrap();
    bytes.extend_from_slice(&old);
    bytes[30] ^= 1;
    // The first frame is damaged too.
    let first_frame = bytes.windows(4).position(|bytes| bytes == b"RFRM").unwrap();
    bytes[first_frame + 60] ^= 1;
    fs::write(&paths[1], &bytes).unwrap();
    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!(found.quarantined[0].sequences, Some((3, 14)));
    assert_eq!((found.last, found.segments.len()), (14, 1));
    // Nothing has come since; another report is unreadable.
    fs::write(quarantine.join("other.json"), "{").unwrap();
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!((found.last, found.quarantined.len()), (14, 0));
    let found = recover(1, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!(found.last, 2, "reports of other shards do not count");
}

/// The sync of a frame failed and the process was killed before it could cut the frame off. The next
/// start read the frame from the page cache, synced the file and counted the frame as durable; but
/// after a failed sync the page cache holds the bytes as clean, and a sync has nothing to write. A
/// power cut then took what clients had been told was stored. Recovery now writes the last frame of
/// every segment again before it syncs.
#[test]
fn a_frame_whose_sync_failed_before_a_kill_is_written_again_by_the_start() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    let mut log = open(scratch.path(), Arc::new(disk.clone()), 1 << 20);
    log.append(&numbered(1, 2), 1).unwrap();
    let mut killed = false;
    disk.set_plan(move |call, _| {
        killed |= call == Call::Sync;
        if killed { Fault::Fail(io::ErrorKind::Other) } else { Fault::None }
    });
    log.append(&numbered(3, 2), 3).unwrap_err();
    disk.clear_plan();
    let quarantine = scratch.path().join("quarantine");
    assert_eq!(recover(0, 0, scratch.path(), &quarantine, &disk, &mut |_| ()).unwrap().last, 4);

    let trace = disk.trace();
    let images = trace.after(trace.steps.len()).outcomes();
    assert_eq!(images.len(), 1, "nothing is left that a power cut could take");
    let left = tempfile::tempdir().unwrap();
    images[0].write(left.path()).unwrap();
    assert_eq!(rows(left.path()).len(), 4);
}

/// Segment numbers begin again when a log has no segment left. Damage was known by the place where it
/// was, so that a start which met new damage at an old place took it for what had been set aside
/// before: the lost numbers were named nowhere. The bytes now decide.
#[test]
fn new_damage_at_an_old_place_is_set_aside_too() {
    let scratch = tempfile::tempdir().unwrap();
    let quarantine = scratch.path().join("quarantine");
    for (first, reports) in [(1, 1), (101, 2)] {
        let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
        log.append(&numbered(first, 10), first).unwrap();
        let path = segments(scratch.path()).remove(0);
        let middle = usize::try_from(end(&path)).unwrap() + 60;
        log.append(&numbered(first + 10, 10), first + 10).unwrap();
        log.append(&numbered(first + 20, 10), first + 20).unwrap();
        drop(log);
        let mut bytes = fs::read(&path).unwrap();
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        // A second start finds the same and has nothing to add.
        for new in [1, 0] {
            let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
            assert_eq!(found.quarantined.len(), new);
        }
        let named = quarantined_ranges(&quarantine).unwrap();
        assert_eq!(named.len(), reports);
        let lost = Some((first + 10, first + 19));
        assert!(named.iter().any(|report| report.sequences == lost));
        fs::remove_file(path).unwrap();
    }
}

/// Nothing valid follows the last frame of a segment, so that damage to it looks like what a crash
/// leaves. A start cut it off without a report although the next segment began above its numbers:
/// acknowledged events were gone and nothing said so.
#[test]
fn a_damaged_last_frame_is_set_aside_when_the_next_segment_goes_on_above_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 10), 1).unwrap();
    let path = segments(scratch.path()).remove(0);
    let place = usize::try_from(end(&path)).unwrap() + 60;
    log.append(&numbered(11, 10), 11).unwrap();
    drop(log);
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(21, 10), 21).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();

    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!((found.quarantined.len(), found.torn_bytes), (1, 0));
    assert_eq!(found.quarantined[0].sequences, Some((11, 20)));
    let again = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert!(again.quarantined.is_empty());
    let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
    assert_eq!(numbers, (1..=10).chain(21..=30).collect::<Vec<_>>());
}

/// `verify` passed over a segment whose header was damaged: it saw missing numbers at best, and no
/// word of the file that had held them.
#[test]
fn a_scan_tells_of_a_segment_whose_header_is_damaged() {
    let scratch = tempfile::tempdir().unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(1, 2), 1).unwrap();
    let path = segments(scratch.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = scan::<Error>(scratch.path(), &mut |_| panic!("no frame can be read")).unwrap();
    assert_eq!(found.quarantined.len(), 1);
    assert!(found.quarantined[0].reason.contains("header"), "{:?}", found.quarantined);
    // One that is being created holds nothing yet.
    fs::write(&path, &bytes[..16]).unwrap();
    let found = scan::<Error>(scratch.path(), &mut |_| Ok(())).unwrap();
    assert!(found.quarantined.is_empty());
}

/// A segment whose first write failed kept the number before it as its highest one. Where that was void,
/// the lake never came so far, and an erase waited in vain for the segment to go.
#[test]
fn a_segment_whose_first_write_failed_goes_with_those_before_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, faults) = faulty(scratch.path());
    let mut log = open(scratch.path(), Arc::new(disk), 1 << 20);
    log.append(&numbered(1, 3), 1).unwrap();
    faults.lock().unwrap().extend([FAILED_SYNC, FAILED_SYNC]);
    log.append(&numbered(4, 3), 4).unwrap_err();
    log.start_segment(7).unwrap();
    faults.lock().unwrap().push_back(FAILED_SYNC);
    log.append(&numbered(7, 1), 7).unwrap();
    let before = segments(scratch.path()).len();
    assert_eq!(log.release(3).unwrap(), before - 1);
    assert_eq!(rows(scratch.path()), [(7, "row-7".to_owned())]);
}
