//! Metrics as Prometheus fetches them, and a strict parser of their text (OpenMetrics 1.0).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The metrics at one moment.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
    samples: BTreeMap<(String, Labels), f64>,
}

type Labels = BTreeMap<String, String>;

/// Sends this text to an address. Returns the status, head and body of the answer.
pub fn say(address: SocketAddr, text: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The listener may refuse it before it has read all of it.
    let _ = stream.write_all(text);
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told);
    let told = String::from_utf8(told).unwrap();
    let (head, body) = told.split_once("\r\n\r\n").unwrap_or((&told, ""));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), head.to_ascii_lowercase(), body.to_owned())
}

impl Scrape {
    pub fn of(address: SocketAddr) -> Self {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let (status, head, body) = say(address, request.as_bytes());
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
        Self::parse(body).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The value of this metric with exactly these labels. `None` if there is no such sample.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels = labels.iter().map(own).collect();
        self.samples.get(&(format!("keyhatch_{name}"), labels)).copied()
    }

    /// The number of requests with these labels.
    pub fn requests(&self, door: &str, method: &str, reason: &str) -> u64 {
        let labels = [("door", door), ("method", method), ("reason", reason)];
        whole(self.get("requests_total", &labels).unwrap_or(0.0))
    }

    /// The number of requests of a method, for all reasons.
    pub fn all_requests(&self, door: &str, method: &str) -> u64 {
        let is_its = |labels: &Labels| labels["door"] == door && labels["method"] == method;
        let all = self
            .samples
            .iter()
            .filter(|((name, labels), _)| name == "keyhatch_requests_total" && is_its(labels));
        whole(all.map(|(_, count)| count).sum())
    }

    /// All values of a label.
    pub fn values_of(&self, label: &str) -> BTreeSet<String> {
        self.samples.keys().filter_map(|(_, labels)| labels.get(label).cloned()).collect()
    }

    fn parse(text: String) -> Result<Self, String> {
        let mut scrape = Self { text, samples: BTreeMap::new() };
        let text = scrape.text.clone();
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
        let mut families = BTreeSet::new();
        let mut family: Option<Family> = None;
        for line in body.lines() {
            let fault = |what: &str| format!("{what}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| fault("no help"))?;
                if !is_name(name) || !name.starts_with("keyhatch_") || !help.ends_with('.') {
                    return Err(fault("a bad name or help"));
                }
                if !families.insert(name.to_owned()) {
                    return Err(fault("a family in two places"));
                }
                family = Some(Family { name: name.to_owned(), kind: String::new() });
                continue;
            }
            let family = family.as_mut().ok_or_else(|| fault("no family"))?;
            let own = format!("{} ", family.name);
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind = rest.strip_prefix(&own).ok_or_else(|| fault("another family's"))?;
                kind.clone_into(&mut family.kind);
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let unit = rest.strip_prefix(&own).ok_or_else(|| fault("another family's"))?;
                if !family.name.ends_with(&format!("_{unit}")) {
                    return Err(fault("a name without its unit"));
                }
            } else {
                let (name, labels, value) = sample(line).ok_or_else(|| fault("no sample"))?;
                family.check(&name, value).map_err(fault)?;
                if scrape.samples.insert((name, labels), value).is_some() {
                    return Err(fault("told twice"));
                }
            }
        }
        scrape.check_histograms()?;
        Ok(scrape)
    }

    /// Buckets are cumulative, and the last bucket equals the count.
    fn check_histograms(&self) -> Result<(), String> {
        let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), count) in &self.samples {
            let Some(name) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let le = labels.remove("le").ok_or("a bucket without an end")?;
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().map_err(|_| le)? };
            buckets.entry((name.to_owned(), labels)).or_default().push((le, *count));
        }
        for ((name, labels), mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            let count = self.samples.get(&(format!("{name}_count"), labels.clone()));
            let grows = buckets.is_sorted_by(|one, other| one.1 <= other.1);
            if !grows
                || buckets.last().map(|last| (last.0, &last.1))
                    != count.map(|count| (f64::INFINITY, count))
            {
                return Err(format!("{name} {labels:?}: {buckets:?}, {count:?}"));
            }
        }
        Ok(())
    }
}

struct Family {
    name: String,
    kind: String,
}

impl Family {
    fn check(&self, name: &str, value: f64) -> Result<(), &'static str> {
        let suffix = name.strip_prefix(&self.name).ok_or("another family's")?;
        let is_right = match self.kind.as_str() {
            "counter" => suffix == "_total" && value >= 0.0,
            "gauge" => suffix.is_empty(),
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix) && value >= 0.0,
            "info" => suffix == "_info" && value == 1.0,
            _ => false,
        };
        if is_right && value.is_finite() { Ok(()) } else { Err("not of its type") }
    }
}

fn is_name(name: &str) -> bool {
    let is_of_it = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty()
        && name.chars().all(is_of_it)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',')?;
        }
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| (name.to_owned(), labels, value))
}

/// A label's value, and the text after its closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn whole(count: f64) -> u64 {
    assert_eq!(count.fract(), 0.0);
    format!("{count}").parse().unwrap()
}
