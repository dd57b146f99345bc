//! A step's path, written as text.

use std::sync::Arc;

use serde::{Deserializer, Serializer};

use crate::model::{WorkflowPath, parsed};

pub(super) fn serialize<S: Serializer>(path: &Arc<WorkflowPath>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(path)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Arc<WorkflowPath>, D::Error> {
    parsed(from, |text| text.parse().map(Arc::new))
}
