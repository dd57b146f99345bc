//! Names of members that mean that the value is secret.

/// Parts of such names.
const PARTS: [&str; 8] = ["auth", "cookie", "credential", "key", "pass", "pwd", "secret", "token"];
/// Whole words of such names. They are parts of many other words.
const WORDS: [&str; 2] = ["pin", "pw"];
/// Last words of such names. Before another word they mean something else. Signed addresses have the last two.
const LAST: [&str; 3] = ["refresh", "sig", "signature"];

/// Whether a member with this name is secret.
pub fn names_a_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = words(name);
    PARTS.iter().any(|part| lower.contains(part))
        || words.iter().any(|word| WORDS.contains(&word.as_str()))
        || words.last().is_some_and(|word| LAST.contains(&word.as_str()))
}

/// Whether a member with this name may be `USER:PASSWORD`, as in curl's files.
pub fn names_a_login(name: &str) -> bool {
    words(name).last().is_some_and(|word| ["login", "user"].contains(&word.as_str()))
}

/// Splits a name into words: `dbPw`, `db_pw` and `DB-PW` are db and pw.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        let begins = !c.is_alphanumeric() || (was_lower && c.is_uppercase());
        if begins {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_a_secret_by_words_and_not_by_chance() {
        for name in
            ["apiKey", "DB_PASSWORD", "pin", "card-pin", "dbPw", "session_cookie", "refresh", "sig"]
        {
            assert!(names_a_secret(name), "{name}");
        }
        for name in
            ["spinner", "mapping", "upward", "refresh_interval", "shipping", "user", "sig_alg", ""]
        {
            assert!(!names_a_secret(name), "{name}");
        }
        assert!(names_a_login("proxy-user") && !names_a_login("username"));
    }
}
