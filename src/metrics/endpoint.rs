//! The counters of one door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::label_counters::LabelCounters;

/// The label of a request that was answered without a refusal.
pub(super) const OK: &str = "OK";
/// The label of requests for unknown methods: clients could otherwise make labels without end.
const OTHER: &str = "other";

/// The upper ends of the buckets, in microseconds. A Resolve takes tens of them, a request that waits for the disk
/// thousands. Requests in the last buckets have met a hanging disk or a deadline.
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

/// A histogram of durations: a count per bucket, a count beyond the last, and the sum.
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

    /// The counters of the method that a request's path names.
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

    /// Lists these reasons with a count of zero.
    pub fn expect_reasons(&self, reasons: &[&'static str]) {
        self.answers.expect(reasons);
    }

    /// Lists these codes with a count of zero.
    pub fn expect_ends(&self, codes: &[&'static str]) {
        self.stream_ends.expect(codes);
    }

    /// Counts an answered request; a stream is counted when it begins.
    pub fn answer(&self, reason: Option<&'static str>) {
        self.answers.count(reason.unwrap_or(OK));
    }

    /// Counts a stream that has ended.
    pub fn end_stream(&self, code: &'static str) {
        self.stream_ends.count(code);
    }

    /// Counts the duration of a request.
    pub fn took(&self, duration: Duration) {
        self.durations.count(duration);
    }
}

impl Durations {
    pub(super) fn count(&self, duration: Duration) {
        let micros = duration.as_micros();
        let fits = |end: &&u64| micros <= u128::from(**end);
        let bucket = BUCKETS.iter().zip(&self.buckets).find(|(end, _)| fits(end));
        let bucket = bucket.map_or(&self.longer, |(_, bucket)| bucket);
        bucket.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum in seconds, and the count of each bucket with its upper end in seconds.
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
    fn an_unknown_method_is_counted_as_other() {
        let door = EndpointMetrics::new("steps", vec!["p.S/M".to_owned()]);
        assert_eq!(door.method("/p.S/M").name, "p.S/M");
        for path in ["p.S/M", "/p.S/N", "/", "*", ""] {
            assert_eq!(door.method(path).name, OTHER, "{path}");
        }
    }
}
