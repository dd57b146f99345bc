//! JSON for cloud tools. A minted credential has its own end there. A stored one ends with its lease, so that the tools
//! ask for the next version.

use serde_json::{Map, Value as Json, json};

use super::picker::Picker;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::step::credential::Credential;

/// The address where Google's libraries exchange a key for a token.
const GOOGLE_TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const CLIENT_AUTHENTICATION: [&str; 2] =
    ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// For `credential_process` of an AWS profile (AWS SDKs and Tools Reference Guide, "Process credential provider").
pub fn aws_process(picker: &Picker<'_>) -> Result<String, Failure> {
    let mut answer = aws(picker, "SessionToken")?;
    answer.insert("Version".to_owned(), json!(1));
    Ok(output::json(&answer)? + "\n")
}

/// For `AWS_CONTAINER_CREDENTIALS_FULL_URI` (the same guide, "Container credential provider"). Its readers need a
/// token, even an empty one.
pub fn aws_container(credential: &Credential) -> Result<Json, Failure> {
    let mut answer = aws(&Picker::new(credential, "--serve aws"), "Token")?;
    answer.entry("Token").or_insert_with(|| json!(""));
    Ok(Json::Object(answer))
}

fn aws(picker: &Picker<'_>, token: &str) -> Result<Map<String, Json>, Failure> {
    let is_minted = picker.is("aws", "assume_role") && picker.find("access_key_id")?.is_some();
    if !picker.is("aws", "access_key") && !is_minted {
        return Err(picker.wrong_integration("aws access keys and minted roles"));
    }
    let mut answer = Map::new();
    for (name, field) in
        [("AccessKeyId", "access_key_id"), ("SecretAccessKey", "secret_access_key")]
    {
        answer.insert(name.to_owned(), json!(picker.get_for_header(field)?));
    }
    if picker.find("session_token")?.is_some() {
        answer.insert(token.to_owned(), json!(picker.get_for_header("session_token")?));
    }
    answer.insert("Expiration".to_owned(), json!(picker.credential.end_for_tools()));
    Ok(answer)
}

/// The request of client-go to the command of a kubeconfig's `exec`. None if there is none.
pub fn exec_info() -> Option<String> {
    std::env::var("KUBERNETES_EXEC_INFO").ok().filter(|info| !info.trim().is_empty())
}

/// For `exec` of a kubeconfig's user (client.authentication.k8s.io), in the requested version.
pub fn kubectl(picker: &Picker<'_>, exec_info: Option<&str>) -> Result<String, Failure> {
    if !picker.is("kubernetes", "token") {
        return Err(picker.wrong_integration("kubernetes connections"));
    }
    let asked = exec_info.map(|info| {
        let info: Option<Json> = serde_json::from_str(info).ok();
        let version = info.as_ref().and_then(|info| info.get("apiVersion")?.as_str());
        CLIENT_AUTHENTICATION.into_iter().find(|known| Some(*known) == version)
    });
    let version = asked.unwrap_or(Some(CLIENT_AUTHENTICATION[0])).ok_or_else(|| {
        let text = format!(
            "KUBERNETES_EXEC_INFO asks for a version that is not known; set the kubeconfig's exec.apiVersion to {}",
            CLIENT_AUTHENTICATION.join(" or ")
        );
        Failure::new("API_VERSION_UNKNOWN", text, exit::FAILED)
    })?;
    let answer = json!({
        "apiVersion": version,
        "kind": "ExecCredential",
        "status": {
            "token": picker.get_for_header("token")?,
            "expirationTimestamp": picker.credential.end_for_tools(),
        },
    });
    Ok(output::json(&answer)? + "\n")
}

/// For `GOOGLE_APPLICATION_CREDENTIALS`: the key file itself, or one with the fields that its readers need.
pub fn gcp_key_file(picker: &Picker<'_>) -> Result<String, Failure> {
    if picker.is("gcp", "service_account_key") {
        let text = picker.get("service_account_key")?;
        if !serde_json::from_str::<Json>(text).is_ok_and(|document| document.is_object()) {
            return Err(picker.unfit("service_account_key", "is no JSON object"));
        }
        return Ok(text.trim_end().to_owned() + "\n");
    }
    if !picker.is("gcp", "service_account") {
        return Err(picker.wrong_integration("gcp connections"));
    }
    let answer = json!({
        "type": "service_account",
        "client_email": picker.get("service_account_email")?,
        "private_key": picker.get("private_key")?,
        "token_uri": GOOGLE_TOKEN_URI,
    });
    Ok(output::json(&answer)? + "\n")
}
