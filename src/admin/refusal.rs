//! Answers that are not 2xx.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::api;

/// Why a request is not answered with what it asks for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// In UPPER_SNAKE.
    error: &'static str,
    message: String,
    field: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            status,
            error,
            message: message.into(),
            field: None,
        }
    }

    /// A query, a path or a header that cannot be read.
    pub(super) fn bad_request(error: &'static str, message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, error, message)
    }

    /// The caller has to show another credential.
    pub(super) fn unauthenticated(error: &'static str, message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::UNAUTHORIZED, error, message)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(super) fn forbidden(error: &'static str, message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::FORBIDDEN, error, message)
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Refusal {
            field: Some((name, value)),
            ..self
        }
    }

    pub(super) fn error(&self) -> &'static str {
        self.error
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = api::Error {
            error: self.error.to_owned(),
            message: self.message,
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some((name, value)) = self.field {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
