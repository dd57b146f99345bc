//! Examples of every command, for its help and its page of the manual.

/// By the words of the command.
pub(super) const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "dev",
        &[
            "keyhatch dev",
            "keyhatch dev -f seed.yaml -- keyhatch get aws/test",
            "keyhatch dev -f seed.yaml --workflow deploy -- ./deploy.sh",
        ],
    ),
    ("init", &["keyhatch init", "keyhatch init --kek-file /etc/keyhatch.kek --name build-7"]),
    ("serve", &["keyhatch serve", "keyhatch serve --admin-group ops --metrics 127.0.0.1:9464"]),
    ("status", &["keyhatch status", "keyhatch status -o json"]),
    ("healthcheck", &["keyhatch healthcheck"]),
    ("doctor", &["keyhatch doctor", "keyhatch doctor -o json"]),
    ("config reference", &["keyhatch config reference"]),
    (
        "config systemd-unit",
        &[
            "keyhatch config systemd-unit --out /etc/systemd/system",
            "keyhatch config systemd-unit --metrics 127.0.0.1:9464 --state /srv/keyhatch",
        ],
    ),
    ("completion", &["keyhatch completion bash > /etc/bash_completion.d/keyhatch"]),
    ("man", &["keyhatch man", "keyhatch man --out /usr/local/share/man/man1"]),
    (
        "get",
        &[
            "keyhatch get aws/prod",
            "keyhatch get aws/prod --field access_key_id",
            "keyhatch get group:aws-accounts:env=prod,region=eu --format env",
            "keyhatch get secret:token",
            "keyhatch get default:slack --watch",
        ],
    ),
    (
        "exec",
        &[
            "keyhatch exec --env aws/prod -- aws s3 ls",
            "keyhatch exec --env TOKEN=secret:token -- sh -c 'curl -H \"Authorization: $TOKEN\" …'",
        ],
    ),
    ("inject", &["keyhatch inject -i app.conf.tmpl -o app.conf"]),
    ("helper git", &["keyhatch helper git --answer github.com=github/main get"]),
    (
        "helper docker",
        &["keyhatch helper docker --answer registry.example.com=docker-registry/main get"],
    ),
    ("helper kubectl", &["keyhatch helper kubectl kubernetes/prod"]),
    ("helper aws", &["keyhatch helper aws aws/prod"]),
    ("whoami", &["keyhatch whoami", "keyhatch whoami -o name"]),
    (
        "step open",
        &[
            "keyhatch step open --workflow deploy --run 42 --step build --uid 1000 -o json",
            "keyhatch step open --workflow deploy --run 42 --step build --allow 'aws/*' --ttl 30m",
        ],
    ),
    (
        "step close",
        &[
            "keyhatch step close openings/0651d9b0a0f24b0c8f7d1c2e3a4b5c6d",
            "keyhatch step close --workflow deploy --run 42 --step build",
        ],
    ),
    ("step renew", &["keyhatch step renew --workflow deploy --run 42 --step build"]),
    ("step list", &["keyhatch step list", "keyhatch step list --workflow deploy -o name"]),
    (
        "step run",
        &[
            "keyhatch step run --workflow deploy --run 42 --step build -- keyhatch get aws/prod",
            "keyhatch step run --workflow deploy --run 42 --step build -- docker run -v {mount} image",
        ],
    ),
    ("run list", &["keyhatch run list", "keyhatch run list --workflow deploy --since 7d"]),
    ("run show", &["keyhatch run show 42", "keyhatch run show 42 --workflow deploy -o json"]),
    ("run close", &["keyhatch run close 42 --workflow deploy"]),
    (
        "connection create",
        &[
            "keyhatch connection create aws/prod --field access_key_id=AKIAEXAMPLE \\\n    \
             --field secret_access_key=- --tag env:prod --resolver workflow:deploy",
            "keyhatch connection create slack/alerts --field api_token=env:SLACK_TOKEN --default",
        ],
    ),
    ("connection get", &["keyhatch connection get aws/prod"]),
    (
        "connection list",
        &[
            "keyhatch connection list --integration aws --tag env:prod",
            "keyhatch connection list --unused-since 90d -o name",
            "keyhatch connection list --filter 'kind = access_key AND tags.env != prod'",
        ],
    ),
    (
        "connection update",
        &[
            "keyhatch connection update aws/prod --field access_key_id=AKIAEXAMPLE --field \
             secret_access_key=@key",
            "keyhatch connection update aws/prod --disable",
        ],
    ),
    ("connection delete", &["keyhatch connection delete aws/prod"]),
    ("connection test", &["keyhatch connection test aws/prod"]),
    (
        "group create",
        &[
            "keyhatch group create aws-accounts --integration aws --identifier env --member aws/prod \\\n    \
             --viewer workflow:deploy",
        ],
    ),
    ("group get", &["keyhatch group get aws-accounts"]),
    ("group list", &["keyhatch group list"]),
    (
        "group update",
        &[
            "keyhatch group update aws-accounts --add-member aws/dev",
            "keyhatch group update aws-accounts --identifier env --identifier region",
        ],
    ),
    ("group delete", &["keyhatch group delete aws-accounts"]),
    (
        "access add",
        &[
            "keyhatch access add aws/prod --relation resolver --principal workflow:deploy/step:build",
            "keyhatch access add group:aws-accounts --relation viewer --principal 'workflow:team-a-*'",
        ],
    ),
    (
        "access remove",
        &["keyhatch access remove aws/prod --relation resolver --principal workflow:deploy"],
    ),
    ("access list", &["keyhatch access list aws/prod"]),
    ("access suggest", &["keyhatch access suggest deploy --since 90d"]),
    ("integration get", &["keyhatch integration get aws"]),
    ("integration list", &["keyhatch integration list"]),
    (
        "secret put",
        &[
            "keyhatch secret put --workflow deploy token",
            "keyhatch secret put --workflow deploy token --value @token.txt",
        ],
    ),
    ("secret list", &["keyhatch secret list --workflow deploy"]),
    ("secret delete", &["keyhatch secret delete --workflow deploy token"]),
    (
        "apply",
        &["keyhatch apply -f seeds --dry-run", "keyhatch apply -f seeds --allow-env AWS_SECRET"],
    ),
    (
        "check",
        &[
            "keyhatch check workflow.yaml",
            "keyhatch check workflows --quiet",
            "keyhatch check workflow.yaml --workflow deploy --offline -o name",
        ],
    ),
    ("diff", &["keyhatch diff -f seeds"]),
    ("export", &["keyhatch export > all.yaml", "keyhatch export --label team=web"]),
    (
        "import",
        &[
            "keyhatch import --from aws-profile ~/.aws/credentials --dry-run",
            "keyhatch import --from env --integration slack --name alerts .env",
        ],
    ),
    (
        "explain",
        &[
            "keyhatch explain 1.42",
            "keyhatch explain aws/prod --workflow deploy --step build --run-as user:alice",
        ],
    ),
    ("backup", &["keyhatch backup /mnt/backup/keyhatch.sealed"]),
    (
        "restore",
        &[
            "keyhatch restore /mnt/backup/keyhatch.sealed --kek-file /etc/keyhatch.kek",
            "keyhatch restore --confirm",
        ],
    ),
    (
        "journal tail",
        &[
            "keyhatch journal tail -f",
            "keyhatch journal tail --denied --since 2h --workflow deploy",
            "keyhatch journal tail --event opened --event closed --run 42",
        ],
    ),
    (
        "journal verify",
        &["keyhatch journal verify --ca /safe/ca.crt", "keyhatch journal verify /mnt/old/journal"],
    ),
    ("key list", &["keyhatch key list"]),
    (
        "key rotate",
        &[
            "keyhatch key rotate --data",
            "keyhatch key rotate --offline --kek-file /etc/keyhatch.kek",
        ],
    ),
    (
        "operator add",
        &[
            "keyhatch operator add alice --role operator --out alice",
            "keyhatch operator add bob --role viewer --csr /home/bob/.config/keyhatch/tls.csr",
        ],
    ),
    ("operator request", &["keyhatch operator request --name bob"]),
    ("operator list", &["keyhatch operator list"]),
    ("operator remove", &["keyhatch operator remove alice"]),
    ("operator renew", &["keyhatch operator renew"]),
    ("executor add", &["keyhatch executor add ci --workflow 'team-a-*' --out ci"]),
    ("executor list", &["keyhatch executor list"]),
    ("executor remove", &["keyhatch executor remove ci"]),
    ("executor request", &["keyhatch executor request --name build-host --out build-host"]),
    ("renew", &["keyhatch renew --if-due", "keyhatch renew --if-due /home/ci/keyhatch"]),
    ("executor renew", &["keyhatch executor renew"]),
];

/// Those of a command, by its words.
pub(crate) fn of(command: &str) -> &'static [&'static str] {
    let found = EXAMPLES.iter().find(|(words, _)| *words == command);
    found.map_or(&[], |(_, examples)| examples)
}
