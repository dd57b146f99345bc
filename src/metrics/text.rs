//! Counters and gauges as text.

use std::{fmt, slice};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// A unit, which is the suffix of a metric's name.
pub use prometheus_client::registry::Unit;

use super::endpoint::{Durations, EndpointMetrics, Method};
use super::{LabelCounters, Metrics};

/// The prefix of every name.
const PREFIX: &str = "keyhatch";

/// A present value, or several with a label.
#[derive(Debug)]
pub struct Gauge {
    /// The name, without prefix and unit.
    pub name: &'static str,
    /// The description, a sentence.
    pub help: &'static str,
    /// The unit, if there is one.
    pub unit: Option<Unit>,
    /// The values, each with a label if there are several.
    pub values: Vec<(Option<(&'static str, String)>, i64)>,
}

impl Gauge {
    /// A gauge with one value.
    pub fn of(name: &'static str, help: &'static str, value: i64) -> Self {
        Self { name, help, unit: None, values: vec![(None, value)] }
    }

    /// A gauge with one value per label. The number of labels must be small and bounded.
    pub fn by(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, i64)>,
    ) -> Self {
        let values = values.into_iter().map(|(of, value)| (Some((label, of)), value));
        Self { name, help, unit: None, values: values.collect() }
    }

    /// The gauge with a unit.
    pub fn in_unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }
}

/// All metrics as text, in the format of OpenMetrics 1.0.
///
/// # Errors
/// If they cannot be written, which does not happen with a string.
pub fn text(metrics: &Metrics, gauges: Vec<Gauge>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape { metrics: metrics.clone(), gauges }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    gauges: Vec<Gauge>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("build", "The version of the daemon.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.encode_requests(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        self.encode_stream_ends(&mut encoder)?;
        self.encode_refused(&mut encoder)?;
        self.encode_mints(&mut encoder)?;
        self.encode_sends(&mut encoder)?;
        self.gauges.iter().try_for_each(|gauge| encode_gauge(&mut encoder, gauge))
    }
}

impl Scrape {
    /// Every method of both doors.
    fn methods(&self) -> impl Iterator<Item = (&EndpointMetrics, &Method)> {
        let doors = self.metrics.doors().into_iter();
        doors.flat_map(|door| door.methods().map(move |method| (door, method)))
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests by what they were answered: OK, the reason of the refusal, or CANCELLED if the \
                    client went away first. A stream is counted when it begins.";
        let mut requests =
            encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        self.methods().try_for_each(|(door, method)| {
            let labels = [("door", door.name), ("method", &method.name)];
            encode_counters(&mut requests, &method.answers, labels, "reason")
        })
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the head of a request to the head of its answer, of requests that reached their method.";
        let unit = Some(&Unit::Seconds);
        let mut durations =
            encoder.encode_descriptor("request_duration", help, unit, MetricType::Histogram)?;
        self.methods().try_for_each(|(door, method)| {
            let labels = [("door", door.name), ("method", method.name.as_str())];
            encode_durations(&mut durations, &method.durations, &labels)
        })
    }

    fn encode_stream_ends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Streams that have ended, by gRPC's code; CANCELLED if the client went away first.";
        let mut ends =
            encoder.encode_descriptor("streams_ended", help, None, MetricType::Counter)?;
        self.methods().try_for_each(|(door, method)| {
            let labels = [("door", door.name), ("method", &method.name)];
            encode_counters(&mut ends, &method.stream_ends, labels, "code")
        })
    }

    fn encode_refused(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections that were turned away or refused in the TLS handshake, before any request.";
        let mut refused =
            encoder.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
        let mut doors = self.metrics.doors().into_iter();
        doors.try_for_each(|door| {
            encode_counters(&mut refused, &door.refused, [("door", door.name)], "reason")
        })
    }

    fn encode_mints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sources = || self.metrics.mints.sources().iter();
        let help = "Short-lived credentials that upstreams were asked for: OK, or the reason of the failure.";
        let mut mints = encoder.encode_descriptor("mints", help, None, MetricType::Counter)?;
        sources().try_for_each(|of| {
            encode_counters(&mut mints, &of.mints, [("source", of.name)], "outcome")
        })?;
        let help = "What decisions on minted connections found: a credential (HIT), a mint that was under way \
                    (JOINED), a failure that was not over (NEGATIVE), or nothing (MISSED).";
        let mut lookups =
            encoder.encode_descriptor("mint_lookups", help, None, MetricType::Counter)?;
        sources().try_for_each(|of| {
            encode_counters(&mut lookups, &of.lookups, [("source", of.name)], "found")
        })?;
        let help = "Attempts to end credentials upstream: ENDED, LEFT_TO_EXPIRE (expired meanwhile), LEFT_DISABLED \
                    (something of it stays), or the reason of a failure.";
        let mut endings = encoder.encode_descriptor("endings", help, None, MetricType::Counter)?;
        sources().try_for_each(|of| {
            encode_counters(&mut endings, &of.endings, [("source", of.name)], "outcome")
        })?;
        let help = "From the beginning of a mint to the upstream's answer.";
        let unit = Some(&Unit::Seconds);
        let mut durations =
            encoder.encode_descriptor("mint_duration", help, unit, MetricType::Histogram)?;
        sources().try_for_each(|of| {
            encode_durations(&mut durations, &of.durations, &[("source", of.name)])
        })
    }
}

impl Scrape {
    fn encode_sends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "HTTP requests that the broker has sent for steps, by how they ended: OK if the answer was complete, whatever its \
                    status is, CANCELLED if the step went away, or the reason of the failure.";
        let mut sends = encoder.encode_descriptor("sends", help, None, MetricType::Counter)?;
        encode_counters(&mut sends, &self.metrics.sends.outcomes, [], "outcome")?;
        let help = "Bytes of the bodies of such requests (sent) and of their answers (received).";
        let unit = Some(&Unit::Bytes);
        let mut bytes = encoder.encode_descriptor("send", help, unit, MetricType::Counter)?;
        self.metrics.sends.bytes().into_iter().try_for_each(|(direction, count)| {
            let labels = [("direction", direction)];
            bytes.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)
        })
    }
}

/// A histogram; nothing if nothing was counted, which would be a page of zeros.
fn encode_durations(
    encoder: &mut MetricEncoder<'_>,
    durations: &Durations,
    labels: &[(&str, &str)],
) -> fmt::Result {
    let (sum, buckets) = durations.read();
    let count = buckets.iter().map(|(_, count)| count).sum();
    if count == 0 {
        return Ok(());
    }
    encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn encode_counters<const N: usize>(
    encoder: &mut MetricEncoder<'_>,
    counters: &LabelCounters,
    labels: [(&str, &str); N],
    label: &'static str,
) -> fmt::Result {
    counters.counts().into_iter().try_for_each(|(word, count)| {
        let labels: Vec<(&str, &str)> = labels.into_iter().chain([(label, word)]).collect();
        encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)
    })
}

fn encode_gauge(encoder: &mut DescriptorEncoder<'_>, gauge: &Gauge) -> fmt::Result {
    let Gauge { name, help, unit, values } = gauge;
    let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    values.iter().try_for_each(|(label, value)| match label {
        None => encoder.encode_gauge(value),
        Some(label) => encoder.encode_family(&slice::from_ref(label))?.encode_gauge(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_line() {
        let metrics = Metrics::new(vec![], vec![], []);
        let gauge = Gauge::by("g", "Help.", "who", [("a\"}\n\\".to_owned(), 1)]);
        let text = text(&metrics, vec![gauge]).unwrap();
        assert!(text.contains("keyhatch_g{who=\"a\\\"}\\n\\\\\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
