//! The name of a role session, by which CloudTrail tells the step.

use super::super::Ask;

/// The longest name, in characters.
const MAX: usize = 64;
/// The characters of the mint's number.
const NUMBER: usize = 8;

/// `WORKFLOW.RUN.STEP-NUMBER`, where NUMBER begins the mint's number. Characters that AWS does not allow become `_`. If the
/// name is too long, its longest part is cut.
pub fn session_name(ask: &Ask) -> String {
    let run = ask.run.as_ref().map(|run| run.as_str());
    let step = ask.step.as_ref().map(|step| step.as_str());
    let parts = [Some(ask.workflow.as_str()), run, step].into_iter().flatten();
    let mut parts: Vec<String> = parts
        .map(|part| part.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect())
        .collect();
    let length = |parts: &[String]| parts.iter().map(|part| part.len() + 1).sum::<usize>();
    while length(&parts) + NUMBER > MAX
        && let Some(longest) = parts.iter_mut().max_by_key(|part| part.len())
    {
        longest.pop();
    }
    let mint = ask.mint.digits();
    let number = mint.as_str().get(..NUMBER).unwrap_or_default();
    format!("{}-{number}", parts.join("."))
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}
