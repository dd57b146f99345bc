//! Sorted maps that take no more memory than their entries.
//!
//! A leaf of the standard library's B-tree has room for eleven entries. With a hundred thousand connections of two fields
//! and a tag each, unused room took 300 MB.

use std::fmt;
use std::marker::PhantomData;

use litemap::LiteMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sorted map of few entries. Adding and removing take time in proportion to their number.
pub type CompactMap<K, V> = LiteMap<K, V>;

/// Writes it as a map.
///
/// # Errors
/// As the serializer.
pub fn serialize<K, V, S>(map: &CompactMap<K, V>, to: S) -> Result<S::Ok, S::Error>
where
    K: Serialize,
    V: Serialize,
    S: Serializer,
{
    to.collect_map(map.iter())
}

/// Reads a map in any order, and keeps no unused room.
///
/// # Errors
/// As the deserializer.
pub fn deserialize<'de, K, V, D>(from: D) -> Result<CompactMap<K, V>, D::Error>
where
    K: Ord + Deserialize<'de>,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let entries = from.deserialize_map(Entries(PhantomData))?;
    let mut sorted = entries.into_iter().collect::<LiteMap<K, V>>().into_tuple_vec();
    sorted.shrink_to_fit();
    Ok(LiteMap::from_sorted_store_unchecked(sorted))
}

/// The entries of a map in their order.
struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = Vec<(K, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}
