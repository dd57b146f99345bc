//! `--from env`: a .env file. Customary variables become connections, other variables secrets.

use super::dotenv::variables;
use super::text::lines_of;
use crate::cli::operator::import::assign::assign;
use crate::cli::operator::import::extracted::Extracted;
use crate::cli::operator::import::fit::MatchBy;
use crate::cli::operator::import::options::ImportOptions;

/// Reads a file.
pub fn read(bytes: &[u8], wanted: &ImportOptions) -> Extracted {
    let text = match lines_of(bytes) {
        Ok(text) => text,
        Err(problem) => return Extracted::problem(problem),
    };
    let mut variables = match variables(&text) {
        Ok(variables) => variables,
        Err(problems) => return Extracted { problems, ..Extracted::default() },
    };
    let prefix = wanted.prefix.as_deref().unwrap_or_default();
    let all = variables.len();
    variables.retain_mut(|variable| match variable.name.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() => {
            variable.name = rest.to_owned();
            true
        }
        _ => false,
    });
    let others = all - variables.len();
    let mut found = assign(variables, MatchBy::Variable, None, wanted);
    if others > 0 {
        found.skip(format!("{others} variable(s)"), format!("not named {prefix}…"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operator::import::names::NameArguments;
    use crate::grpc::document_name;
    use crate::grpc::pb;

    fn kind(name: &str, fields: &[(&str, &str, &[&str], bool)]) -> pb::CredentialKind {
        let fields = fields.iter().map(|(name, env, also_env, required)| pb::FieldSchema {
            name: (*name).to_owned(),
            env: (*env).to_owned(),
            also_env: also_env.iter().map(|name| (*name).to_owned()).collect(),
            required: *required,
            ..Default::default()
        });
        pb::CredentialKind { name: name.to_owned(), fields: fields.collect(), ..Default::default() }
    }

    fn integration(name: &str, kinds: Vec<pb::CredentialKind>) -> pb::Integration {
        pb::Integration { name: format!("integrations/{name}"), kinds, ..Default::default() }
    }

    fn wanted() -> ImportOptions {
        let key = ("key", "CLOUD_KEY", &["OLD_KEY"][..], true);
        let secret = ("secret", "CLOUD_SECRET", &[][..], true);
        let cloud = vec![
            kind("key", &[key, secret, ("region", "CLOUD_REGION", &[], false)]),
            kind("token", &[("token", "CLOUD_TOKEN", &[], true)]),
        ];
        let db =
            vec![kind("password", &[("host", "", &[], true), ("password", "DB_PWD", &[], true)])];
        let catalogue = vec![
            integration("cloud", cloud),
            integration("db", db),
            integration("other", vec![kind("token", &[("token", "CLOUD_TOKEN", &[], true)])]),
        ];
        ImportOptions { catalogue, names: names(&["main"]), ..ImportOptions::default() }
    }

    fn names(arguments: &[&str]) -> NameArguments {
        let arguments: Vec<_> = arguments.iter().map(|one| (*one).to_owned()).collect();
        NameArguments::parse(&arguments).unwrap()
    }

    /// Reads a file and renames its documents.
    fn read(bytes: &[u8], wanted: &ImportOptions) -> Extracted {
        let mut found = super::read(bytes, wanted);
        wanted.names.give(&mut found);
        found
    }

    fn becomes(found: &Extracted) -> Vec<String> {
        assert_eq!(found.problems, Vec::<String>::new());
        found
            .entries
            .iter()
            .map(|one| format!("{} of {}", document_name(&one.document), one.from))
            .collect()
    }

    #[test]
    fn whole_connections_are_made_and_the_rest_is_secrets_or_named() {
        let text = b"CLOUD_KEY=a\nCLOUD_SECRET=b\nOLD_KEY=c\nDB_PWD=d\nOTHER=e\nEMPTY=\n";
        let found = read(text, &wanted());
        assert_eq!(becomes(&found), ["connections/cloud/main of CLOUD_KEY, CLOUD_SECRET"]);
        let skipped: Vec<_> =
            found.skipped.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        assert_eq!(skipped[0], "line 6: EMPTY: it is empty");
        assert_eq!(skipped[1], "line 3: OLD_KEY: cloud/key takes CLOUD_KEY in its place");
        assert!(
            skipped[2].contains("db/password also needs host (by --integration db)"),
            "{skipped:?}"
        );
        assert!(skipped[3].starts_with("line 5: OTHER: it belongs to no connection"));
        let of_workflow = ImportOptions { workflow: Some("w".to_owned()), ..wanted() };
        let found = read(text, &of_workflow);
        assert_eq!(
            becomes(&found)[1..],
            [
                "workflows/w/secrets/DB_PWD of line 4: DB_PWD",
                "workflows/w/secrets/OTHER of line 5: OTHER",
            ]
        );
    }

    #[test]
    fn what_could_be_of_several_is_asked_for() {
        let problem = |text: &str, wanted: &ImportOptions| {
            let found = read(text.as_bytes(), wanted);
            assert_eq!(found.problems.len(), 1, "{text}");
            found.problems[0].clone()
        };
        let said = problem("CLOUD_TOKEN=a\n", &wanted());
        assert!(said.contains("cloud, other") && said.contains("--integration"), "{said}");
        let said = problem("CLOUD_TOKEN=a\nCLOUD_KEY=b\nCLOUD_SECRET=c\n", &wanted());
        assert!(said.contains("cloud/key, cloud/token") && said.contains("--kind"), "{said}");
        let cloud = ImportOptions { integration: Some("cloud".to_owned()), ..wanted() };
        let both = "CLOUD_TOKEN=a\ntoken=b\n";
        assert_eq!(becomes(&read(both.as_bytes(), &cloud)), ["connections/cloud/main of token"]);
        assert!(problem("X=a\n", &cloud).contains("cloud/key also needs key, secret"));
        let absent = ImportOptions { integration: Some("nonsense".to_owned()), ..wanted() };
        assert!(problem("X=a\n", &absent).contains("there is no integration nonsense"));
        let kind = ImportOptions { kind: Some("nonsense".to_owned()), ..cloud };
        assert!(problem("X=a\n", &kind).contains("it has: key, token"));
        let nameless = ImportOptions { names: NameArguments::default(), ..wanted() };
        let said = problem("CLOUD_KEY=a\nCLOUD_SECRET=b\n", &nameless);
        assert!(said.contains("--name NAME"), "{said}");
        let by_integration = ImportOptions { names: names(&["cloud=x"]), ..wanted() };
        let found = read(b"CLOUD_KEY=a\nCLOUD_SECRET=b\n", &by_integration);
        assert_eq!(becomes(&found), ["connections/cloud/x of CLOUD_KEY, CLOUD_SECRET"]);
        let other = ImportOptions { names: names(&["main", "nothing=x"]), ..wanted() };
        assert!(
            problem("CLOUD_KEY=a\nCLOUD_SECRET=b\n", &other).contains("nothing is called nothing")
        );
        assert!(read(b"A=1\nB=\xff\n", &wanted()).problems[0].starts_with("line 2"));
    }

    #[test]
    fn a_prefix_selects_and_is_removed_and_own_names_match() {
        let wanted = ImportOptions {
            prefix: Some("PROD_".to_owned()),
            integration: Some("db".to_owned()),
            ..wanted()
        };
        let found = read(b"PROD_HOST=h\nPROD_PASSWORD=p\nHOST=other\nPROD_=x\n", &wanted);
        assert_eq!(becomes(&found), ["connections/db/main of HOST, PASSWORD"]);
        assert_eq!(found.skipped[0].what, "2 variable(s)");
    }
}
