//! What a push and a read cost besides their own work: no allocation and no system call.
//!
//! A program of its own instead of a test in one. It starts itself once more and lets the kernel kill
//! that process at the first system call other than a write (seccomp's strict mode): whatever the
//! process has written when it dies, it got to without one. Dying at the end shows that the kernel
//! was watching.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use ringlake_ring::{Consumer, Producer, ReserveError, ring};
use rustix::thread::{SecureComputingMode, set_secure_computing_mode};

const CAPACITY: usize = 1 << 16;
const LAPS: usize = 100;

/// Says to the process that it is to be watched.
const WATCHED: &str = "RINGLAKE_RING_WATCHED";
const DONE: &str = "done without a system call";
const UNAVAILABLE: i32 = 3;
const SIGKILL: i32 = 9;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every request to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    if cfg!(miri) {
        println!("skipped: Miri starts no processes");
        return;
    }
    let (mut producer, mut consumer) = ring(CAPACITY);
    if env::var_os(WATCHED).is_some() {
        watched(&mut producer, &mut consumer);
    }
    let before = ALLOCATIONS.get();
    let records = work(&mut producer, &mut consumer);
    assert_eq!(ALLOCATIONS.get(), before, "{records} records were to need no allocation");

    let output = Command::new(env::current_exe().unwrap()).env(WATCHED, "1").output().unwrap();
    if output.status.code() == Some(UNAVAILABLE) {
        println!("skipped: this kernel does not watch over system calls");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), DONE, "killed on the way");
    assert_eq!(output.status.signal(), Some(SIGKILL), "nobody was watching");
    println!("{records} records without an allocation or a system call");
}

/// Pushes and reads under the kernel's eyes, and dies.
fn watched(producer: &mut Producer, consumer: &mut Consumer) -> ! {
    let mut output = OpenOptions::new().write(true).open("/proc/self/fd/1").unwrap();
    if set_secure_computing_mode(SecureComputingMode::Strict).is_err() {
        std::process::exit(UNAVAILABLE);
    }
    work(producer, consumer);
    output.write_all(DONE.as_bytes()).unwrap();
    loop {
        thread::yield_now();
    }
}

/// Fills the ring and empties it again, over and over; how many records went through.
fn work(producer: &mut Producer, consumer: &mut Consumer) -> usize {
    let mut records = 0;
    for lap in 0..LAPS {
        loop {
            match producer.try_reserve(lap * 7) {
                Ok(mut reservation) => {
                    reservation.fill(1);
                    reservation.commit(lap);
                }
                Err(ReserveError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(record) = consumer.next() {
            assert_eq!(record.len(), lap);
            records += 1;
        }
        consumer.release();
    }
    records
}
