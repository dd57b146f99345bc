//! The variables of a .env file.
//!
//! Its lines are read by dotenvy, one assignment at a time: what is an assignment is seen here, because dotenvy
//! says no lines, repeats the line in its errors, and puts variables of this process in place of `$NAME`.

use std::collections::BTreeMap;

use super::fit::Named;
use super::found::at_line;

/// An assignment as it stands there, its line feeds included.
struct Assignment<'a> {
    line: u64,
    text: &'a str,
    /// Whether a `$` in it stands for a variable.
    substitutes: bool,
    /// Whether all its quotes are closed.
    is_closed: bool,
}

/// The variables, in their order.
///
/// # Errors
/// Everything that is wrong, by line. A line that is not understood is not repeated: it may be part of a value.
pub fn variables(text: &str) -> Result<Vec<Named>, Vec<String>> {
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for assignment in assignments(text.trim_start_matches('\u{feff}')) {
        let line = assignment.line;
        match read(&assignment) {
            Ok((name, value)) => match lines.insert(name.clone(), line) {
                Some(first) => {
                    problems.push(at_line(line, &format!("{name} stands on line {first} already")));
                }
                None => {
                    variables.push(Named { name, value: value.into_bytes(), line: Some(line) });
                }
            },
            Err(problem) => problems.push(at_line(line, &problem)),
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

fn read(assignment: &Assignment<'_>) -> Result<(String, String), String> {
    let quoted = "put the value in single quotes, or a single quote itself in double ones";
    if !assignment.is_closed {
        return Err(format!("its quotes are not closed; {quoted}"));
    }
    let (name, value) = assignment.text.split_once('=').unwrap_or_default();
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    if assignment.substitutes {
        let shown = if is_variable(name) { name } else { "this" };
        return Err(format!(
            "{shown} has a $ that would stand for another variable; put the value in single quotes"
        ));
    }
    // A comment to dotenvy, and part of the value to a shell.
    if value.starts_with('#') {
        return Err(format!("the value begins with #; {quoted}"));
    }
    // With the line feed: at the end of a text dotenvy takes spaces for the middle of a line.
    let whole = format!("{}\n", assignment.text);
    let mut read = dotenvy::from_read_iter(whole.as_bytes());
    match (read.next(), read.next()) {
        (Some(Ok(pair)), None) => Ok(pair),
        _ => Err(format!("this is not NAME=VALUE; where there are spaces, {quoted}")),
    }
}

fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_part)
}

/// Where we are in an assignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    /// Behind white space, where a comment can begin.
    Space,
    Single,
    Double,
    Comment,
}

/// The assignments of a text; quoted values go over several lines.
fn assignments(text: &str) -> Vec<Assignment<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1_u64);
    while !rest.is_empty() {
        let (length, substitutes, is_closed) = extent(rest);
        let (text, after) = rest.split_at(length);
        let content = text.trim_start();
        if !content.is_empty() && !content.starts_with('#') {
            let text = text.trim_end_matches(['\n', '\r']);
            found.push(Assignment { line, text, substitutes, is_closed });
        }
        line += u64::try_from(text.matches('\n').count()).unwrap_or_default();
        rest = after;
    }
    found
}

/// How many bytes the first assignment, comment or empty line has, whether it substitutes anything, and whether
/// its quotes are closed.
fn extent(text: &str) -> (usize, bool, bool) {
    let mut state = State::Space;
    let (mut escaped, mut substitutes) = (false, false);
    for (at, c) in text.char_indices() {
        if c == '\n' && !matches!(state, State::Single | State::Double) {
            return (at + 1, substitutes, true);
        }
        if std::mem::take(&mut escaped) {
            continue;
        }
        state = match (state, c) {
            (State::Comment, _) | (State::Space, '#') => State::Comment,
            (State::Single, '\'') | (State::Double, '"') => State::Plain,
            (State::Single, _) => State::Single,
            (state, '\\') => {
                escaped = true;
                if state == State::Double { state } else { State::Plain }
            }
            (state, '$') => {
                substitutes = true;
                if state == State::Double { state } else { State::Plain }
            }
            (State::Double, _) => State::Double,
            (_, '\'') => State::Single,
            (_, '"') => State::Double,
            (_, c) if c.is_whitespace() => State::Space,
            _ => State::Plain,
        };
    }
    (text.len(), substitutes, !matches!(state, State::Single | State::Double))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, u64)> {
        let read = variables(text).ok().unwrap();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        read.into_iter().map(|one| (one.name, text(one.value), one.line.unwrap())).collect()
    }

    #[test]
    fn values_are_taken_as_a_shell_takes_them_over_several_lines_too() {
        let text = "\u{feff}# first\n\nA=a#b;c\nexport B = 'x $HOME \\n # \"y\" '\nC=\"l1\n  l2 # 'x' \\$5 \\\"\"\n\
                    D=d # it's\nE=\nF='#f' \nG=g\\ h  ";
        let expected = [
            ("A", "a#b;c", 3),
            ("B", "x $HOME \\n # \"y\" ", 4),
            ("C", "l1\n  l2 # 'x' $5 \"", 5),
            ("D", "d", 7),
            ("E", "", 8),
            ("F", "#f", 9),
            ("G", "g h", 10),
        ];
        let expected =
            expected.map(|(name, value, line)| (name.to_owned(), value.to_owned(), line));
        assert_eq!(pairs(text), expected);
        assert_eq!(pairs("A='1'\r\nB=2\r\n").len(), 2);
    }

    #[test]
    fn nothing_of_this_process_gets_into_a_value() {
        for line in
            ["A=$PATH", "A=${PATH}", "A=\"a $PATH\"", "A='a'$PATH", "A=x$", "A='a'\"${PATH}\""]
        {
            let problems = variables(&format!("B=1\n{line}\n")).err().unwrap();
            assert!(problems[0].starts_with("line 2: A has a $"), "{line}: {problems:?}");
        }
        assert_eq!(pairs("A='$PATH'\nB=\\$PATH\nC=c # $PATH\n")[0].1, "$PATH");
    }

    #[test]
    fn all_problems_come_at_once_with_their_lines_and_no_value() {
        let text =
            "A=a canary\ncanary\nB='it\\'s canary'\nC=1\nC=2\nD=#canary\n=canary\nE='canary\n";
        let problems = variables(text).err().unwrap();
        let lines: Vec<_> = problems.iter().map(|text| text.split(':').next().unwrap()).collect();
        assert_eq!(lines[..2], ["line 1", "line 2"]);
        assert!(!problems.join("\n").contains("canary"), "{problems:?}");
        let problems = variables("A=1\nC=1\nC=2\nD=#canary\n=canary\nE='canary\n").err().unwrap();
        let lines: Vec<_> = problems.iter().map(|text| text.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 3", "line 4", "line 5", "line 6"]);
    }

    /// A backslash before the closing quote: dotenvy takes the next line for a part of the value.
    #[test]
    fn what_dotenvy_would_run_together_is_refused() {
        let problems = variables("A='x\\'\nB='y\\'\n").err().unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
