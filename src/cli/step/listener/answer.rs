//! HTTP responses.

use hyper::StatusCode;
use serde_json::{Value as Json, json};

use crate::sys::local_http::{HttpResponse, response};

pub fn json(status: StatusCode, body: &Json) -> HttpResponse {
    response(status, "application/json", body.to_string())
}

pub fn text(status: StatusCode, body: &str) -> HttpResponse {
    response(status, "text/plain; charset=utf-8", body.to_owned())
}

/// A status without a body.
pub fn empty(status: StatusCode) -> HttpResponse {
    response(status, "text/plain; charset=utf-8", String::new())
}

const INVALID: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// An error of Relay's metadata API.
#[derive(Debug)]
pub struct RelayError {
    status: StatusCode,
    section: &'static str,
    code: &'static str,
    title: &'static str,
    text: String,
}

impl RelayError {
    fn new(
        status: StatusCode,
        section: &'static str,
        code: &'static str,
        title: &'static str,
        text: impl Into<String>,
    ) -> Self {
        Self { status, section, code, title, text: text.into() }
    }

    /// A resource is absent, or not for this step.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "model", "rma_model_not_found_error", "Not found", text)
    }

    /// A path leads nowhere, or a function was called wrongly.
    pub fn evaluation(text: impl Into<String>) -> Self {
        let code = "rma_expression_evaluation_error";
        Self::new(INVALID, "expression", code, "Evaluation error", text)
    }

    /// The language of a query is unknown.
    pub fn language(text: impl Into<String>) -> Self {
        let code = "rma_expression_unsupported_language_error";
        Self::new(INVALID, "expression", code, "Unsupported language", text)
    }

    /// A condition is neither true nor false.
    pub fn condition(text: impl Into<String>) -> Self {
        let code = "rma_condition_type_error";
        Self::new(INVALID, "condition", code, "Condition type error", text)
    }

    /// A request cannot be read.
    pub fn malformed(text: impl Into<String>) -> Self {
        let code = "rma_api_malformed_request_error";
        Self::new(INVALID, "api", code, "Malformed request", text)
    }

    /// The broker could not be asked.
    pub fn read(text: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "model", "rma_model_read_error", "Read error", text)
    }

    /// A request needs a Relay service, which does not exist here.
    pub fn not_implemented(text: impl Into<String>) -> Self {
        let code = "rma_api_not_implemented_error";
        Self::new(StatusCode::NOT_IMPLEMENTED, "api", code, "Not implemented", text)
    }

    pub fn into_answer(self) -> HttpResponse {
        let Self { status, section, code, title, text } = self;
        let body = json!({ "error": {
            "domain": "rma",
            "section": section,
            "code": code,
            "title": title,
            "description": { "friendly": text, "technical": text },
            "arguments": {},
            "formatted": { "friendly": text, "technical": text },
            "causes": [],
            "metadata": {},
        } });
        json(status, &body)
    }
}
