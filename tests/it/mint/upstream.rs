//! An upstream whose answers a test scripts. It serves many connections at a time.

use std::io::BufReader;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::harness::{HttpRequest, HttpResponse, read_http, respond_http};

/// The path at which tokens are revoked.
pub const REVOKE: &str = "/revoke";

type Script = Box<dyn Fn(usize) -> HttpResponse + Send>;

/// An upstream on this machine. Its threads end with the test's process.
pub struct Scripted {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    asked: Mutex<Vec<HttpRequest>>,
    /// The answer to the nth request, from 1.
    script: Mutex<Script>,
    /// The answer to the nth request, if it revokes a token.
    revocation: Mutex<Script>,
    is_held: Mutex<bool>,
    released: Condvar,
}

impl Scripted {
    /// An upstream that makes tokens for an hour: minted-1, minted-2 and so on.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            script: Mutex::new(Box::new(|n| token(n, 3600))),
            revocation: Mutex::new(Box::new(|_| status(200, ""))),
            is_held: Mutex::default(),
            released: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// From now on, this answers the nth request.
    pub fn answers(&self, script: impl Fn(usize) -> HttpResponse + Send + 'static) {
        *self.shared.script.lock() = Box::new(script);
    }

    /// From now on, this answers the nth request, if its path is /revoke.
    pub fn revokes(&self, script: impl Fn(usize) -> HttpResponse + Send + 'static) {
        *self.shared.revocation.lock() = Box::new(script);
    }

    /// The tokens whose revocation was asked for, in order.
    pub fn revoked(&self) -> Vec<String> {
        let asked = self.asked().into_iter().filter(|request| request.path == REVOKE);
        let token = |request: HttpRequest| {
            let mut form = form_urlencoded::parse(&request.body);
            form.find(|(name, _)| name == "token").unwrap().1.into_owned()
        };
        asked.map(token).collect()
    }

    /// From now on, every answer waits until it is released.
    pub fn hold(&self) {
        *self.shared.is_held.lock() = true;
    }

    /// Sends the answers that wait, and all later ones at once.
    pub fn release(&self) {
        *self.shared.is_held.lock() = false;
        self.shared.released.notify_all();
    }

    /// How many requests have arrived.
    pub fn calls(&self) -> usize {
        self.shared.asked.lock().len()
    }

    /// All requests.
    pub fn asked(&self) -> Vec<HttpRequest> {
        self.shared.asked.lock().clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let Some(request) = read_http(&mut stream) else { return };
        let is_revocation;
        let number = {
            let mut asked = self.asked.lock();
            is_revocation = request.path == REVOKE;
            asked.push(request);
            asked.len()
        };
        let mut is_held = self.is_held.lock();
        while *is_held {
            self.released.wait(&mut is_held);
        }
        drop(is_held);
        let script = if is_revocation { &self.revocation } else { &self.script };
        let answer = (script.lock())(number);
        respond_http(stream.get_mut(), &answer);
    }
}

/// The answer with the nth token.
pub fn token(n: usize, seconds: u64) -> HttpResponse {
    let body = format!(
        "{{\"access_token\": \"minted-{n}\", \"token_type\": \"Bearer\", \"expires_in\": {seconds}}}"
    );
    (200, vec![("content-type", "application/json".to_owned())], body.into())
}

/// An answer with this status and JSON.
pub fn status(status: u16, json: &str) -> HttpResponse {
    (status, vec![("content-type", "application/json".to_owned())], json.into())
}
