//! Logins without names of members, with the password after a colon.

/// The most digits of a port.
const LONGEST_PORT: usize = 5;

/// The password in `USER:PASSWORD`. None if the text is anything else.
pub fn password(text: &str) -> Option<&str> {
    let (user, password) = text.split_once(':')?;
    let is_of_a_user = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@+".contains(&byte);
    let is_user = !user.is_empty() && user.bytes().all(is_of_a_user);
    let is_address = password.starts_with("//") || is_port(password);
    let is_login = is_user && !is_address && !password.contains(char::is_whitespace);
    is_login.then_some(password)
}

/// The password in a line of libpq's file, `HOST:PORT:DATABASE:USER:PASSWORD`, with its backslashes before colons and
/// backslashes.
pub fn pgpass_password(line: &str) -> Option<&str> {
    let mut is_escaped = false;
    let mut fields = line.splitn(5, |c| {
        let ends = c == ':' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let port = fields.nth(1)?;
    let password = fields.nth(2)?;
    // An IPv6 address may have as many colons.
    let is_address = line.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    (!is_address && (port == "*" || is_port(port))).then_some(password)
}

/// The password without those backslashes.
pub fn unescaped(text: &str) -> String {
    let mut is_escaped = false;
    let is_kept = |c: &char| {
        is_escaped = *c == '\\' && !is_escaped;
        !is_escaped
    };
    text.chars().filter(is_kept).collect()
}

fn is_port(text: &str) -> bool {
    (1..=LONGEST_PORT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_differs_from_ports_and_addresses() {
        assert_eq!(password("bob:hunter22x"), Some("hunter22x"));
        for other in ["h.example:5432", "https://h", "bob: hunter22x", "a b:hunter22x", ":x", "x"] {
            assert_eq!(password(other), None, "{other}");
        }
        assert_eq!(pgpass_password(r"h\:1:5432:d:u:a\:b\\"), Some(r"a\:b\\"));
        assert_eq!(pgpass_password("*:*:*:u:hunter22x"), Some("hunter22x"));
        for other in ["2001:0:3238:dfe1:63:fefb", "a:b:c:d:e", "h:5432:d:u"] {
            assert_eq!(pgpass_password(other), None, "{other}");
        }
        assert_eq!(unescaped(r"a\:b\\"), r"a:b\");
    }
}
