//! The formats of `import`, each read as its own tools read it.

pub(super) mod aws_profile;
pub(super) mod docker_config;
pub(super) mod dotenv;
pub(super) mod env;
pub(super) mod ini;
pub(super) mod json;
pub(super) mod kubernetes_object;
pub(super) mod kubernetes_secret;
pub(super) mod relay;
pub(super) mod text;
pub(super) mod vault;
