//! Checks a group that a workflow asks for: which values of its identifiers would fail.

use std::collections::BTreeMap;

use super::cache::nearest;
use super::checker::{CheckResult, CheckState, Checker};
use crate::cli::io::failure::Failure;
use crate::cli::io::text::command_line;
use crate::cli::operator::labels::pairs;
use crate::grpc::pb;
use crate::model::{GroupName, Tag};

/// At most this many values that would fail are listed.
const MAX_LISTED: usize = 20;

impl Checker<'_> {
    pub(super) async fn group(
        &mut self,
        name: &str,
        identifiers: &BTreeMap<String, Option<String>>,
    ) -> Result<CheckResult, Failure> {
        if let Err(invalid) = GroupName::parse(name) {
            return Ok(CheckResult::malformed(invalid.to_string()));
        }
        // The broker folds the case of tags.
        let mut folded = BTreeMap::new();
        for (key, value) in identifiers {
            match format!("{key}:{}", value.as_deref().unwrap_or("x")).parse::<Tag>() {
                Ok(tag) => {
                    let value = value.as_ref().map(|_| tag.value.to_string());
                    folded.insert(tag.key.to_string(), value);
                }
                Err(invalid) => return Ok(CheckResult::malformed(invalid.to_string())),
            }
        }
        let groups = self.cache.groups().await?;
        let full = format!("groups/{name}");
        let Some(group) = groups.iter().find(|group| group.name == full).cloned() else {
            let others = groups.iter().map(|group| group.name.replacen("groups/", "", 1));
            let nearest = nearest(name, others.collect());
            let mut words = vec!["group", "create", name, "--integration", "INTEGRATION"];
            let keys = folded.keys().flat_map(|key| ["--identifier", key]);
            words.extend(keys);
            return Ok(CheckResult::missing("there is no such group", nearest).with_command(&words));
        };
        match misfit(&group, &folded) {
            Some(problem) => Ok(CheckResult::malformed(problem)),
            None => self.members(name, &group, &folded).await,
        }
    }

    /// Checks every member that the values can select.
    async fn members(
        &mut self,
        name: &str,
        group: &pb::ConnectionGroup,
        asked: &BTreeMap<String, Option<String>>,
    ) -> Result<CheckResult, Failure> {
        let pairs = |values: &[(String, String)]| {
            pairs(values.iter().map(|(key, value)| (key, value)), ",")
        };
        if asked.values().all(Option::is_some) {
            let fixed = asked.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
            let fixed: Vec<_> = fixed.collect();
            let decisions = self.explain(&format!("group:{name}:{}", pairs(&fixed)), &[]).await?;
            return Ok(match decisions.answer.outcome.as_str() {
                "GROUP_MEMBER_NOT_FOUND" => no_member(&decisions.answer),
                _ => self.result_of(&decisions),
            });
        }
        let (mut fine, mut failing, mut commands) = (0_usize, Vec::new(), Vec::new());
        for (member, tags) in self.cache.members(group).await? {
            let Some(values) = values(asked, &tags) else { continue };
            let decisions = self.explain(&format!("group:{name}:{}", pairs(&values)), &[]).await?;
            let outcome = &decisions.answer.outcome;
            if outcome == "ALLOWED" {
                fine += 1;
                continue;
            }
            let free = values.iter().filter(|(key, _)| asked.get(key) == Some(&None)).cloned();
            let free = pairs(&free.collect::<Vec<_>>());
            failing.push(format!("{free} ({member}: {outcome})"));
            commands.extend(self.grants(&decisions));
        }
        commands.sort();
        commands.dedup();
        let other_values = "every value that no member has will be refused";
        if failing.is_empty() && fine > 0 {
            return Ok(CheckResult::fine(format!("fine for its {fine} member(s); {other_values}")));
        }
        if failing.is_empty() {
            let sentence = "no member has these values";
            return Ok(CheckResult::new(CheckState::Missing, sentence));
        }
        let total = failing.len();
        failing.truncate(MAX_LISTED);
        let more = match total - failing.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let sentence =
            format!("{total} of {} would fail: {}{more}", total + fine, failing.join(", "));
        Ok(CheckResult { commands, ..CheckResult::new(CheckState::Denied, sentence) })
    }
}

/// The problem with the identifiers that are given; `None` if they are those of the group.
fn misfit(group: &pb::ConnectionGroup, given: &BTreeMap<String, Option<String>>) -> Option<String> {
    let lacks = group.identifiers.iter().find(|key| !given.contains_key(*key));
    let extra = given.keys().find(|key| !group.identifiers.contains(key));
    match (lacks, extra) {
        (Some(key), _) => Some(format!("the group needs a value for its identifier {key}")),
        (None, Some(key)) => {
            let keys = group.identifiers.join(", ");
            Some(format!("the group has no identifier {key}; it has: {keys}"))
        }
        (None, None) => None,
    }
}

/// The values that select a member with these tags; `None` if a fixed value is another.
fn values(
    asked: &BTreeMap<String, Option<String>>,
    tags: &[String],
) -> Option<Vec<(String, String)>> {
    let value_of = |key: &str| {
        let tags = tags.iter().filter_map(|tag| tag.split_once(':'));
        tags.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).next()
    };
    let value = |(key, fixed): (&String, &Option<String>)| {
        let has = value_of(key)?;
        let fits = fixed.as_ref().is_none_or(|fixed| *fixed == has);
        fits.then(|| (key.clone(), has))
    };
    asked.iter().map(value).collect()
}

fn no_member(explained: &pb::ExplainResponse) -> CheckResult {
    let near = |member: &pb::NearMember| {
        pairs(member.differences.iter().map(|one| (&one.identifier, &one.value)), ",")
    };
    let suggestions: Vec<String> = explained.near_members.iter().take(3).map(near).collect();
    let result = CheckResult::missing("no member of the group has these values", suggestions);
    let group =
        explained.resources.first().map(|resource| resource.name.replacen("groups/", "", 1));
    let commands = group.iter().map(|name| command_line(&["group", "get", name])).collect();
    CheckResult { commands, ..result }
}
