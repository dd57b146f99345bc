//! Requests, and the seed files that become requests.

use keyhatch::cli::texts;
use keyhatch::grpc::pb;
use keyhatch::grpc::requests::{OTHER_REQUESTS, RESOURCE_REQUESTS, Read, STEP_REQUESTS};
use prost::Message as _;

use super::words::text;

/// What stock clients take of headers, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// The longest error of the command line, in bytes: a place, a rule, and a bounded part of the text.
const MAX_FAILURE_BYTES: usize = 4 * 1024;
/// google.rpc.Code: INVALID_ARGUMENT and RESOURCE_EXHAUSTED.
const CODES: [i32; 2] = [3, 8];

/// Each input is read as every request there is.
pub fn requests(data: &[u8]) {
    for (name, read) in [STEP_REQUESTS, RESOURCE_REQUESTS, OTHER_REQUESTS].into_iter().flatten() {
        check(name, read(data));
    }
}

fn check(name: &str, read: Read) {
    let Read::Refused(status) = read else { return };
    assert!(CODES.contains(&i32::from(status.code())), "{name}: {status:?}");
    // As it goes out: everything but plain ASCII takes three bytes in the one, and the other is base64.
    let message = status.message().bytes();
    let message: usize = message.map(|byte| if (b' '..b'~').contains(&byte) { 1 } else { 3 }).sum();
    let header = message + status.details().len().div_ceil(3) * 4;
    assert!(header < MAX_HEADER_BYTES, "{name}: {header} bytes of {}", status.message());
}

/// Files and variables are left alone: nothing is allowed.
pub fn seeds(data: &[u8]) {
    let text = text(data);
    let documents = match texts::seed(text, Some("w")) {
        Ok(documents) => documents,
        Err(message) => {
            assert!(message.len() < MAX_FAILURE_BYTES, "{message}");
            return;
        }
    };
    assert!(!documents.is_empty());
    let apply = RESOURCE_REQUESTS.iter().find(|(name, _)| *name == "ApplyRequest").unwrap().1;
    for document in documents {
        let request = pb::ApplyRequest { document: Some(document) };
        let read = apply(&request.encode_to_vec());
        assert!(!matches!(read, Read::Malformed));
        check("ApplyRequest", read);
    }
}
