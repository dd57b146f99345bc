//! Pads replies with credentials to a few sizes, so that the traffic of a socket does not show how long a secret is.
//!
//! [`size_class`] defines the sizes. The smallest is 2 KiB: the longest names and a lease take some 900 bytes, so every
//! value of up to 900 bytes fits into it. Powers of two keep the number of sizes small where most credentials are.
//! Beyond, steps of 32 KiB bound the padding.

use prost::Message;
use prost::bytes::Bytes;

use crate::model::{SIZE_STEP, size_class};

/// The zeros for paddings. A padding that is too small for its own header is one step longer.
static ZEROS: [u8; 2 * SIZE_STEP] = [0; 2 * SIZE_STEP];

/// The padding of a message whose `padding` field is still empty and has a number below 16.
pub fn padding(message: &impl Message) -> Bytes {
    padding_for(message.encoded_len())
}

/// The padding of a message that takes `size` bytes without it. The zeros are copied only when the message is encoded.
pub fn padding_for(size: usize) -> Bytes {
    let mut padded = size_class(size);
    loop {
        if let Some(length) = length_for(padded - size) {
            return Bytes::from_static(ZEROS.get(..length).unwrap_or_default());
        }
        padded = size_class(padded + 1);
    }
}

/// The length of a padding that takes exactly `room` bytes with its tag and length; `None` if there is none. That is so
/// for one and two bytes, and just above each size of the length itself. Such a reply gets the next size class, which
/// shows no more than the class itself.
fn length_for(room: usize) -> Option<usize> {
    let fits = |length: &usize| {
        let header = 1 + prost::length_delimiter_len(*length);
        *length > 0 && header + length == room
    };
    match room {
        0 => Some(0),
        _ => (2..=5).filter_map(|header| room.checked_sub(header)).find(fits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::pb::BatchResolveResponse;
    use crate::grpc::pb::{BatchResolveResult, ResolveError, batch_resolve_result};

    #[test]
    fn replies_have_few_sizes_and_nearly_all_the_next_one() {
        let (mut sizes, mut exceptions) = (std::collections::BTreeSet::new(), 0);
        for length in (0..70_000).chain([300_000, 3_000_000]) {
            let message = "x".repeat(length);
            let error = ResolveError { message, ..ResolveError::default() };
            let result = Some(batch_resolve_result::Result::Error(error));
            let results = vec![BatchResolveResult { result }];
            let mut reply = BatchResolveResponse { results, padding: Bytes::new() };
            let next = size_class(reply.encoded_len());
            reply.padding = padding(&reply);
            let size = reply.encoded_len();
            if size != next {
                exceptions += 1;
                assert_eq!(size, size_class(next + 1));
            }
            sizes.insert(size);
        }
        let few = [2048, 4096, 8192, 16_384, 32_768, 65_536, 98_304];
        assert_eq!(sizes.range(..100_000).copied().collect::<Vec<_>>(), few);
        assert!(exceptions < 30, "{exceptions}");
    }
}
