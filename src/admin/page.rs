//! The dashboard's files: no data is in them.

use axum::response::{IntoResponse, Response};
use http::header;

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    kind: &'static str,
    text: &'static str,
}

pub(super) const INDEX: File = File {
    kind: "text/html; charset=utf-8",
    text: include_str!("page/index.html"),
};
pub(super) const SCRIPT: File = File {
    kind: "text/javascript; charset=utf-8",
    text: include_str!("page/dashboard.js"),
};
pub(super) const STYLE: File = File {
    kind: "text/css; charset=utf-8",
    text: include_str!("page/dashboard.css"),
};
pub(super) const ICON: File = File {
    kind: "image/svg+xml",
    text: include_str!("page/icon.svg"),
};

impl IntoResponse for File {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.kind)], self.text).into_response()
    }
}
