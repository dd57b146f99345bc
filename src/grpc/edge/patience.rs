//! How long a caller waits for its reply.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// What a caller's deadline leaves for the reply itself.
const FOR_THE_REPLY: Duration = Duration::from_millis(500);

/// How long a request may wait for something that its reply can do without. `None` if the caller has named no deadline (the
/// header `grpc-timeout`: at most eight digits and a unit).
pub(crate) fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = digits.parse::<u32>().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(3600) * count,
        "M" => Duration::from_secs(60) * count,
        "S" => Duration::from_secs(count.into()),
        "m" => Duration::from_millis(count.into()),
        "u" => Duration::from_micros(count.into()),
        "n" => Duration::from_nanos(count.into()),
        _ => return None,
    };
    Some(timeout.saturating_sub(FOR_THE_REPLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_its_reply_before_its_deadline() {
        let patience = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            patience(&metadata).map(|patience| patience.as_millis())
        };
        assert_eq!(patience("3S"), Some(2500));
        assert_eq!(patience("1M"), Some(59_500));
        assert_eq!(patience("99999999H"), Some(359_999_996_399_500));
        assert_eq!(patience("800m"), Some(300));
        assert_eq!(patience("7000000u"), Some(6500));
        assert_eq!(patience("100000n"), Some(0));
        for malformed in ["", "S", "3", "3s", "-3S", "3 S"] {
            assert_eq!(patience(malformed), None, "{malformed:?}");
        }
        assert_eq!(super::patience(&MetadataMap::new()), None);
    }
}
