//! Finds the integration and kind whose fields a set of named values has.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::io::text::short_name;
use crate::cli::io::values;
use crate::grpc::pb;
use crate::model::FieldName;

/// A value, and its name in the file.
pub struct NamedValue {
    /// Its name in the file.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
    /// The line on which it begins, if the format has lines.
    pub line: Option<u64>,
}

/// The names that identify a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MatchBy {
    /// Its own name and its customary variables, in any spelling: the user has named the integration.
    AnyName,
    /// Its customary variables.
    Variable,
}

/// The values as the fields of one credential kind.
pub struct Fit<'a> {
    /// The integration's name.
    pub integration: String,
    /// The kind.
    pub kind: &'a pb::CredentialKind,
    /// The index of each field's value.
    pub fields: BTreeMap<String, usize>,
    /// Values that a better value of the same field replaces: the index of each, and that of the better one.
    pub outdone: BTreeMap<usize, usize>,
    /// Two values whose names fit the same field equally well, and that field.
    alike: Option<(String, String, String)>,
}

/// The distance of a name in another spelling, greater than that of any customary variable.
const OTHER_CASE: usize = 1000;

impl<'a> Fit<'a> {
    /// The values that a kind would take.
    pub fn of(
        integration: &str,
        kind: &'a pb::CredentialKind,
        values: &[NamedValue],
        by: MatchBy,
    ) -> Self {
        let mut found: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (place, value) in values.iter().enumerate() {
            if let Some((distance, field)) = field_of(integration, kind, &value.name, by) {
                found.entry(field).or_default().push((distance, place));
            }
        }
        let (mut fields, mut outdone) = (BTreeMap::new(), BTreeMap::new());
        let name_at = |place: &usize| values.get(*place).map(|value| value.name.clone());
        let mut alike = None;
        for (field, mut places) in found {
            places.sort_unstable();
            if let [(near, one), (far, other), ..] = places.as_slice()
                && near == far
            {
                alike = name_at(one)
                    .zip(name_at(other))
                    .map(|(one, other)| (one, other, field.clone()));
            }
            let mut places = places.into_iter().map(|(_, place)| place);
            if let Some(best) = places.next() {
                outdone.extend(places.map(|place| (place, best)));
                fields.insert(field, best);
            }
        }
        Self { integration: integration.to_owned(), kind, fields, outdone, alike }
    }

    /// The required fields without a value.
    pub fn missing(&self) -> Vec<&'a pb::FieldSchema> {
        let has =
            |rule: &pb::FieldSchema| self.fields.keys().any(|name| values::covers(rule, name));
        self.kind.fields.iter().filter(|rule| rule.required && !has(rule)).collect()
    }

    /// True if it takes the value at this index.
    pub fn takes(&self, place: usize) -> bool {
        self.fields.values().any(|taken| *taken == place) || self.outdone.contains_key(&place)
    }

    /// The missing fields, in words.
    pub fn needs(&self, by: MatchBy) -> String {
        let missing = self.missing();
        if missing.is_empty() {
            return format!("{self} has no field of these names");
        }
        let word = |rule: &&pb::FieldSchema| match (by, rule.env.as_str()) {
            (MatchBy::AnyName, _) => rule.name.clone(),
            (MatchBy::Variable, "") => {
                format!("{} (by --integration {})", rule.name, self.integration)
            }
            (MatchBy::Variable, variable) => variable.to_owned(),
        };
        let missing: Vec<_> = missing.iter().map(word).collect();
        format!("{self} also needs {}", missing.join(", "))
    }
}

impl std::fmt::Display for Fit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.integration, self.kind.name)
    }
}

/// True if a name is one of the field's in another spelling, with or without the name of the integration as a prefix:
/// `accessKeyId`, `ACCESS-KEY-ID`, `aws_access_key_id`.
fn is_spelled_otherwise(integration: &str, rule: &pb::FieldSchema, name: &str) -> bool {
    let squash = |text: &str| {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let (integration, name) = (squash(integration), squash(name));
    let own = [&rule.name].into_iter().chain(&rule.aliases);
    let variables = [&rule.env].into_iter().chain(&rule.also_env);
    let mut all = own.chain(variables).map(|own| squash(own)).filter(|own| !own.is_empty());
    all.any(|own| name == own || name.strip_prefix(&integration) == Some(&own))
}

/// The field that fits a name best, and the distance between them.
fn field_of(
    integration: &str,
    kind: &pb::CredentialKind,
    name: &str,
    by: MatchBy,
) -> Option<(usize, String)> {
    let taken = kind.fields.iter().filter(|rule| !rule.generated).filter_map(|rule| {
        if by == MatchBy::AnyName && values::covers(rule, name) {
            let is_family = rule.name.ends_with('*');
            let field = if is_family { name } else { &rule.name };
            return FieldName::parse(field)
                .ok()
                .map(|_| (usize::from(is_family), field.to_owned()));
        }
        let mut variables = [&rule.env].into_iter().chain(&rule.also_env);
        let customary = variables.position(|variable| variable == name).map(|at| at + 2);
        let distance = customary.or_else(|| match by {
            MatchBy::AnyName => is_spelled_otherwise(integration, rule, name).then_some(OTHER_CASE),
            MatchBy::Variable => None,
        })?;
        Some((distance, rule.name.clone()))
    });
    taken.min()
}

/// The kind of an integration whose required fields the values have; of several, the kind that takes all that the others
/// take.
///
/// # Errors
/// If several kinds fit equally well, or none.
pub fn named<'a>(
    catalogue: &'a [pb::Integration],
    integration: &str,
    kind: Option<&str>,
    values: &[NamedValue],
) -> Result<Fit<'a>, String> {
    let found = catalogue.iter().find(|one| short_name(&one.name) == integration);
    let found = found.ok_or_else(|| {
        format!("there is no integration {integration}; see: keyhatch integration list")
    })?;
    let is_asked = |one: &&pb::CredentialKind| kind.is_none_or(|name| one.name == name);
    let kinds = found.kinds.iter().filter(is_asked);
    let fits: Vec<_> =
        kinds.map(|kind| Fit::of(integration, kind, values, MatchBy::AnyName)).collect();
    if let (Some(kind), []) = (kind, fits.as_slice()) {
        let kinds: Vec<_> = found.kinds.iter().map(|kind| kind.name.as_str()).collect();
        return Err(format!("{integration} has no kind {kind}; it has: {}", kinds.join(", ")));
    }
    let needs: Vec<_> = fits.iter().map(|fit| fit.needs(MatchBy::AnyName)).collect();
    let best = best(fits)?.ok_or_else(|| needs.join("; "))?;
    match &best.alike {
        Some((one, other, field)) => {
            Err(format!("{one} and {other} are both {field}; leave one of them out"))
        }
        None => Ok(best),
    }
}

/// Every connection that values of customary variables make.
///
/// # Errors
/// If a value could be part of several.
pub fn by_variables<'a>(
    catalogue: &'a [pb::Integration],
    values: &[NamedValue],
) -> Result<Vec<Fit<'a>>, String> {
    let mut found: Vec<Fit<'a>> = Vec::new();
    for one in catalogue {
        let name = short_name(&one.name);
        let kinds = one.kinds.iter().map(|kind| Fit::of(name, kind, values, MatchBy::Variable));
        found.extend(best(kinds.collect())?);
    }
    for (place, value) in values.iter().enumerate() {
        let takers: Vec<_> = found
            .iter()
            .filter(|fit| fit.takes(place))
            .map(|fit| fit.integration.as_str())
            .collect();
        if takers.len() > 1 {
            let takers = takers.join(", ");
            return Err(format!(
                "{} can be part of each of these: {takers}; say which with --integration NAME",
                value.name
            ));
        }
    }
    Ok(found)
}

fn best(mut fits: Vec<Fit<'_>>) -> Result<Option<Fit<'_>>, String> {
    fits.retain(|fit| !fit.fields.is_empty() && fit.missing().is_empty());
    let taken = |fit: &Fit<'_>| fit.fields.values().copied().collect::<BTreeSet<_>>();
    let all: Vec<_> = fits.iter().map(taken).collect();
    // A kind that takes everything that another takes, and more, fits better.
    fits.retain(|fit| {
        let own = taken(fit);
        !all.iter().any(|other| other.len() > own.len() && other.is_superset(&own))
    });
    if fits.len() > 1 {
        let names: Vec<_> = fits.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the names fit several kinds alike: {}; say which with --integration NAME --kind KIND",
            names.join(", ")
        ));
    }
    Ok(fits.pop())
}

/// The kinds that lack required fields, those that lack fewest first.
pub fn in_part<'a>(catalogue: &'a [pb::Integration], values: &[NamedValue]) -> Vec<Fit<'a>> {
    let fits = catalogue.iter().flat_map(|one| {
        let name = short_name(&one.name);
        one.kinds.iter().map(move |kind| Fit::of(name, kind, values, MatchBy::Variable))
    });
    let mut fits: Vec<_> =
        fits.filter(|fit| !fit.fields.is_empty() && !fit.missing().is_empty()).collect();
    fits.sort_by_key(|fit| fit.missing().len());
    fits
}
