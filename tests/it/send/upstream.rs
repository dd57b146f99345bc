//! An upstream of raw bytes: it keeps each request as it came, and a test says what goes back. Connections are kept open.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

/// A request as it came: its head, and its body without the framing of chunks.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The number of its connection, from 0.
    pub connection: usize,
    /// Its first line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl RawRequest {
    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let own = pairs.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value).collect()
    }

    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

type Answer = Box<dyn Fn(&RawRequest, &mut TcpStream) + Send>;

/// The upstream. Its threads end with the test's process.
pub struct RawUpstream {
    pub port: u16,
    answer: Arc<Mutex<Answer>>,
    asked: Receiver<RawRequest>,
    broken_off: Receiver<String>,
    begun: Arc<AtomicUsize>,
}

/// What a connection tells of its requests.
#[derive(Clone)]
struct Report {
    asked: Sender<RawRequest>,
    broken_off: Sender<String>,
    begun: Arc<AtomicUsize>,
}

impl RawUpstream {
    /// It answers 200 with what it was sent, and keeps connections.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(echo)));
        let (told_asked, asked) = channel();
        let (told_broken_off, broken_off) = channel();
        let begun = Arc::<AtomicUsize>::default();
        let report =
            Report { asked: told_asked, broken_off: told_broken_off, begun: Arc::clone(&begun) };
        let answers = Arc::clone(&answer);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (answers, report) = (Arc::clone(&answers), report.clone());
                std::thread::spawn(move || serve(number, stream, &answers, &report));
            }
        });
        Self { port, answer, asked, broken_off, begun }
    }

    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, this answers.
    pub fn answers(&self, answer: impl Fn(&RawRequest, &mut TcpStream) + Send + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    /// From now on, these bytes answer.
    pub fn says(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.answers(move |_, stream| write(stream, &bytes));
    }

    /// The next request.
    pub fn asked(&self) -> RawRequest {
        self.asked.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// The head of the next request whose body broke off.
    pub fn broken_off(&self) -> String {
        self.broken_off.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// The number of requests whose head has come.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// True if nothing has come.
    pub fn is_quiet(&self) -> bool {
        self.asked.try_recv().is_err()
    }
}

fn serve(connection: usize, mut stream: TcpStream, answers: &Mutex<Answer>, report: &Report) {
    while let Some(head) = read_head(&mut stream) {
        report.begun.fetch_add(1, Ordering::SeqCst);
        let mut request = RawRequest { connection, head, body: Vec::new() };
        let Some(body) = read_body(&request, &mut stream) else {
            let _ = report.broken_off.send(request.head);
            return;
        };
        request.body = body;
        if report.asked.send(request.clone()).is_err() {
            return;
        }
        (answers.lock())(&request, &mut stream);
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// `None` if the connection ends before the body does.
fn read_body(request: &RawRequest, stream: &mut TcpStream) -> Option<Vec<u8>> {
    if let [length] = request.all("content-length")[..] {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).ok()?;
        return Some(body);
    }
    match request.all("transfer-encoding") == ["chunked"] {
        true => chunks(stream),
        false => Some(Vec::new()),
    }
}

fn chunks(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut body, mut byte) = (Vec::new(), [0]);
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        if size == 0 {
            return Some(body);
        }
        body.extend(chunk);
    }
}

/// Answers with what was asked: the head in headers of the answer, all of it in the body.
fn echo(request: &RawRequest, stream: &mut TcpStream) {
    let body = [request.head.as_bytes(), &request.body].concat();
    let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
    for line in request.head.lines().skip(1).filter(|line| !line.is_empty()) {
        head += &format!("x-echo-{line}\r\n");
    }
    write(stream, &[head.as_bytes(), b"\r\n", &body].concat());
}

/// Writes bytes. The broker may have gone.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
}
