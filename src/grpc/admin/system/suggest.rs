//! The response of `SystemService.SuggestAccess`.

use std::collections::BTreeMap;

use crate::access::Relation;
use crate::broker::{Advice, Suggestion, Suggestions};
use crate::grpc::convert::page::page;
use crate::grpc::{convert, pb};

pub(crate) fn response(suggested: &Suggestions) -> pb::SuggestAccessResponse {
    // There are no further pages. Suggestions without room are counted.
    let messages = suggested.first.iter().map(message);
    let (suggestions, _) = page(messages, false, |_| "");
    let more = suggested.more + suggested.first.len().saturating_sub(suggestions.len());
    pb::SuggestAccessResponse { suggestions, more: convert::count(more) }
}

fn message(one: &Suggestion) -> pb::AccessSuggestion {
    let mut bound = BTreeMap::<Relation, Vec<String>>::new();
    for (relation, pattern) in &one.bound {
        bound.entry(*relation).or_default().push(pattern.to_string());
    }
    let bound = bound.into_iter().map(|(relation, principals)| pb::AccessBinding {
        relation: convert::relation(relation).into(),
        principals,
    });
    let advice = match one.advice {
        Advice::Remove => pb::AccessAdvice::Remove,
        Advice::Narrow => pb::AccessAdvice::Narrow,
        Advice::Lower => pb::AccessAdvice::Lower,
        Advice::Raise => pb::AccessAdvice::Raise,
        Advice::Others => pb::AccessAdvice::Others,
        Advice::Keep => pb::AccessAdvice::Keep,
    };
    let refused = one.refused.as_ref();
    pb::AccessSuggestion {
        resource: one.resource.to_string(),
        needed: convert::relation(one.needed).into(),
        bound: bound.collect(),
        use_count: convert::count(one.used.map_or(0, |used| used.times)),
        last_use_time: one.used.and_then(|used| convert::timestamp(used.last)),
        advice: advice.into(),
        others_use: one.others_use,
        refusal_count: convert::count(refused.map_or(0, |refused| refused.times)),
        refused_step: refused.map(|refused| refused.step.to_string()).unwrap_or_default(),
        refusal_decision_id: refused.map(|one| one.decision.to_string()).unwrap_or_default(),
        last_refusal_time: refused.and_then(|refused| convert::timestamp(refused.last)),
    }
}
