//! The format of AWS' shared files, as AWS' command line reads it (Python's configparser, strict): names of settings in any
//! case, `=` or `:`, comments on lines of their own. A line that is indented further belongs to the setting above it.

use std::collections::HashMap;

use crate::cli::operator::import::extracted::at_line;

/// `[NAME]` and its settings.
pub struct Section {
    /// The name in the brackets.
    pub name: String,
    /// The line of the brackets.
    pub line: u64,
    /// In their order, each name once.
    pub settings: Vec<Setting>,
}

/// `NAME = VALUE`
pub struct Setting {
    /// In lower case.
    pub name: String,
    /// The value, with all its lines.
    pub value: String,
    /// The line on which it begins.
    pub line: u64,
}

/// The sections of a text, in their order, each name once.
///
/// # Errors
/// The first line that is wrong. The error does not repeat its text: it may be part of a value.
pub fn sections(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut names, mut own_names) = (Lines::default(), Lines::default());
    let mut indent = 0;
    for (line, at) in text.lines().zip(1_u64..) {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let own_indent = line.len() - line.trim_start().len();
        let above = sections.last_mut().and_then(|section| section.settings.last_mut());
        if let Some(above) = above.filter(|_| own_indent > indent) {
            above.value.push('\n');
            above.value.push_str(content);
            continue;
        }
        indent = own_indent;
        match content.strip_prefix('[') {
            Some(rest) => {
                sections.push(section(rest, at, &mut names)?);
                own_names.clear();
            }
            None => {
                let Some(section) = sections.last_mut() else {
                    return Err(at_line(at, "there are settings before the first [PROFILE]"));
                };
                section.settings.push(setting(content, at, &mut own_names)?);
            }
        }
    }
    Ok(sections)
}

/// Names, each with its line.
type Lines = HashMap<String, u64>;

fn section(rest: &str, line: u64, names: &mut Lines) -> Result<Section, String> {
    let wrong = || at_line(line, "this is no [PROFILE]");
    let (name, behind) = rest.split_once(']').ok_or_else(wrong)?;
    let (name, behind) = (name.trim(), behind.trim());
    if name.is_empty() || !(behind.is_empty() || behind.starts_with(['#', ';'])) {
        return Err(wrong());
    }
    match names.insert(name.to_owned(), line) {
        Some(first) => Err(at_line(line, &format!("[{name}] is on line {first} already"))),
        None => Ok(Section { name: name.to_owned(), line, settings: Vec::new() }),
    }
}

fn setting(content: &str, line: u64, names: &mut Lines) -> Result<Setting, String> {
    let split = content.split_once(['=', ':']).filter(|(name, _)| !name.trim().is_empty());
    let Some((name, value)) = split else {
        return Err(at_line(line, "this is neither [PROFILE] nor NAME = VALUE"));
    };
    let name = name.trim().to_lowercase();
    match names.insert(name.clone(), line) {
        Some(first) => Err(at_line(line, &format!("this setting is on line {first} already"))),
        None => Ok(Setting { name, value: value.trim().to_owned(), line }),
    }
}
