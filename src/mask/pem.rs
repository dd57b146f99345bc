//! PEM blocks within a text: RFC 7468, and indented or shortened blocks of documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A block with its boundaries, or the rest of the text if the second boundary is missing.
pub struct SecretBlock {
    /// Its lines without indentation.
    pub text: String,
    /// Whether the block is public.
    pub is_public: bool,
}

/// Words in the labels of public blocks.
const PUBLIC: [&str; 4] = ["CERTIFICATE", "PUBLIC KEY", "PARAMETERS", "CRL"];

/// The blocks of a text, and the lines outside of them.
pub fn blocks(text: &str) -> (Vec<SecretBlock>, Vec<&str>) {
    let (mut blocks, mut rest) = (Vec::new(), Vec::new());
    let mut open: Option<SecretBlock> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("-----BEGIN ") && is_boundary(trimmed.as_bytes()) {
            let is_public = is_public_boundary(trimmed.as_bytes());
            blocks.extend(open.replace(SecretBlock { text: String::new(), is_public }));
        }
        match &mut open {
            Some(block) => {
                block.text.push_str(trimmed);
                block.text.push('\n');
            }
            None => rest.push(line),
        }
        if trimmed.starts_with("-----END ") {
            blocks.extend(open.take());
        }
    }
    blocks.extend(open);
    (blocks, rest)
}

/// The content of a block. None if its lines are not Base64. Lines with a colon are headers.
pub fn content(block: &str) -> Option<Vec<u8>> {
    let lines = block.lines().filter(|line| !is_boundary(line.as_bytes()) && !line.contains(':'));
    STANDARD.decode(lines.collect::<String>()).ok().filter(|content| !content.is_empty())
}

/// Whether a line begins or ends a block.
pub fn is_boundary(line: &[u8]) -> bool {
    let is_either = line.starts_with(b"-----BEGIN ") || line.starts_with(b"-----END ");
    is_either && line.ends_with(b"-----")
}

/// Whether a line begins or ends a public block.
pub fn is_public_boundary(line: &[u8]) -> bool {
    let label = String::from_utf8_lossy(line);
    is_boundary(line) && PUBLIC.iter().any(|word| label.contains(word))
}
