//! HTTP servers of a test for a tool to talk to. They keep each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The path with its query.
    pub path: String,
    /// The names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpRequest {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// An answer: status, headers, body.
pub type HttpResponse = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A server on this machine. Its thread ends with the test's process.
pub struct HttpServer {
    pub port: u16,
    /// The issuer of its certificate; empty without TLS.
    pub ca_pem: String,
    asked: Receiver<HttpRequest>,
}

impl HttpServer {
    pub fn start(answer: impl Fn(&HttpRequest) -> HttpResponse + Send + 'static) -> Self {
        Self::start_by(|stream| stream, answer)
    }

    /// Starts a server with TLS and a self-signed certificate.
    pub fn start_tls(answer: impl Fn(&HttpRequest) -> HttpResponse + Send + 'static) -> Self {
        let (config, ca_pem) = tls_for(&["127.0.0.1"]);
        let secure = move |stream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            rustls::StreamOwned::new(connection, stream)
        };
        Self { ca_pem, ..Self::start_by(secure, answer) }
    }

    fn start_by<S: Read + Write>(
        open: impl Fn(TcpStream) -> S + Send + 'static,
        answer: impl Fn(&HttpRequest) -> HttpResponse + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(open(stream));
                let Some(request) = read(&mut stream) else { continue };
                respond(stream.get_mut(), &answer(&request));
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        Self { port, ca_pem: String::new(), asked }
    }

    /// All requests since the last call.
    pub fn asked(&self) -> Vec<HttpRequest> {
        self.asked.try_iter().collect()
    }
}

/// Reads a request; `None` if the client is gone.
pub fn read(reader: &mut impl BufRead) -> Option<HttpRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let path = words.nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => break,
        }
    }
    let mut asked = HttpRequest { path, headers, body: Vec::new() };
    let length = asked.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut asked.body).ok()?;
    Some(asked)
}

/// Sends an answer, and closes the connection.
pub fn respond(stream: &mut impl Write, (status, headers, body): &HttpResponse) {
    let mut head = format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // The client may be gone. The test checks its earlier requests.
    let _ = stream.write_all(&[format!("{head}\r\n").as_bytes(), body].concat());
    let _ = stream.flush();
}

/// The settings of a server whose certificate for these hosts is its own issuer, and that issuer's PEM.
pub fn tls_for(hosts: &[&str]) -> (Arc<rustls::ServerConfig>, String) {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.unwrap());
    (Arc::new(config.unwrap()), made.cert.pem())
}
