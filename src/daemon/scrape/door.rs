//! Who may ask for metrics, and what is answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, VARY,
};
use hyper::{Method, Request, Response, StatusCode};

use tokio::time::Instant;

use super::told::Text;
use super::{Source, gauges};
use crate::metrics;

/// The only path.
const PATH: &str = "/metrics";
/// OpenMetrics, which Prometheus has read since version 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What whoever does not read that asks for by name.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(super) async fn answer(
    source: &Source,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if !is_for_loopback(request.headers()) {
        let text = "metrics are told to who asks for them by a loopback address or localhost";
        return Ok(plain(StatusCode::MISDIRECTED_REQUEST, text));
    }
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, "metrics are at /metrics"));
    }
    if request.method() != Method::GET {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Ok(answer);
    }
    let is_classic = prefers_classic(request.headers());
    Ok(match text(source.clone()).await {
        Some(Text { classic, .. }) if is_classic => told(CLASSIC, classic),
        Some(Text { open_metrics, .. }) => told(OPEN_METRICS, open_metrics),
        None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    })
}

async fn text(source: Source) -> Option<Text> {
    let begun = Instant::now();
    if let Some(text) = source.told.again(begun) {
        return Some(text);
    }
    let readers = Arc::clone(&source.readers);
    let turn = match readers.clone().try_acquire_owned() {
        Ok(turn) => turn,
        // Others make a text just now, and theirs is as good.
        Err(_) => {
            let turn = match source.told.last(begun) {
                Some(text) => return Some(text),
                None => readers.acquire_owned().await.ok()?,
            };
            if let Some(text) = source.told.last(Instant::now()) {
                return Some(text);
            }
            turn
        }
    };
    // It looks at the journal, whose disk may hang.
    let text = tokio::task::spawn_blocking(move || {
        let text = metrics::text(&source.metrics, gauges::read(&source.broker));
        let text = text.ok().map(|text| Text {
            classic: metrics::classic(&text).into(),
            open_metrics: text.into(),
        });
        if let Some(text) = &text {
            source.told.keep(begun, text);
        }
        drop(turn);
        text
    });
    text.await.ok()?
}

/// A page that a browser shows can have a name of its own lead to this address (DNS rebinding), and then says that
/// name as its host. The port may be another: a tunnel has its own.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether the older format is asked for, and rather than another (RFC 9110, 12.5.1). Who names none of them is told
/// OpenMetrics.
fn prefers_classic(headers: &HeaderMap) -> bool {
    let (mut classic, mut open) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|part| part.split_once('='));
        let (mut quality, mut version) = (1.0, None);
        for (name, value) in parameters {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        match (kind.as_str(), version) {
            ("text/plain", None | Some("0.0.4")) | ("text/*", _) => {
                classic = classic.max(quality);
            }
            ("application/openmetrics-text" | "application/*" | "*/*", _) => {
                open = open.max(quality);
            }
            _ => {}
        }
    }
    classic > open
}

fn told(kind: &'static str, text: Bytes) -> Answer {
    let mut answer = with(StatusCode::OK, kind, text);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    with(status, PLAIN, format!("{text}\n"))
}

fn with(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_who_asks_for_it() {
        let prefers = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
            prefers_classic(&headers)
        };
        for accept in [
            "text/plain",
            "text/plain;version=0.0.4",
            "Text/Plain; Version=\"0.0.4\"; Q=0.5, */*;q=0.1",
            "text/*",
            "application/openmetrics-text;q=0.2,text/plain;q=0.3",
        ] {
            assert!(prefers(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xml;q=0.9,*/*;q=0.8",
            "application/json, text/plain, */*",
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain;version=1.0.0",
            "text/plain;q=0",
            "text/plain;q=x",
        ] {
            assert!(!prefers(accept), "{accept}");
        }
        assert!(!prefers_classic(&HeaderMap::new()));
    }

    #[test]
    fn a_host_is_this_machine_by_number_or_is_localhost() {
        let is_ours = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            is_for_loopback(&headers)
        };
        for host in
            ["127.0.0.1:9464", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9464", "[::1]"]
        {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "",
            ":9464",
            "10.0.0.1:9464",
            "localhost.example:9464",
            "example.localhost",
            "127.0.0.1.example",
            "127.0.0.1:x",
            "localhost:",
            "[::]:9464",
            "a@localhost",
        ] {
            assert!(!is_ours(host), "{host}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HOST, HeaderValue::from_static("localhost"));
        twice.append(HOST, HeaderValue::from_static("localhost"));
        assert!(!is_for_loopback(&twice) && !is_for_loopback(&HeaderMap::new()));
    }
}
