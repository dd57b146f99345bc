//! What is counted at one door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::label_counters::LabelCounters;

/// What a request that was served in full is counted as.
const OK: &str = "OK";
/// The method of requests for what is none: what clients write there would be labels without end.
const OTHER: &str = "other";

/// The upper ends of the buckets, in microseconds. A Resolve takes some tens of them, what waits for the disk some
/// thousands; what is in the last buckets has met a disk that hangs, or a deadline.
const BUCKETS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];

/// The counters of one door.
#[derive(Debug)]
pub struct EndpointMetrics {
    pub(super) name: &'static str,
    methods: BTreeMap<String, Arc<Method>>,
    other: Arc<Method>,
    /// Connections that ended before their first request, by reason.
    pub refused: Arc<LabelCounters>,
}

/// The counters of one method.
#[derive(Debug)]
pub struct Method {
    pub(super) name: String,
    pub(super) answers: LabelCounters,
    pub(super) stream_ends: LabelCounters,
    pub(super) durations: Durations,
}

/// How long something took: how often up to each bucket's end and beyond the last, and all together.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [AtomicU64; BUCKETS.len()],
    longer: AtomicU64,
    nanos: AtomicU64,
}

impl EndpointMetrics {
    /// For a door with these methods, each as "package.Service/Method".
    pub(super) fn new(name: &'static str, methods: Vec<String>) -> Self {
        let methods = methods.into_iter();
        let methods = methods.map(|method| (method.clone(), Arc::new(Method::new(method))));
        Self {
            name,
            methods: methods.collect(),
            other: Arc::new(Method::new(OTHER.to_owned())),
            refused: Arc::default(),
        }
    }

    /// The method that a request's path names.
    pub fn method(&self, path: &str) -> Arc<Method> {
        let found = path.strip_prefix('/').and_then(|path| self.methods.get(path));
        Arc::clone(found.unwrap_or(&self.other))
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values().map(Arc::as_ref).chain([self.other.as_ref()])
    }
}

impl Method {
    fn new(name: String) -> Self {
        let answers = LabelCounters::default();
        answers.expect(&[OK]);
        Self {
            name,
            answers,
            stream_ends: LabelCounters::default(),
            durations: Durations::default(),
        }
    }

    /// Has these reasons told before a request is refused by them.
    pub fn expect_reasons(&self, reasons: &[&'static str]) {
        self.answers.expect(reasons);
    }

    /// Has these codes told before a stream ends with them.
    pub fn expect_ends(&self, codes: &[&'static str]) {
        self.stream_ends.expect(codes);
    }

    /// Counts a request that is answered; a stream, when it begins.
    pub fn answer(&self, reason: Option<&'static str>) {
        self.answers.count(reason.unwrap_or(OK));
    }

    /// Counts a stream that has ended.
    pub fn end_stream(&self, code: &'static str) {
        self.stream_ends.count(code);
    }

    /// Counts how long an answer took.
    pub fn took(&self, duration: Duration) {
        self.durations.count(duration);
    }
}

impl Durations {
    fn count(&self, duration: Duration) {
        let micros = duration.as_micros();
        let fits = |end: &&u64| micros <= u128::from(**end);
        let bucket = BUCKETS.iter().zip(&self.buckets).find(|(end, _)| fits(end));
        let bucket = bucket.map_or(&self.longer, |(_, bucket)| bucket);
        bucket.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// All together in seconds, and how many up to each end, in seconds, from the end before.
    pub(super) fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let counted = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let ends = BUCKETS.map(seconds).into_iter().chain([f64::INFINITY]);
        let counts = self.buckets.iter().chain([&self.longer]).map(counted);
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        (sum, ends.zip(counts).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for micros in [0, 50, 51, 10_000_000, 10_000_001] {
            durations.count(Duration::from_micros(micros));
        }
        let (sum, buckets) = durations.read();
        let filled: Vec<_> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.000_05, 2), (0.000_1, 1), (10.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(sum, 20.000_102);
    }

    #[test]
    fn what_is_no_method_of_the_door_is_counted_as_other() {
        let door = EndpointMetrics::new("steps", vec!["p.S/M".to_owned()]);
        assert_eq!(door.method("/p.S/M").name, "p.S/M");
        for path in ["p.S/M", "/p.S/N", "/", "*", ""] {
            assert_eq!(door.method(path).name, OTHER, "{path}");
        }
    }
}
