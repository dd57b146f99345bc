//! Answers over HTTP.

use hyper::StatusCode;
use serde_json::{Value as Json, json};

use crate::sys::local_http::{HttpResponse, response};

/// JSON.
pub fn json(status: StatusCode, body: &Json) -> HttpResponse {
    response(status, "application/json", body.to_string())
}

/// A line of text.
pub fn text(status: StatusCode, body: &str) -> HttpResponse {
    response(status, "text/plain; charset=utf-8", body.to_owned())
}

/// Nothing but a status.
pub fn empty(status: StatusCode) -> HttpResponse {
    response(status, "text/plain; charset=utf-8", String::new())
}

/// An error as Relay's metadata API has it.
#[derive(Debug)]
pub struct RelayError {
    status: StatusCode,
    section: &'static str,
    code: &'static str,
    title: &'static str,
    technical: String,
}

impl RelayError {
    fn new(
        status: StatusCode,
        section: &'static str,
        code: &'static str,
        title: &'static str,
        technical: impl Into<String>,
    ) -> Self {
        Self { status, section, code, title, technical: technical.into() }
    }

    /// It is absent, or not for this step.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "model", "rma_model_not_found_error", "Not found", what)
    }

    /// The path leads nowhere, or a function was called wrongly.
    pub fn evaluation(what: impl Into<String>) -> Self {
        let code = "rma_expression_evaluation_error";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "expression", code, "Evaluation error", what)
    }

    /// A query in no language that is known.
    pub fn language(what: impl Into<String>) -> Self {
        let code = "rma_expression_unsupported_language_error";
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "expression",
            code,
            "Unsupported language",
            what,
        )
    }

    /// A condition that is neither true nor false.
    pub fn condition(what: impl Into<String>) -> Self {
        let code = "rma_condition_type_error";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "condition", code, "Condition type error", what)
    }

    /// A request that cannot be read.
    pub fn malformed(what: impl Into<String>) -> Self {
        let code = "rma_api_malformed_request_error";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "api", code, "Malformed request", what)
    }

    /// The broker could not be asked.
    pub fn read(what: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "model", "rma_model_read_error", "Read error", what)
    }

    /// What would have to reach a Relay service, and there is none.
    pub fn not_implemented(what: impl Into<String>) -> Self {
        let code = "rma_api_not_implemented_error";
        Self::new(StatusCode::NOT_IMPLEMENTED, "api", code, "Not implemented", what)
    }

    /// As it is sent.
    pub fn into_answer(self) -> HttpResponse {
        let Self { status, section, code, title, technical } = self;
        let body = json!({ "error": {
            "domain": "rma",
            "section": section,
            "code": code,
            "title": title,
            "description": { "friendly": technical, "technical": technical },
            "arguments": {},
            "formatted": { "friendly": technical, "technical": technical },
            "causes": [],
            "metadata": {},
        } });
        json(status, &body)
    }
}
