//! A ClientHello in parts, to be assembled wrongly.

/// Extensions by their number (IANA, TLS ExtensionType Values).
pub const SERVER_NAME: u16 = 0;
pub const SIGNATURE_ALGORITHMS: u16 = 13;
pub const ALPN: u16 = 16;
pub const PRE_SHARED_KEY: u16 = 41;
pub const EARLY_DATA: u16 = 42;
pub const SUPPORTED_VERSIONS: u16 = 43;
pub const PSK_KEY_EXCHANGE_MODES: u16 = 45;
pub const KEY_SHARE: u16 = 51;

/// ClientHello of RFC 8446, 4.1.2.
#[derive(Clone)]
pub struct Hello {
    pub kind: u8,
    pub version: u16,
    pub random: Vec<u8>,
    pub session: Vec<u8>,
    pub suites: Vec<u16>,
    pub compressions: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
    /// Bytes after the message, for 0-RTT data.
    pub behind: Vec<u8>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> usize {
        self.take(bytes).iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
    }

    fn short(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap()
    }

    fn block(&mut self, length_bytes: usize) -> Reader<'a> {
        let length = self.number(length_bytes);
        Reader(self.take(length))
    }
}

impl Hello {
    /// Parses a record with exactly one ClientHello.
    pub fn parse(record: &[u8]) -> Self {
        let mut rest = Reader(record);
        rest.take(3);
        let mut message = rest.block(2);
        let kind = u8::try_from(message.number(1)).unwrap();
        let mut body = message.block(3);
        let version = body.short();
        let random = body.take(32).to_vec();
        let session = body.block(1).0.to_vec();
        let mut listed = body.block(2);
        let mut suites = Vec::new();
        while !listed.0.is_empty() {
            suites.push(listed.short());
        }
        let compressions = body.block(1).0.to_vec();
        let mut listed = body.block(2);
        let mut extensions = Vec::new();
        while !listed.0.is_empty() {
            let number = listed.short();
            extensions.push((number, listed.block(2).0.to_vec()));
        }
        let behind = Vec::new();
        Self { kind, version, random, session, suites, compressions, extensions, behind }
    }

    /// The handshake message, without records around it.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend(&self.random);
        body.extend(block(1, &self.session));
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        body.extend(block(2, &suites));
        body.extend(block(1, &self.compressions));
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(number, content)| {
                [number.to_be_bytes().to_vec(), block(2, content)].concat()
            })
            .collect();
        body.extend(block(2, &extensions));
        [vec![self.kind], block(3, &body)].concat()
    }

    /// The message in records of the largest size.
    pub fn bytes(&self) -> Vec<u8> {
        let message = self.message();
        let records = message.chunks(1 << 14).flat_map(record);
        records.chain(self.behind.iter().copied()).collect()
    }

    pub fn set(&mut self, number: u16, content: &[u8]) {
        self.extensions.retain(|(found, _)| *found != number);
        self.extensions.push((number, content.to_vec()));
    }

    pub fn remove(&mut self, number: u16) {
        self.extensions.retain(|(found, _)| *found != number);
    }

    pub fn set_server_name(&mut self, name: &[u8]) {
        let entry = [vec![0], block(2, name)].concat();
        self.set(SERVER_NAME, &block(2, &entry));
    }

    pub fn set_versions(&mut self, versions: &[u16]) {
        let listed: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
        self.set(SUPPORTED_VERSIONS, &block(1, &listed));
    }

    pub fn set_protocols(&mut self, names: &[&[u8]]) {
        let listed: Vec<u8> = names.iter().flat_map(|name| block(1, name)).collect();
        self.set(ALPN, &block(2, &listed));
    }

    pub fn set_key_shares(&mut self, shares: &[(u16, &[u8])]) {
        let listed: Vec<u8> = shares
            .iter()
            .flat_map(|(group, share)| [group.to_be_bytes().to_vec(), block(2, share)].concat())
            .collect();
        self.set(KEY_SHARE, &block(2, &listed));
    }

    /// Offers a session that never existed, with a random binder.
    pub fn set_resumption(&mut self, identity: &[u8]) {
        self.set(PSK_KEY_EXCHANGE_MODES, &[1, 1]);
        let identity = [block(2, identity), vec![0; 4]].concat();
        let binder = block(1, &[7; 32]);
        self.set(PRE_SHARED_KEY, &[block(2, &identity), block(2, &binder)].concat());
    }
}

/// The length of the content in this many bytes, and the content.
fn block(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let mut bytes = length[length.len() - length_bytes..].to_vec();
    bytes.extend(content);
    bytes
}

/// A handshake record around a part of a message.
pub fn record(part: &[u8]) -> Vec<u8> {
    [vec![22, 3, 1], block(2, part)].concat()
}

/// The message in records that are cut at these places.
pub fn cut(hello: &[u8], places: &[usize]) -> Vec<u8> {
    let message = &hello[5..];
    let ends = places.iter().copied().chain([message.len()]);
    let mut start = 0;
    let mut records = Vec::new();
    for end in ends {
        records.extend(record(&message[start..end]));
        start = end;
    }
    records
}
