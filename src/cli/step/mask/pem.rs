//! Blocks of PEM within a text: RFC 7468, and the indented and shortened ones that are found in documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A block, boundaries included, or the rest of a text that has no second boundary.
pub struct SecretBlock {
    /// Its lines, without what they are indented by.
    pub text: String,
    /// Everybody may see it.
    pub is_public: bool,
}

/// What everybody may see.
const PUBLIC: [&str; 4] = ["CERTIFICATE", "PUBLIC KEY", "PARAMETERS", "CRL"];

/// The blocks of a text, and the lines that are in none.
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

/// What a block holds, if its lines are whole Base64. Lines with a colon are of its head.
pub fn content(block: &str) -> Option<Vec<u8>> {
    let lines = block.lines().filter(|line| !is_boundary(line.as_bytes()) && !line.contains(':'));
    STANDARD.decode(lines.collect::<String>()).ok().filter(|content| !content.is_empty())
}

/// Whether a line begins or ends a block.
pub fn is_boundary(line: &[u8]) -> bool {
    let is_either = line.starts_with(b"-----BEGIN ") || line.starts_with(b"-----END ");
    is_either && line.ends_with(b"-----")
}

/// Whether a line begins or ends a block that everybody may see.
pub fn is_public_boundary(line: &[u8]) -> bool {
    let label = String::from_utf8_lossy(line);
    is_boundary(line) && PUBLIC.iter().any(|word| label.contains(word))
}
