//! Replies with a credential have one of a few sizes, so that whoever sees the traffic of a socket does not
//! learn how long a secret is, and what is recognised by its length stays unknown.
//!
//! The sizes are those of [`size_class`]. The least is 2 KiB, not 1: the longest names and a lease take some 900
//! bytes, so that a value of up to 900 bytes is below it whatever it is called. Powers of two keep the sizes few
//! where most credentials are; beyond, steps of 32 KiB bound what is added.

use prost::Message;
use prost::bytes::Bytes;

use crate::model::{SIZE_STEP, size_class};

/// What paddings are cut from; one that is too small for its own header is a step longer.
static ZEROS: [u8; 2 * SIZE_STEP] = [0; 2 * SIZE_STEP];

/// The padding for a message whose `padding` is still empty, with a field number below 16.
pub fn padding(message: &impl Message) -> Bytes {
    padding_for(message.encoded_len())
}

/// The same for a message that takes so many bytes without it. Zeros that are copied only when the message is encoded.
pub fn padding_for(size: usize) -> Bytes {
    let mut padded = size_class(size);
    loop {
        if let Some(length) = length_for(padded - size) {
            return Bytes::from_static(ZEROS.get(..length).unwrap_or_default());
        }
        padded = size_class(padded + 1);
    }
}

/// How long a padding is that takes exactly this room with its tag and its length. A few rooms cannot be
/// filled: one byte and two, and those just too large for a length that is written in one byte fewer. Such a
/// reply has the next size, which tells no more of it than of the others that have it.
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
    fn every_reply_has_one_of_the_sizes_and_but_for_a_few_the_next_one() {
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
