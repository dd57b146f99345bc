//! The file `/etc/hosts` (hosts(5)).

use std::net::IpAddr;

/// All addresses that the file gives a name in lower case.
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_all_its_addresses_of_the_file() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 vault\n10.0.0.2\tVault.example vault # 10.0.0.3\n\
                    fd00::2 vault\nnonsense vault\n10.0.0.4 other\n\n10.0.0.5";
        let found =
            |name: &str| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("vault"), ["10.0.0.2", "fd00::2"]);
        assert_eq!(found("vault.example"), ["10.0.0.2"]);
        assert_eq!(found("10.0.0.3"), [""; 0]);
    }
}
