//! Names of environment variables, and those that the name of a field never becomes.
//!
//! The editors of a connection choose the names of its fields, so a field could decide what a step's programs execute.
//! The user of a command may still set such a variable by its name: `--env NAME=REF:FIELD`. No list of variables is
//! complete. This list guards the names that an integration fixes or begins; other names the user must write out.

/// A text as the name of a variable: upper case, with `_` for every other character.
pub fn variable_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// True if a text can be the name of a variable.
pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The name of the variable of a field under a prefix.
pub fn prefixed(prefix: &str, field: &str) -> String {
    variable_name(&format!("{prefix}_{field}"))
}

/// True if a variable decides which code programs execute, where they find it, or whom they talk to. Case does not
/// matter: programs read `http_proxy` in both cases.
pub fn steers_programs(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let any = |list: &str, is: &dyn Fn(&str) -> bool| list.split_ascii_whitespace().any(is);
    any(PREFIXES, &|prefix| name.starts_with(prefix))
        || any(SUFFIXES, &|suffix| name.ends_with(suffix))
        || VARIABLES.iter().any(|list| any(list, &|variable| name == variable))
}

/// Every variable with one of these prefixes.
const PREFIXES: &str = "
    ANSIBLE_ AWS_ENDPOINT_URL BASH_FUNC_ CARGO_ CMAKE_ COMPLUS_ CORECLR_ COR_PROFILER DBUS_ DOTNET_
    DYLD_ ERL_ GIT_ATTR_ GIT_CONFIG GIT_PROXY_ GIT_SSH GIT_SSL_ GIT_TRACE GLIBC_ JULIA_ KEYHATCH_
    LD_ LUA_ MALLOC_ NPM_CONFIG_ OPENSSL_ PERL5 PIP_ TF_CLI_ XDG_
";

/// Tools look for commands, and for options that name commands, under these suffixes.
const SUFFIXES: &str = "
    _CMD _COMMAND _EDITOR _HOOK _LAUNCHER _OPTS _PAGER _PLUGINS _WRAPPER
";

/// Single variables, by the programs that read them.
const VARIABLES: [&str; 9] =
    [SHELLS, LIBRARIES, NETWORK, GIT, EDITORS, RUNTIMES, BUILDS, TOOLS, FILES];

/// Read by shells.
const SHELLS: &str = "
    BASHOPTS BASH_ENV BASH_LOADABLES_PATH CDPATH COMSPEC ENV EXECIGNORE FCEDIT FPATH GLOBIGNORE
    HISTFILE HOME IFS INPUTRC OLDPWD PATH PATHEXT PS0 PS1 PS2 PS4 PWD SHELL SHELLOPTS TEMP TMP
    TMPDIR ZDOTDIR
";

/// Read by the C library, and by libraries that load modules.
const LIBRARIES: &str = "
    GCONV_PATH GDK_PIXBUF_MODULE_FILE GETCONF_DIR GIO_EXTRA_MODULES GTK_MODULES GTK_PATH
    LIBMYSQL_PLUGIN_DIR LIBPATH LOCPATH NLSPATH QT_PLUGIN_PATH SASL_PATH SHLIB_PATH TERMCAP TERMINFO
    TERMINFO_DIRS TERMPATH TZDIR
";

/// Where requests go, and which certificates are trusted there.
const NETWORK: &str = "
    ALL_PROXY AWS_CA_BUNDLE CURL_CA_BUNDLE DOCKER_HOST FTP_PROXY GH_HOST GH_REPO HOSTALIASES
    HTTPS_PROXY HTTP_PROXY LOCALDOMAIN NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED NO_PROXY
    REQUESTS_CA_BUNDLE RESOLV_HOST_CONF RES_OPTIONS RSYNC_PROXY SSH_AUTH_SOCK SSLKEYLOGFILE
    SSL_CERT_DIR SSL_CERT_FILE UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_INDEX UV_INDEX_URL
";

/// Read by git.
const GIT: &str = "
    GIT_ALLOW_PROTOCOL GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_ASKPASS GIT_COMMON_DIR GIT_DIR
    GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_INDEX_FILE GIT_NAMESPACE GIT_OBJECT_DIRECTORY
    GIT_PROTOCOL_FROM_USER GIT_TEMPLATE_DIR GIT_WORK_TREE
";

/// Editors, pagers and browsers that other programs start.
const EDITORS: &str = "
    BROWSER EDITOR EMACSLOADPATH EXINIT GVIMINIT HGEDITOR LESSCLOSE LESSEDIT LESSKEY LESSOPEN
    MANPAGER MYVIMRC PAGER SSH_ASKPASS SSH_ASKPASS_REQUIRE SUDO_ASKPASS VIMINIT VIMRUNTIME VISUAL
";

/// Read by interpreters and virtual machines.
const RUNTIMES: &str = "
    BUNDLE_GEMFILE BUNDLE_PATH CLASSPATH ELIXIR_ERL_OPTIONS GEM_HOME GEM_PATH IBM_JAVA_OPTIONS
    JAVA_HOME JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS MONO_ENV_OPTIONS MONO_PATH NODE_OPTIONS NODE_PATH
    NODE_REPL_EXTERNAL_MODULE OPENJ9_JAVA_OPTIONS PERLIO PERLLIB PERL_MB_OPT PERL_MM_OPT PHPRC
    PHP_INI_SCAN_DIR PYTHONBREAKPOINT PYTHONEXECUTABLE PYTHONHOME PYTHONINSPECT PYTHONPATH
    PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONSAFEPATH PYTHONSTARTUP PYTHONUSERBASE PYTHONWARNINGS
    PYTHON_HISTORY RUBYLIB RUBYOPT RUBYPATH RUBYSHELL R_ENVIRON R_ENVIRON_USER R_HOME R_LIBS
    R_LIBS_SITE R_LIBS_USER R_PROFILE R_PROFILE_USER TCLLIBPATH UV_PYTHON _JAVA_OPTIONS
";

/// Read by compilers and build tools.
const BUILDS: &str = "
    ANT_ARGS AR AS CC CFLAGS COMPILER_PATH CPATH CPP CPPFLAGS CXX CXXFLAGS C_INCLUDE_PATH
    GCC_EXEC_PREFIX GNUMAKEFLAGS GOENV GOFLAGS GOINSECURE GOPATH GOPROXY GOROOT GOSUMDB GOTOOLCHAIN
    GRADLE_USER_HOME LD LDFLAGS LIBRARY_PATH MAKEFILES MAKEFLAGS MAVEN_ARGS PKG_CONFIG
    PKG_CONFIG_PATH RUSTC RUSTDOC RUSTFLAGS RUSTUP_HOME RUSTUP_TOOLCHAIN
";

/// Read by tools that run the command in the variable.
const TOOLS: &str = "
    BORG_PASSCOMMAND BORG_RSH CVS_RSH GH_BROWSER GH_PATH GREP_OPTIONS HGMERGE KUBECTL_EXTERNAL_DIFF
    RSYNC_CONNECT_PROG RSYNC_OLD_ARGS RSYNC_RSH SSH_SK_PROVIDER SVN_SSH TAR_OPTIONS
";

/// Configuration files that can name commands.
const FILES: &str = "
    AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE COMPOSE_FILE CURL_HOME DOCKER_CONFIG GH_CONFIG_DIR
    GIT_LFS_CONFIG GOOGLE_APPLICATION_CREDENTIALS HELM_CONFIG_HOME HELM_DATA_HOME HGRCPATH
    KRB5_CONFIG KUBECONFIG MYSQL_HOME ODBCINI ODBCSYSINI PGSERVICEFILE PGSYSCONFDIR PSQLRC TNS_ADMIN
    WGETRC
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::built_in;

    #[test]
    fn what_changes_programs_is_known_in_any_case() {
        for name in [
            "LD_PRELOAD",
            "DYLD_INSERT_LIBRARIES",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_KEY_0",
            "NODE_OPTIONS",
            "BASH_ENV",
            "BASH_FUNC_ls",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "_JAVA_OPTIONS",
            "PATH",
            "Path",
            "http_proxy",
            "https_proxy",
            "KEYHATCH_KEK_COMMAND",
            "AWS_ENDPOINT_URL_S3",
            "AWS_PAGER",
            "CARGO_REGISTRY_CREDENTIAL_PROVIDER",
            "CMAKE_C_COMPILER_LAUNCHER",
            "DBUS_SESSION_BUS_ADDRESS",
            "GH_CONFIG_DIR",
            "GH_EDITOR",
            "RUSTC_WRAPPER",
            "SBT_OPTS",
            "TF_PLUGINS",
        ] {
            assert!(steers_programs(name), "{name}");
        }
        for name in
            ["GIT_TOKEN", "NODE_AUTH_TOKEN", "DB_PATH", "TF_VAR_password", "PASSWORD", "LDAP_URL"]
        {
            assert!(!steers_programs(name), "{name}");
        }
    }

    #[test]
    fn no_customary_variable_of_the_catalogue_is_among_them() {
        for integration in built_in().values() {
            for rule in integration.kinds.iter().flat_map(|kind| &kind.fields) {
                let named = match rule.env.as_str() {
                    "" => prefixed(integration.name.as_str(), rule.family().unwrap_or(&rule.name)),
                    env => env.to_owned(),
                };
                let mut names = std::iter::once(&named).chain(&rule.also_env);
                assert!(names.all(|name| !steers_programs(name)), "{named}");
            }
        }
    }

    #[test]
    fn a_text_becomes_a_variables_name() {
        assert_eq!(variable_name("http_api.key-2"), "HTTP_API_KEY_2");
        assert_eq!(variable_name("4me"), "_4ME");
    }
}
