//! Makes named values fields of a connection or secrets of a workflow, or leaves them out.

use std::collections::BTreeMap;

use super::extracted::{Entry, Extracted, at_line, connection};
use super::fit::{Fit, MatchBy, NamedValue, by_variables, in_part, named};
use super::options::ImportOptions;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// The object of a file that values are in together.
pub struct SourceObject {
    /// The name of the connection that the values make.
    pub name: String,
    /// All its names, the most specific first.
    pub called: Vec<String>,
}

/// Assigns each value.
pub fn assign(
    values: Vec<NamedValue>,
    by: MatchBy,
    origin: Option<&SourceObject>,
    wanted: &ImportOptions,
) -> Extracted {
    let mut found = Extracted::default();
    let (values, empty): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|value| !value.value.is_empty());
    for value in empty {
        found.skip(value.place(), "it is empty");
    }
    let fits = match (&wanted.integration, by) {
        (Some(integration), _) => {
            named(&wanted.catalogue, integration, wanted.kind.as_deref(), &values)
                .map(|fit| vec![fit])
        }
        (None, MatchBy::Variable) => by_variables(&wanted.catalogue, &values),
        (None, MatchBy::AnyName) => Ok(Vec::new()),
    };
    let fits = match fits {
        Ok(fits) => fits,
        Err(problem) => {
            found.problems.push(problem);
            return found;
        }
    };
    let in_part = match (&wanted.integration, by) {
        (None, MatchBy::Variable) => in_part(&wanted.catalogue, &values),
        _ => Vec::new(),
    };
    let mut values: BTreeMap<usize, NamedValue> = values.into_iter().enumerate().collect();
    for fit in fits {
        fill(&mut found, &fit, &mut values, origin, wanted);
    }
    for (at, value) in values {
        let lacking = in_part.iter().find(|fit| fit.takes(at)).map(|fit| fit.needs(by));
        keep(&mut found, value, lacking, origin, wanted);
    }
    found
}

/// Makes a connection of the values that fit.
fn fill(
    found: &mut Extracted,
    fit: &Fit<'_>,
    values: &mut BTreeMap<usize, NamedValue>,
    origin: Option<&SourceObject>,
    wanted: &ImportOptions,
) {
    for (place, better) in &fit.outdone {
        let better = values.get(better).map(|value| value.name.clone()).unwrap_or_default();
        if let Some(value) = values.remove(place) {
            found.skip(value.place(), format!("{fit} takes {better} in its place"));
        }
    }
    let taken = fit.fields.iter();
    let taken: Vec<_> =
        taken.filter_map(|(field, at)| Some((field.clone(), values.remove(at)?))).collect();
    let from: Vec<_> = taken.iter().map(|(_, value)| value.name.clone()).collect();
    let from = from.join(", ");
    let name = origin.map_or("", |origin| &origin.name);
    let called =
        origin.map_or_else(|| vec![fit.integration.clone()], |origin| origin.called.clone());
    let fields = taken.into_iter().map(|(field, value)| (field, value.value));
    let reference = (fit.integration.as_str(), name);
    let document = connection(reference, &fit.kind.name, fields, wanted.access());
    found.entries.push(Entry { from, called, document });
}

/// Makes a secret of a value, or leaves it out if there is no `--workflow`.
fn keep(
    found: &mut Extracted,
    value: NamedValue,
    lacking: Option<String>,
    origin: Option<&SourceObject>,
    wanted: &ImportOptions,
) {
    let place = value.place();
    let Some(workflow) = &wanted.workflow else {
        let otherwise = "--workflow NAME makes it a secret";
        let why = lacking.unwrap_or_else(|| "it belongs to no connection".to_owned());
        return found.skip(place, format!("{why}; {otherwise}"));
    };
    let of_origin = origin.into_iter().flat_map(|origin| &origin.called);
    let called = of_origin.map(|origin| format!("{origin}/{}", value.name));
    let called = called.chain([value.name.clone()]).collect();
    let NamedValue { name, value, .. } = value;
    let workflow = workflow.clone();
    let document = Document::Secret(pb::SecretDocument { workflow, name, value, kept: false });
    found.entries.push(Entry { from: place, called, document });
}

impl NamedValue {
    /// Its name, with its line if there is one.
    fn place(&self) -> String {
        self.line.map_or_else(|| self.name.clone(), |line| at_line(line, &self.name))
    }
}
