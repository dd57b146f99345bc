//! The options of lists that are filtered and ordered.

use clap::Args;

use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;

/// What is listed, in which order, and how much of it.
#[derive(Args)]
pub struct Listing {
    /// Only what has this text in its name, tags or labels, in either case.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// A filter: terms FIELD = VALUE, FIELD != VALUE or FIELD : PART, with AND between them. A wrong field is answered with all
    /// fields.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// name, or a time such as update_time or last_use_time; with ' desc' after it the latest first. A wrong field is answered with
    /// all fields.
    #[arg(long, value_name = "FIELD")]
    order_by: Option<String>,
    /// Only the first so many, and how many there are.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(in crate::cli) limit: Option<i32>,
}

impl Listing {
    /// The order: the given one, or else this.
    pub(in crate::cli) fn order_or(&self, usual: &str) -> String {
        self.order_by.as_deref().unwrap_or(usual).to_owned()
    }

    /// The filter of these and other terms.
    ///
    /// # Errors
    /// If a text has a double quote, which no filter can have.
    pub(in crate::cli) fn filter(
        &self,
        terms: impl IntoIterator<Item = String>,
    ) -> Result<String, Failure> {
        let search = self.search.as_deref().map(|text| term("text", ":", text)).transpose()?;
        let all = terms.into_iter().chain(search).chain(self.filter.clone());
        Ok(all.collect::<Vec<_>>().join(" AND "))
    }
}

/// A term of a filter.
///
/// # Errors
/// If the value has a double quote.
pub fn term(field: &str, operator: &str, value: &str) -> Result<String, Failure> {
    match value.contains('"') {
        true => Err(Failure::usage(format!("{field}: a filter takes no double quotes: {value}"))),
        false => Ok(format!("{field} {operator} \"{value}\"")),
    }
}

/// Says how many there are beside those that are shown.
pub fn say_total(shown: usize, total: i32, is_estimate: bool) {
    let about = if is_estimate { "about " } else { "" };
    say(&format!("{shown} of {about}{total}"));
}
