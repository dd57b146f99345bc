//! The variables of a .env file.
//!
//! The form has no standard: docker, dotenv libraries and shells read quotes and backslashes within a value differently.
//! A value that they read alike is taken, and any other value is refused, so that no secret differs from what its owner
//! expects. dotenvy reads the values, one assignment at a time. This module finds where each begins and ends, because
//! dotenvy reports no lines, repeats the text in its errors, and puts variables of this process in place of `$NAME`.

use std::collections::BTreeMap;

use crate::cli::operator::import::extracted::at_line;
use crate::cli::operator::import::fit::NamedValue;

/// Characters that a shell interprets in a value without quotes.
const OF_SHELLS: [char; 7] = [';', '&', '|', '<', '>', '(', ')'];

/// Why a value is refused that some readers of the file would take differently, and what to do.
type Unclear = &'static str;

const BACKSLASH: Unclear = "there is a backslash in double quotes, which readers take differently (but for \\n); put the \
                            value in single quotes";
const BACKTICKS: Unclear = "the value is in backticks, or has them in double quotes, and a shell runs what is in \
                            them; put the value in single quotes";
const COMMENT: Unclear = "the value begins with #; put the value in single quotes";
/// Behind the name of the variable.
const DOLLAR: Unclear = "has a $ that means another variable; put the value in single quotes";
const INSIDE: Unclear = "the value has quotes or backslashes in it; put the value in single quotes";
const MORE: Unclear = "there is more behind its quotes";
const NOT_CLOSED: Unclear = "its quotes are not closed";
const NO_QUOTES: Unclear = "there is \\\\, ${ or a last backslash in single quotes, which no quotes keep for all \
                            readers; take the line out and store the value from a file (NAME=@FILE)";
const SPACE: Unclear =
    "there is white space behind the =, where a shell ends the value; write NAME=VALUE";
const SPECIAL: Unclear = "the value has # or a sign of shells in it, which readers take differently; put the value in \
                          single quotes";
const THREE_QUOTES: Unclear = "the value is in three quotes, which few readers know; put it in one";

/// An assignment of the text.
struct Assignment<'a> {
    line: u64,
    text: &'a str,
    /// An error if readers take its value differently.
    checked: Result<(), Unclear>,
}

/// The variables, in their order.
///
/// # Errors
/// Every problem, by line. A line that is not understood is not repeated: it may be part of a value.
pub fn variables(text: &str) -> Result<Vec<NamedValue>, Vec<String>> {
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for assignment in assignments(text) {
        let line = assignment.line;
        match read(&assignment) {
            Ok((name, value)) => match lines.insert(name.clone(), line) {
                Some(first) => {
                    problems.push(at_line(line, &format!("{name} is on line {first} already")));
                }
                None => {
                    variables.push(NamedValue {
                        name,
                        value: value.into_bytes(),
                        line: Some(line),
                    });
                }
            },
            Err(problem) => problems.push(at_line(line, &problem)),
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

fn read(assignment: &Assignment<'_>) -> Result<(String, String), String> {
    check_name(assignment.text)?;
    assignment.checked.map_err(|unclear| match unclear {
        DOLLAR => format!("{} {DOLLAR}", name_of(assignment.text).unwrap_or("the value")),
        unclear => unclear.to_owned(),
    })?;
    // At the end of a text dotenvy takes spaces for the middle of a line, so it gets the line feed.
    let whole = format!("{}\n", assignment.text);
    let mut read = dotenvy::from_read_iter(whole.as_bytes());
    match (read.next(), read.next()) {
        (Some(Ok(pair)), None) => Ok(pair),
        _ => {
            Err("this is not NAME=VALUE; if there are spaces in it, put the value in single quotes"
                .to_owned())
        }
    }
}

/// The name before the `=`; `None` if it is not a valid name.
fn name_of(text: &str) -> Option<&str> {
    let name = before_equals(text)?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    let begins = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    (begins && name.bytes().all(is_part)).then_some(name)
}

fn before_equals(text: &str) -> Option<&str> {
    let name = text.split_once('=')?.0.trim();
    Some(name.strip_prefix("export ").unwrap_or(name).trim())
}

/// Refuses a word before the `=` that is no name for some reader. The error does not repeat it: it may be part of a
/// value.
fn check_name(text: &str) -> Result<(), String> {
    let is_word = before_equals(text)
        .is_some_and(|name| !name.is_empty() && !name.contains(char::is_whitespace));
    match is_word && name_of(text).is_none() {
        true => Err("the name before = does not begin with a letter or _, or has more than letters, digits, _ and . in \
                     it; rename it"
            .to_owned()),
        false => Ok(()),
    }
}

/// The assignments of a text; quoted values go over several lines.
fn assignments(text: &str) -> Vec<Assignment<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1_u64);
    while !rest.is_empty() {
        let (length, checked) = first(rest);
        let (text, after) = rest.split_at(length);
        let content = text.trim_start();
        if !content.is_empty() && !content.starts_with('#') {
            found.push(Assignment { line, text: text.trim_end_matches('\n'), checked });
        }
        line += text.matches('\n').count() as u64;
        rest = after;
    }
    found
}

/// The length in bytes of the first assignment, comment or empty line, and whether its value is clear.
fn first(text: &str) -> (usize, Result<(), Unclear>) {
    let line = first_line(text);
    let is_comment = line.trim_start().starts_with('#');
    let Some((name, after)) = line.split_once('=').filter(|_| !is_comment) else {
        return (line.len(), Ok(()));
    };
    let value = after.trim_start_matches([' ', '\t']);
    let (length, is_clear) = first_value(text, line.len() - value.len());
    // A shell cannot read NAME = VALUE at all, and reads NAME= VALUE as an empty value.
    let is_empty = value.trim().is_empty() || value.starts_with('#');
    let is_spaced = value.len() < after.len() && !is_empty;
    let is_read = is_spaced && !name.ends_with([' ', '\t']);
    (length, is_clear.and(if is_read { Err(SPACE) } else { Ok(()) }))
}

/// The same for an assignment whose value begins at this byte.
fn first_value(text: &str, begin: usize) -> (usize, Result<(), Unclear>) {
    let line = first_line(text);
    let value = line.split_at(begin).1;
    if value.starts_with('`') {
        return (line.len(), Err(BACKTICKS));
    }
    if let Some(quotes) = ["\"\"\"", "'''"].into_iter().find(|quotes| value.starts_with(quotes)) {
        let (_, inside) = text.split_at(begin + quotes.len());
        let length = inside.find(quotes).map_or(inside.len(), |at| at + quotes.len());
        let behind = first_line(inside.split_at(length).1);
        return (begin + quotes.len() + length + behind.len(), Err(THREE_QUOTES));
    }
    let Some(quote) = value.chars().next().filter(|c| ['\'', '"'].contains(c)) else {
        let after = line.split_once('=').map_or(value, |(_, after)| after);
        return (line.len(), plain(after));
    };
    let (_, inside) = text.split_at(begin + 1);
    let Some(end) = end_of_quotes(inside, quote) else {
        return (text.len(), Err(NOT_CLOSED));
    };
    let (inside, behind) = inside.split_at(end);
    let behind = first_line(behind.split_at(1).1);
    let is_more = !behind.trim().is_empty() && comment_in(behind) != Some(0);
    let is_clear = quoted(inside, quote).and(if is_more { Err(MORE) } else { Ok(()) });
    (begin + 1 + end + 1 + behind.len(), is_clear)
}

/// The text to the end of its first line, line feed included.
fn first_line(text: &str) -> &str {
    text.split_inclusive('\n').next().unwrap_or_default()
}

/// Where a comment begins, with the white space before it.
fn comment_in(line: &str) -> Option<usize> {
    let at = line.match_indices('#').find(|(at, _)| line.split_at(*at).0.ends_with([' ', '\t']))?;
    Some(line.split_at(at.0).0.trim_end().len())
}

/// Checks a value without quotes.
fn plain(value: &str) -> Result<(), Unclear> {
    if value.starts_with('#') {
        return Err(COMMENT);
    }
    let value = value.split_at(comment_in(value).unwrap_or(value.len())).0;
    let value = value.trim_matches([' ', '\t', '\n']);
    let is_of_shells = |c: char| OF_SHELLS.contains(&c);
    // Node's dotenv ends a value at any #, and treats more characters as white space than others.
    let is_of_node =
        |c: char| c == '#' || c == '\u{feff}' || (c.is_whitespace() && c != ' ' && c != '\t');
    let is_home = value.starts_with('~') || value.contains(":~") || value.contains("=~");
    match value.chars().find(|c| ['\'', '"', '\\', '$', '`'].contains(c)) {
        Some('$') => Err(DOLLAR),
        Some(_) => Err(INSIDE),
        None if is_home || value.contains(is_of_shells) || value.contains(is_of_node) => {
            Err(SPECIAL)
        }
        None => Ok(()),
    }
}

/// Where the quotes end; `None` if they are not closed.
fn end_of_quotes(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    let mut signs = text.char_indices();
    let end = signs.find(|(_, c)| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        is_escaped = !was_escaped && quote == '"' && *c == '\\';
        !was_escaped && *c == quote
    });
    end.map(|(at, _)| at)
}

/// Checks a value in these quotes.
fn quoted(value: &str, quote: char) -> Result<(), Unclear> {
    if quote == '"' {
        // Every reader of .env files but a shell makes a line feed of this, and keys of several lines need it.
        let value = value.replace(r"\n", "\n");
        return match value.chars().find(|c| ['\\', '$', '`'].contains(c)) {
            Some('\\') => Err(BACKSLASH),
            Some('$') => Err(DOLLAR),
            Some(_) => Err(BACKTICKS),
            None => Ok(()),
        };
    }
    // Python's dotenv treats these as escapes, and fills the variable in.
    let is_of_python = value.contains(r"\\") || value.ends_with('\\') || value.contains("${");
    if is_of_python { Err(NO_QUOTES) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, u64)> {
        let read = variables(text).ok().unwrap();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        read.into_iter().map(|one| (one.name, text(one.value), one.line.unwrap())).collect()
    }

    #[test]
    fn values_are_taken_as_quoted_over_several_lines_too() {
        let text = "# first\n\nA=a-b,c\nexport B = 'x $HOME \\n # \"y\" '\nC=\"l1\n  l2 # 'x' ~;\"\n\
                    D=d # it's\nE= # e\nF='#f' \nG=g=h  ";
        let expected = [
            ("A", "a-b,c", 3),
            ("B", "x $HOME \\n # \"y\" ", 4),
            ("C", "l1\n  l2 # 'x' ~;", 5),
            ("D", "d", 7),
            ("E", "", 8),
            ("F", "#f", 9),
            ("G", "g=h", 10),
        ];
        let expected =
            expected.map(|(name, value, line)| (name.to_owned(), value.to_owned(), line));
        assert_eq!(pairs(text), expected);
        assert_eq!(pairs("A=\"a\\nb\"\n")[0].1, "a\nb");
    }

    #[test]
    fn nothing_of_this_process_gets_into_a_value() {
        for line in ["A=$PATH", "A=${PATH}", "A=\"a $PATH\"", "A=x$"] {
            let problems = variables(&format!("B=1\n{line}\n")).err().unwrap();
            assert!(problems[0].starts_with("line 2: A has a $"), "{line}: {problems:?}");
        }
        assert_eq!(pairs("A='$PATH'\nC=c # $PATH\n")[0].1, "$PATH");
    }

    #[test]
    fn all_problems_come_at_once_with_their_lines_and_no_value() {
        let text =
            "A=a canary\ncanary\nB='it\\'s canary'\nC=1\nC=2\nD=#canary\n=canary\nE='canary\n";
        let problems = variables(text).err().unwrap();
        let lines: Vec<_> = problems.iter().map(|text| text.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 1", "line 2", "line 3", "line 5", "line 6", "line 7", "line 8"]);
        assert!(!problems.join("\n").contains("canary"), "{problems:?}");
    }

    #[test]
    fn what_others_would_read_differently_is_refused() {
        for (text, word) in [
            ("A={\"a\": 1}", "in it"),
            ("A=it's", "in it"),
            ("A=a\\nb", "in it"),
            ("A=a\\", "in it"),
            ("A='a'b", "behind its quotes"),
            ("A='a'#b", "behind its quotes"),
            ("A='a'\"b\"", "behind its quotes"),
            ("A=#a", "begins with #"),
            ("A=\"a", "not closed"),
            ("A=a#b", "has # or a sign"),
            ("A=a#", "has # or a sign"),
            ("A=~/a", "has # or a sign"),
            ("A=/a:~/b", "has # or a sign"),
            ("A=a;b", "has # or a sign"),
            ("A=a&b", "has # or a sign"),
            ("A=a|b", "has # or a sign"),
            ("A=a\u{a0}", "has # or a sign"),
            ("A=  a", "white space behind the ="),
            ("A= 'a\nb'", "white space behind the ="),
            ("A=\"a\\tb\"", "a backslash in double quotes"),
            ("A=\"a\\\\nb\"", "a backslash in double quotes"),
            ("A=\"a\\\"b\"", "a backslash in double quotes"),
            ("A=\"a\\\\b\"", "a backslash in double quotes"),
            ("A=\"a\\$b\"", "a backslash in double quotes"),
            ("A=\"a`b`\"", "in double quotes"),
            ("A='a\\\\b'", "no quotes keep"),
            ("A='${a}'", "no quotes keep"),
            ("A=`a`", "in backticks"),
            ("A=a`b`", "in it"),
            ("A=\"\"\"\na\n\"\"\"\n", "in three quotes"),
            ("A='''a'''", "in three quotes"),
            ("A-B=a", "the name before ="),
            ("1A=a", "the name before ="),
            ("é=a", "the name before ="),
            ("A b=a", "not NAME=VALUE"),
        ] {
            let problems = variables(text).err().unwrap_or_default();
            assert!(problems.len() == 1 && problems[0].contains(word), "{text}: {problems:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_value_comes_back_from_its_quotes(
            double in "[a-z\\n#;'= {}é]{0,40}",
            single in "[a-z\\n#;\"= {}`é~&]{0,40}",
            more in "[a-z]{0,8}",
        ) {
            let text = format!("A={more}\nB=\"{double}\"\nC='{single}' # {more}\n");
            let read = variables(&text).ok().unwrap();
            prop_assert_eq!(&read[0].value, more.as_bytes());
            prop_assert_eq!(&read[1].value, double.as_bytes());
            prop_assert_eq!(&read[2].value, single.as_bytes());
        }
    }

    /// A backslash before the closing quote: dotenvy takes the next line for a part of the value.
    #[test]
    fn what_dotenvy_would_run_together_is_refused() {
        let problems = variables("A='x\\'\nB='y\\'\n").err().unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
