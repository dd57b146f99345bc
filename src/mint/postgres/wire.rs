//! Messages of PostgreSQL's protocol 3.0 (its documentation, 53), over a connection that reads no more than a call needs.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

/// The most bytes that a server may send over one connection.
const MAX_BYTES: usize = 1024 * 1024;

/// A connection of bytes.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Why there is no answer.
pub(super) enum Fault {
    /// The connection broke.
    Broken,
    /// The server's bytes are not of the protocol, or are too many.
    NoProtocol,
    /// The server refused, with this SQLSTATE.
    Refused(String),
}

/// A message of the server.
pub(super) struct Message {
    /// Its type.
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

/// A row of an answer.
pub(super) struct Row(Vec<Option<String>>);

/// A connection to a server. Notices and settings of the server are dropped.
pub(super) struct Wire {
    stream: BufReader<Box<dyn Duplex>>,
    room: usize,
}

impl Wire {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), room: MAX_BYTES }
    }

    /// Begins a connection with these parameters, by name.
    ///
    /// # Errors
    /// If the connection breaks, or a parameter has a zero byte, which would end it.
    pub(super) async fn start(&mut self, parameters: &[(&str, &str)]) -> Result<(), Fault> {
        /// The version 3.0.
        const VERSION: u32 = 3 << 16;
        let mut body = VERSION.to_be_bytes().to_vec();
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            if text.contains('\0') {
                return Err(Fault::NoProtocol);
            }
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        self.write(&framed(&body)?).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(super) async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Fault> {
        let mut message = vec![kind];
        message.extend(framed(body)?);
        self.write(&message).await
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// If the server refuses, the connection breaks, or there is no such message.
    pub(super) async fn receive(&mut self) -> Result<Message, Fault> {
        match self.read().await? {
            Message { kind: b'E', body } => Err(refused(&body)),
            message => Ok(message),
        }
    }

    /// Runs statements, and returns all of their rows.
    ///
    /// # Errors
    /// If a statement is refused, or the connection breaks.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Fault> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat()).await?;
        let (mut rows, mut fault) = (Vec::new(), None);
        loop {
            let message = match self.read().await {
                Ok(message) => message,
                // A refusal says more than the end of the connection that comes with it.
                Err(broken) => return Err(fault.unwrap_or(broken)),
            };
            match message.kind {
                // Ready for another.
                b'Z' => return fault.map_or(Ok(rows), Err),
                b'E' => fault = Some(refused(&message.body)),
                b'D' => rows.push(Row::of(&message.body).ok_or(Fault::NoProtocol)?),
                // The columns of rows, the end of a statement, no statement.
                b'T' | b'C' | b'I' => {}
                _ => return Err(Fault::NoProtocol),
            }
        }
    }

    /// Says good-bye and waits for the server's end of the connection.
    pub(super) async fn close(mut self) {
        if self.send(b'X', &[]).await.is_ok() {
            while self.read().await.is_ok() {}
        }
    }

    /// The next message that is neither a notice nor a setting.
    async fn read(&mut self) -> Result<Message, Fault> {
        loop {
            let mut head = [0; 5];
            self.fill(&mut head).await?;
            let [kind, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length)).ok();
            let length = length.and_then(|length| length.checked_sub(4));
            let length = length.filter(|length| *length <= self.room).ok_or(Fault::NoProtocol)?;
            let mut body = vec![0; length];
            self.fill(&mut body).await?;
            // Notices, notifications, settings, the key for cancelling.
            if !matches!(kind, b'N' | b'A' | b'S' | b'K') {
                return Ok(Message { kind, body });
            }
        }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.room = self.room.checked_sub(buffer.len()).ok_or(Fault::NoProtocol)?;
        self.stream.read_exact(buffer).await.map(drop).map_err(|_| Fault::Broken)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(|_| Fault::Broken)?;
        self.stream.flush().await.map_err(|_| Fault::Broken)
    }
}

impl Row {
    /// The text of a column; empty if it is NULL or missing.
    pub(super) fn text(&self, column: usize) -> &str {
        self.0.get(column).and_then(Option::as_deref).unwrap_or_default()
    }

    fn of(body: &[u8]) -> Option<Self> {
        let (count, mut rest) = body.split_first_chunk()?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk()?;
            // -1 stands for NULL.
            let (text, after) = match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (text, after) = after.split_at_checked(length)?;
                    (String::from_utf8(text.to_vec()).ok(), after)
                }
                Err(_) => (None, after),
            };
            columns.push(text);
            rest = after;
        }
        Some(Self(columns))
    }
}

/// A body behind its length.
fn framed(body: &[u8]) -> Result<Vec<u8>, Fault> {
    let length = u32::try_from(body.len().saturating_add(4)).map_err(|_| Fault::NoProtocol)?;
    Ok([&length.to_be_bytes(), body].concat())
}

/// The refusal that a server has sent.
fn refused(body: &[u8]) -> Fault {
    let is_code = |text: &&[u8]| {
        text.len() == 5 && text.iter().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
    };
    let mut fields = body.split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C")).filter(is_code);
    let code = code.and_then(|code| std::str::from_utf8(code).ok());
    code.map_or(Fault::NoProtocol, |code| Fault::Refused(code.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_travels_as_its_code_alone() {
        let of = |body: &[u8]| match refused(body) {
            Fault::Refused(code) => code,
            _ => String::new(),
        };
        assert_eq!(of(b"SFATAL\0VFATAL\0C28P01\0MC0000 canary\0\0"), "28P01");
        for odd in [&b""[..], b"\0", b"Mcanary\0\0", b"C28p01\0\0", b"C28P012\0\0", b"C28P0"] {
            assert_eq!(of(odd), "", "{odd:?}");
        }
    }

    #[test]
    fn a_row_that_is_cut_short_is_no_row() {
        let whole = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x01\xff";
        let row = Row::of(whole).unwrap();
        assert_eq!([row.text(0), row.text(1), row.text(2), row.text(3)], ["ab", "", "", ""]);
        for end in 0..whole.len() {
            assert!(Row::of(&whole[..end]).is_none(), "{end}");
        }
    }

    #[tokio::test]
    async fn a_server_that_sends_without_end_is_cut_off() {
        let flood = b"N\0\0\x10\0".iter().copied().chain(vec![0; 0x1000 - 4]).collect::<Vec<_>>();
        let (mine, mut theirs) = tokio::io::duplex(1 << 16);
        let sending = tokio::spawn(async move {
            let mut count = 0;
            while theirs.write_all(&flood).await.is_ok() {
                count += flood.len();
            }
            count
        });
        let mut wire = Wire::new(mine);
        assert!(matches!(wire.receive().await, Err(Fault::NoProtocol)));
        drop(wire);
        assert!(sending.await.unwrap() < 2 * MAX_BYTES);
        let (mine, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"D\xff\xff\xff\xff").await.unwrap();
        assert!(matches!(Wire::new(mine).receive().await, Err(Fault::NoProtocol)));
    }
}
