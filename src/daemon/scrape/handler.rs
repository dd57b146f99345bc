//! Responses to requests for metrics.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, HOST, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::text_cache::MetricsText;
use super::{MetricsSource, gauges};
use crate::metrics;
use crate::sys::local_http::{HttpResponse, response};

/// The only path.
const PATH: &str = "/metrics";
/// OpenMetrics, which Prometheus has read since version 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older format, for clients that ask for it by name.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Responds to one request.
pub(super) async fn respond(source: &MetricsSource, request: Request<Incoming>) -> HttpResponse {
    if !is_for_loopback(request.headers()) {
        let text = "ask for metrics with a loopback address or localhost as the Host";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics");
    }
    if request.method() != Method::GET {
        let mut response =
            plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read: use GET");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let is_classic = prefers_classic(request.headers());
    match text(source.clone()).await {
        Some(MetricsText { classic, .. }) if is_classic => metrics_in(CLASSIC, classic),
        Some(MetricsText { open_metrics, .. }) => metrics_in(OPEN_METRICS, open_metrics),
        None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

/// The metrics as text: made before, or made now. `None` if they cannot be written.
async fn text(source: MetricsSource) -> Option<MetricsText> {
    let begun = Instant::now();
    if let Some(text) = source.cache.cached(begun) {
        return Some(text);
    }
    let readers = Arc::clone(&source.readers);
    let turn = match readers.clone().try_acquire_owned() {
        Ok(turn) => turn,
        // Others make a text now, which serves as well.
        Err(_) => {
            let turn = match source.cache.last(begun) {
                Some(text) => return Some(text),
                None => readers.acquire_owned().await.ok()?,
            };
            if let Some(text) = source.cache.last(Instant::now()) {
                return Some(text);
            }
            turn
        }
    };
    // The gauges read from the journal, whose disk may hang.
    let text = tokio::task::spawn_blocking(move || {
        let text = metrics::text(&source.metrics, gauges::read(&source.broker));
        let text = text.ok().map(|text| MetricsText {
            classic: metrics::classic(&text).into(),
            open_metrics: text.into(),
        });
        if let Some(text) = &text {
            source.cache.keep(begun, text);
        }
        drop(turn);
        text
    });
    text.await.ok()?
}

/// True if the Host is a loopback address or localhost, with any port: a tunnel has its own. A page in a browser can
/// have its own name resolve to this address (DNS rebinding); its requests carry that name.
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

/// True if the client prefers the older format (RFC 9110, 12.5.1). The default is OpenMetrics.
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

fn metrics_in(content_type: &'static str, text: Bytes) -> HttpResponse {
    let mut response = response(StatusCode::OK, content_type, text);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    response(status, PLAIN, format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_clients_that_prefer_it() {
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
    fn a_host_is_a_loopback_address_or_localhost() {
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
