//! The older text format of Prometheus, 0.0.4, for clients that do not read OpenMetrics.

/// The older format's name of a type, and the suffix of its families, which their samples have, too.
fn older(kind: &str) -> (&str, &str) {
    match kind {
        "counter" => ("counter", "_total"),
        "info" => ("gauge", "_info"),
        other => (other, ""),
    }
}

/// Converts a text of OpenMetrics. Units are only in the names, and there is no mark at the end.
pub fn classic(open_metrics: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(open_metrics.len()), "");
    for line in open_metrics.lines() {
        if let Some(of_family) = line.strip_prefix("# HELP ") {
            help = of_family.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (kind, end) = older(kind);
            for line in ["# HELP ", name, end, " ", help, "\n# TYPE ", name, end, " ", kind, "\n"] {
                text.push_str(line);
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_older_format_are_named_as_their_samples() {
        let open = "# HELP k_build The build.\n# TYPE k_build info\nk_build_info{version=\"1\"} 1\n\
                    # HELP k_seen Seen.\n# TYPE k_seen counter\nk_seen_total 0\n\
                    # HELP k_end_seconds End.\n# TYPE k_end_seconds gauge\n# UNIT k_end_seconds seconds\n\
                    k_end_seconds 1\n# EOF\n";
        let expected = "# HELP k_build_info The build.\n# TYPE k_build_info gauge\nk_build_info{version=\"1\"} 1\n\
                        # HELP k_seen_total Seen.\n# TYPE k_seen_total counter\nk_seen_total 0\n\
                        # HELP k_end_seconds End.\n# TYPE k_end_seconds gauge\nk_end_seconds 1\n";
        assert_eq!(classic(open), expected);
    }
}
