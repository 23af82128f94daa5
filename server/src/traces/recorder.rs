//! The traces of one serving loop: which requests have one, and which of them is worked on now.
//!
//! **Roles.** One a loop; it stays on the loop's thread.
//!
//! **Limits.** A client that says that its trace is sampled gets what it asks for
//! [`INVITED_PER_SECOND`] times a second; above that its requests are drawn like all others.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Request, Response};

use super::parent::Parent;
use super::request::{self, Stage, Trace};
use super::{Tracer, random};

/// Requests a second and loop that are traced because their client says so. Who looks for one request
/// needs no more, and a stranger who says it of all of his makes us send 20 KB a second.
const INVITED_PER_SECOND: u32 = 10;

/// The part of a serving loop that records traces.
#[derive(Debug)]
pub struct Recorder {
    tracer: Option<Arc<Tracer>>,
    /// The trace of the request that is being polled.
    current: RefCell<Option<Arc<Trace>>>,
    /// When the second of the count began, and the count.
    invited: Cell<Option<(Instant, u32)>>,
}

impl Recorder {
    /// A recorder that hands its traces to `tracer`; without one there are none.
    pub fn new(tracer: Option<Arc<Tracer>>) -> Self {
        let tracer = tracer.filter(|tracer| tracer.threshold.is_some());
        Self { tracer, current: RefCell::default(), invited: Cell::default() }
    }

    /// The trace of a request, if it gets one.
    pub fn begin<B>(&self, request: &Request<B>) -> Option<Arc<Trace>> {
        let tracer = self.tracer.as_ref()?;
        let parent = Parent::of(request.headers());
        let is_sampled = match parent {
            // The client leaves its part out: ours would have no beginning.
            Some(parent) if !parent.is_sampled => false,
            Some(_) if self.may_invite(Instant::now()) => true,
            _ => tracer.threshold.is_some_and(|threshold| random() <= threshold),
        };
        is_sampled.then(|| Arc::new(Trace::start(Arc::clone(tracer), parent, request.method())))
    }

    /// Whether one more client may decide that its request is traced.
    fn may_invite(&self, now: Instant) -> bool {
        let (since, count) = match self.invited.get() {
            Some((since, count)) if now.duration_since(since) < Duration::from_secs(1) => {
                (since, count)
            }
            _ => (now, 0),
        };
        self.invited.set(Some((since, count + 1)));
        count < INVITED_PER_SECOND
    }

    /// The answer to a request that is traced: while it is worked on, [`Recorder::stage`] is about it.
    pub async fn record<B>(
        &self,
        trace: Arc<Trace>,
        mut answer: Pin<&mut impl Future<Output = Response<B>>>,
    ) -> Response<B> {
        let response = poll_fn(|context| {
            let _scope = Scope::enter(self, &trace);
            answer.as_mut().poll(context)
        })
        .await;
        trace.set_status(response.status());
        response
    }

    /// The trace of the request that is being worked on, if it has one.
    pub fn current(&self) -> Option<Arc<Trace>> {
        self.tracer.as_ref()?;
        self.current.borrow().clone()
    }

    /// A stage of the request that is being worked on, if that is traced.
    pub fn stage(&self, name: &'static str) -> Option<Stage> {
        request::stage(self.current().as_ref(), name)
    }
}

/// While it lives a request is worked on; ends also by a panic.
struct Scope<'a>(&'a Recorder);

impl<'a> Scope<'a> {
    fn enter(recorder: &'a Recorder, trace: &Arc<Trace>) -> Self {
        recorder.current.replace(Some(Arc::clone(trace)));
        Self(recorder)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.0.current.replace(None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::pin::pin;
    use std::sync::atomic::Ordering;

    use opentelemetry_proto::tonic::trace::v1::Span;
    use tokio::sync::mpsc;

    use super::super::QUEUE_MAX;
    use super::*;

    fn recorder(sample: f64) -> (Recorder, Arc<Tracer>, mpsc::Receiver<Vec<Span>>) {
        let (tracer, queue) = Tracer::new(sample);
        let tracer = Arc::new(tracer);
        (Recorder::new(Some(Arc::clone(&tracer))), tracer, queue)
    }

    fn request(traceparent: Option<&str>) -> Request<()> {
        let mut request = Request::post("/v1/events");
        if let Some(parent) = traceparent {
            request = request.header("traceparent", parent);
        }
        request.body(()).unwrap()
    }

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const LEFT_OUT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn traced(recorder: &Recorder, request: &Request<()>, times: usize) -> usize {
        (0..times).filter(|_| recorder.begin(request).is_some()).count()
    }

    #[test]
    fn the_sample_is_what_was_asked_for() {
        assert_eq!(traced(&recorder(1.0).0, &request(None), 1_000), 1_000);
        assert_eq!(traced(&recorder(0.0).0, &request(None), 1_000), 0);
        assert_eq!(traced(&recorder(0.0).0, &request(Some(SAMPLED)), 1_000), 0);
        assert_eq!(traced(&Recorder::new(None), &request(Some(SAMPLED)), 1_000), 0);
        // 5,000 are expected, and 50 is one standard deviation.
        let half = traced(&recorder(0.5).0, &request(None), 10_000);
        assert!((4_000..6_000).contains(&half), "{half}");
    }

    #[test]
    fn a_client_decides_about_its_requests_within_a_bound() {
        let (recorder, ..) = recorder(f64::MIN_POSITIVE);
        assert_eq!(traced(&recorder, &request(Some(LEFT_OUT)), 1_000), 0);
        let now = Instant::now();
        let invited = |now| (0..100).filter(|_| recorder.may_invite(now)).count();
        assert_eq!(invited(now), INVITED_PER_SECOND as usize);
        assert_eq!(invited(now + Duration::from_millis(999)), 0);
        assert_eq!(invited(now + Duration::from_secs(1)), INVITED_PER_SECOND as usize);
    }

    #[test]
    fn a_client_that_leaves_its_trace_out_is_not_traced() {
        assert_eq!(traced(&recorder(1.0).0, &request(Some(LEFT_OUT)), 10), 0);
    }

    #[tokio::test]
    async fn stages_belong_to_the_request_that_is_polled() {
        let (recorder, _, mut queue) = recorder(1.0);
        let trace = recorder.begin(&request(Some(SAMPLED))).unwrap();
        trace.set_route("/v1/events");
        let work = pin!(async {
            let stage = recorder.stage("first");
            assert!(stage.is_some());
            tokio::task::yield_now().await;
            drop(stage);
            drop(recorder.stage("second"));
            Response::builder().status(503).body(()).unwrap()
        });
        // Between two polls the loop works on others.
        let mut recording = pin!(recorder.record(trace, work));
        assert!(futures_util::poll!(recording.as_mut()).is_pending());
        assert!(recorder.stage("another's").is_none());
        recording.await;
        let spans = queue.try_recv().unwrap();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["POST /v1/events", "first", "second"]);
        let [root, first, second] = spans.as_slice() else { panic!("three spans") };
        assert_eq!(root.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(root.status.as_ref().unwrap().code, 2);
        for stage in [first, second] {
            assert_eq!((&stage.trace_id, &stage.parent_span_id), (&root.trace_id, &root.span_id));
            assert!(stage.start_time_unix_nano >= root.start_time_unix_nano);
            assert!(stage.end_time_unix_nano <= root.end_time_unix_nano);
        }
        assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    }

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let (recorder, tracer, mut queue) = recorder(1.0);
        assert_eq!(traced(&recorder, &request(None), QUEUE_MAX + 3), QUEUE_MAX + 3);
        // Relaxed: written on this thread.
        assert_eq!(tracer.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), QUEUE_MAX);
    }

    #[test]
    fn stages_have_a_bound() {
        let (recorder, _, mut queue) = recorder(1.0);
        let trace = recorder.begin(&request(None)).unwrap();
        for _ in 0..1_000 {
            drop(request::stage(Some(&trace), "again"));
        }
        drop(trace);
        assert_eq!(queue.try_recv().unwrap().len(), request::STAGES_MAX + 1);
    }
}
