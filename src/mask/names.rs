//! Values in names of headers, which have no upper and lower case.

use std::collections::{BTreeSet, HashSet};

/// The forms that a name can have in it, in lower case.
pub struct InNames {
    forms: HashSet<Vec<u8>>,
    lengths: BTreeSet<usize>,
}

impl InNames {
    /// The forms that are made of visible ASCII.
    pub fn of(forms: &[Vec<u8>]) -> Self {
        let visible = forms.iter().filter(|form| form.iter().all(u8::is_ascii_graphic));
        let forms: HashSet<_> = visible.map(|form| form.to_ascii_lowercase()).collect();
        let lengths = forms.iter().map(Vec::len).collect();
        Self { forms, lengths }
    }

    /// True if a name has one of them in it.
    pub fn are_in(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase().into_bytes();
        let begins_at = |start: usize| {
            let mut parts = self.lengths.iter().map_while(|length| name.get(start..start + length));
            parts.any(|part| self.forms.contains(part))
        };
        (0..name.len()).any(begins_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_value_in_it_whatever_its_case() {
        let forms = ["S3cret-Token", "abc", "with space"].map(|form| form.as_bytes().to_vec());
        let names = InNames::of(&forms);
        for name in ["s3cret-token", "x-S3CRET-TOKEN-y", "abc", "x-abc", "abcd", "x-aBc-y"] {
            assert!(names.are_in(name), "{name}");
        }
        for name in ["", "ab", "content-type", "s3cret-toke", "x-a-b-c"] {
            assert!(!names.are_in(name), "{name}");
        }
        assert!(!InNames::of(&[]).are_in("abc"));
    }
}
