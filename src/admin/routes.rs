//! What is at which path, and what every request goes through.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::Body as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Caller, Session};
use super::api;
use super::facts::Facts;
use super::follow::Followers;
use super::health::Asked;
use super::hosts::{Hosts, not_found};
use super::live;
use super::metrics::Format;
use super::page;
use super::query;
use super::refusal::Refusal;
use super::views::{GatewayQuery, Views, json};
use crate::access::{AdminRole, Authenticator};
use crate::telemetry::Telemetry;

/// No request needs a body; a short one is not looked at.
const MAX_BODY_BYTES: u64 = 4 << 10;

/// What every answer says to browsers: what the page may load, and that nobody else may.
const FIELDS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) telemetry: Telemetry,
    pub(super) views: Views,
    pub(super) access: Access,
    pub(super) hosts: Arc<Hosts>,
    pub(super) followers: Arc<Followers>,
    pub(super) live_places: Arc<Semaphore>,
    /// Ends what has no end of its own.
    pub(super) stopping: CancellationToken,
}

impl App {
    pub(super) fn new(
        telemetry: Telemetry,
        facts: Facts,
        authenticator: Option<Arc<dyn Authenticator>>,
        hosts: Arc<Hosts>,
    ) -> Arc<Self> {
        Arc::new(App {
            access: Access::new(authenticator, &telemetry),
            followers: Followers::new(telemetry.engine()),
            views: Views::new(telemetry.clone(), facts),
            telemetry,
            hosts,
            live_places: live::places(),
            stopping: CancellationToken::new(),
        })
    }

    /// Lets those in who may look.
    fn reader(&self, parts: &Parts) -> Result<Session, Refusal> {
        let caller = caller(parts)?;
        self.access
            .authorize(caller, &parts.headers, AdminRole::Read, None)
    }
}

/// Who has sent a request: its connection has noted that.
fn caller(parts: &Parts) -> Result<&Caller, Refusal> {
    parts.extensions.get().ok_or_else(|| {
        let message = "the connection is not known";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    })
}

type Answer = Result<Response, Refusal>;

/// Everything there is.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(async || page::INDEX))
        .route("/assets/dashboard.js", get(async || page::SCRIPT))
        .route("/assets/dashboard.css", get(async || page::STYLE))
        .route("/assets/icon.svg", get(async || page::ICON))
        .route("/livez", get(live_checks))
        .route("/livez/{name}", get(live_check))
        .route("/readyz", get(ready_checks))
        .route("/readyz/{name}", get(ready_check))
        .route("/metrics", get(metrics))
        .route("/api/v1/access", get(access))
        .route("/api/v1/status", get(status))
        .route("/api/v1/gateways", get(gateways))
        .route("/api/v1/gateways/{id}", delete(disconnect))
        .route("/api/v1/ends", get(ends))
        .route("/api/v1/invalidations", get(invalidations))
        .route("/api/v1/history", get(history))
        .route("/api/v1/live", get(live_stream))
        .fallback(async || not_found())
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

/// What every request goes through, and every answer.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match let_in(&app, request) {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in FIELDS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn let_in(app: &App, request: Request) -> Result<Request, Refusal> {
    let bytes = request.body().size_hint().lower();
    if bytes > MAX_BODY_BYTES {
        let message = format!("{bytes} bytes of a body: no request here needs one");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Refusal::new(status, "BODY_TOO_LARGE", message));
    }
    let (parts, body) = request.into_parts();
    let caller = caller(&parts)?;
    let is_open = is_open_to_all(parts.uri.path());
    app.hosts
        .check(&parts, caller.is_unix(), is_open)
        .inspect_err(|refusal| app.access.note_unknown(caller.peer, refusal))?;
    Ok(Request::from_parts(parts, body))
}

/// Where there is nothing that another site could want.
fn is_open_to_all(path: &str) -> bool {
    let is_probe = |probe| {
        path.strip_prefix(probe)
            .is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/" || is_probe("/livez") || is_probe("/readyz")
}

async fn not_allowed(method: Method) -> Refusal {
    let message = format!("{method} is not possible here: see Allow");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Refusal::new(status, "METHOD_NOT_ALLOWED", message)
}

async fn live_checks(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    Ok(Asked::of(&uri)?.answer("livez", &app.views.live_checks()))
}

async fn ready_checks(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    Ok(Asked::of(&uri)?.answer("readyz", &app.views.ready_checks()))
}

async fn live_check(State(app): State<Arc<App>>, name: Name, uri: Uri) -> Answer {
    one_check("livez", &app.views.live_checks(), name, &uri)
}

async fn ready_check(State(app): State<Arc<App>>, name: Name, uri: Uri) -> Answer {
    one_check("readyz", &app.views.ready_checks(), name, &uri)
}

/// A part of a path, where it can be read.
type Name = Result<Path<String>, PathRejection>;

fn one_check(endpoint: &str, checks: &[api::Check], name: Name, uri: &Uri) -> Answer {
    let asked = Asked::of(uri)?;
    let name = part(name)?;
    let check = checks.iter().find(|check| check.name == name);
    let check = check.ok_or_else(|| {
        let message = format!("there is no check {name:?}");
        Refusal::new(StatusCode::NOT_FOUND, "UNKNOWN_CHECK", message)
    })?;
    Ok(asked.answer(&format!("{endpoint}/{name}"), std::slice::from_ref(check)))
}

fn part(part: Name) -> Result<String, Refusal> {
    let Path(text) = part.map_err(|_| {
        let message = "the path cannot be read: it is not percent-encoded UTF-8";
        Refusal::bad_request("BAD_PATH", message)
    })?;
    Ok(text)
}

async fn metrics(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    query::pairs(&parts.uri, &[])?;
    let format = format(&parts.headers);
    Ok(answer(format.content_type(), app.views.metrics(format)))
}

/// The format that is preferred of those that are accepted.
fn format(fields: &HeaderMap) -> Format {
    let values = fields.get_all(header::ACCEPT).iter();
    let kinds = values.filter_map(|value| value.to_str().ok());
    let kinds = kinds.flat_map(|value| value.split(','));
    let (mut open, mut plain) = (0.0, 0.0);
    for kind in kinds {
        let mut parts = kind.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weights = parts.filter_map(|part| part.strip_prefix("q="));
        let weight = weights.filter_map(|q| q.parse::<f32>().ok()).next();
        let weight = weight.unwrap_or(1.0);
        match name {
            "application/openmetrics-text" => open = weight,
            "text/plain" | "text/*" | "*/*" => plain = f32::max(plain, weight),
            _ => {}
        }
    }
    if open > 0.0 && open >= plain {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

async fn access(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    let session = app.reader(&parts)?;
    query::pairs(&parts.uri, &[])?;
    Ok(json_answer(json(&session.describe(app.access.asks()))))
}

async fn status(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    query::pairs(&parts.uri, &[])?;
    Ok(json_answer(app.views.status()))
}

async fn gateways(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    Ok(json_answer(
        app.views.gateways(GatewayQuery::of(&parts.uri)?)?,
    ))
}

async fn ends(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    Ok(json_answer(app.views.ends(query::limit(&parts.uri)?)?))
}

async fn invalidations(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    Ok(json_answer(
        app.views.invalidations(query::limit(&parts.uri)?)?,
    ))
}

async fn history(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    app.reader(&parts)?;
    query::pairs(&parts.uri, &[])?;
    Ok(json_answer(app.views.history()))
}

async fn live_stream(State(app): State<Arc<App>>, parts: Parts) -> Answer {
    let session = app.reader(&parts)?;
    live::open(&app, session, &parts.uri)
}

/// Ends a gateway's stream.
async fn disconnect(State(app): State<Arc<App>>, id: Name, parts: Parts) -> Answer {
    let caller = caller(&parts)?;
    let asked = id.as_ref().ok().map(|Path(id)| id.as_str());
    let session = app
        .access
        .authorize(caller, &parts.headers, AdminRole::Write, asked)?;
    query::pairs(&parts.uri, &[])?;
    let id = part(id)?;
    let gateways = app.telemetry.gateway(&id);
    let ended = gateways
        .iter()
        .filter(|gateway| gateway.disconnect(session.name()));
    let disconnected = ended.count();
    app.access.note_disconnected(&session, &id, disconnected);
    if gateways.is_empty() {
        let message = format!("no gateway {id:?} is subscribed");
        let status = StatusCode::NOT_FOUND;
        return Err(Refusal::new(status, "UNKNOWN_GATEWAY", message));
    }
    let body = json(&serde_json::json!({ "id": id, "disconnected": disconnected }));
    Ok(json_answer(body))
}

fn json_answer(body: Bytes) -> Response {
    answer("application/json", body)
}

fn answer(kind: &'static str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_prefer_it() {
        for (accept, wanted) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.3,text/plain;q=0.4",
                Format::Prometheus,
            ),
            (
                "application/openmetrics-text;q=0,*/*;q=0",
                Format::Prometheus,
            ),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert("accept", accept.parse().unwrap());
            assert_eq!(format(&fields), wanted, "{accept}");
        }
    }

    #[test]
    fn what_is_open_to_all_is_the_page_and_the_probes() {
        for path in ["/", "/livez", "/readyz", "/readyz/ring"] {
            assert!(is_open_to_all(path), "{path}");
        }
        for path in [
            "/metrics",
            "/livezz",
            "//",
            "/api/v1/status",
            "/assets/dashboard.js",
            "",
        ] {
            assert!(!is_open_to_all(path), "{path}");
        }
    }
}
