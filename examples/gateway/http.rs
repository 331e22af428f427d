//! What a browser can ask for.
//!
//! | path | what it is |
//! |---|---|
//! | `/` | the page |
//! | `POST /login` | `{"user":"ada"}`: sets the session's cookie |
//! | `POST /logout` | forgets the session. What is open goes on: a backend would publish an invalidation |
//! | `GET /session` | who is logged in |
//! | `GET /ws`, `GET /sse` | the session's events |
//! | `POST /work` | a slow request, which a revocation stops |
//! | `GET /.well-known/jwks.json` | the key that signs |
//! | `GET /healthz` | 200 if sessions are served, else 503 |
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`, and whoever opens a WebSocket or posts has to come
//! from an allowed origin: a page of somebody else's can use a browser's cookie, but not change where
//! it comes from.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use galaxy_push::gateway::{OpenError, Refusal, Ticket};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::accounts::{Account, Accounts};
use crate::envelope::Signer;
use crate::streams;

/// With TLS before the gateway, browsers keep to it that nobody else has set the cookie (RFC 6265bis,
/// 4.1.3.2).
const COOKIE: &str = "example_gateway_session";
const SECURE_COOKIE: &str = "__Host-example_gateway_session";
/// The longest name of a user, in bytes.
const MAX_USER_BYTES: usize = 100;
/// What a request may hold. There is nothing to upload.
const MAX_BODY_BYTES: usize = 4 << 10;
/// What a browser may say on a WebSocket.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// So many steps a slow request may have, and so long one of them.
const MAX_STEPS: u32 = 100;
const STEP: Duration = Duration::from_millis(100);

/// What all requests have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) router: galaxy_push::gateway::Router,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) signer: Arc<Signer>,
    /// Where pages may come from.
    pub(crate) origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug)]
enum Refused {
    NotLoggedIn,
    Open(OpenError),
    Ended(Refusal, u32),
    Bad(&'static str),
    Full,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, error, steps) = match self {
            Refused::NotLoggedIn => (StatusCode::UNAUTHORIZED, "not logged in".to_owned(), None),
            Refused::Bad(why) => (StatusCode::BAD_REQUEST, why.to_owned(), None),
            Refused::Full => {
                let why = "too many are logged in".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, why, None)
            }
            Refused::Open(error) => {
                let status = match error {
                    OpenError::Stale | OpenError::Draining => StatusCode::SERVICE_UNAVAILABLE,
                    OpenError::TooMany { .. } | OpenError::TooManyOfUser { .. } => {
                        StatusCode::TOO_MANY_REQUESTS
                    }
                    _ => StatusCode::UNAUTHORIZED,
                };
                (status, error.to_string(), None)
            }
            Refused::Ended(refusal, steps) => {
                let status = match refusal {
                    Refusal::Stale | Refusal::Suspect => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::UNAUTHORIZED,
                };
                (status, refusal.to_string(), Some(steps))
            }
        };
        (status, Json(json!({"error": error, "steps": steps}))).into_response()
    }
}

pub(crate) fn app(shared: Shared) -> Router {
    let page = |content_type: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, content_type)], text) })
    };
    Router::new()
        .route(
            "/",
            page("text/html; charset=utf-8", include_str!("page/index.html")),
        )
        .route(
            "/page.js",
            page(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
        .route(
            "/page.css",
            page("text/css; charset=utf-8", include_str!("page/page.css")),
        )
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/session", get(session))
        .route("/ws", get(web_socket))
        .route("/sse", get(server_sent))
        .route("/work", post(work))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/healthz", get(healthz))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(shared.clone(), check_origin))
        .with_state(shared)
}

/// Lets nothing through that a page from elsewhere has a browser do; and tells browsers what the
/// page may do.
async fn check_origin(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let fields = request.headers();
    let origin = fields.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let is_allowed = |origin: &[u8]| shared.origins.iter().any(|of| of.as_bytes() == origin);
    let has_effect = request.method() != Method::GET || fields.contains_key(header::UPGRADE);
    // Of a request without an origin, newer browsers say whether another site's page has made it.
    let site = fields.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_own = matches!(site, None | Some(b"same-origin" | b"none"));
    let may = match origin {
        Some(origin) => is_allowed(origin),
        // Browsers name it where it matters.
        None => !has_effect && is_own,
    };
    let mut response = if may {
        next.run(request).await
    } else {
        let error = json!({"error": "this origin may not use the gateway (--origin)"});
        (StatusCode::FORBIDDEN, Json(error)).into_response()
    };
    let fields = response.headers_mut();
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Shared {
    fn is_secure(&self) -> bool {
        let mut origins = self.origins.iter();
        origins.all(|origin| origin.starts_with("https://"))
    }

    /// The value of the session's cookie. None of two: somebody else may have set one of them.
    fn token<'a>(&self, fields: &'a HeaderMap) -> Option<&'a str> {
        let name = if self.is_secure() {
            SECURE_COOKIE
        } else {
            COOKIE
        };
        let cookies = fields.get_all(header::COOKIE).iter();
        let pairs = cookies.filter_map(|value| value.to_str().ok());
        let pairs = pairs.flat_map(|value| value.split(';'));
        let mut found = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
        let token = found.next();
        token.filter(|_| found.next().is_none())
    }

    fn set_cookie(&self, value: &str, more: &str) -> [(header::HeaderName, String); 1] {
        let (name, secure) = match self.is_secure() {
            true => (SECURE_COOKIE, "; Secure"),
            false => (COOKIE, ""),
        };
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}");
        [(header::SET_COOKIE, cookie)]
    }

    /// Whose session a request has, until it logs in anew or out.
    fn forget(&self, fields: &HeaderMap) {
        if let Some(account) = self
            .token(fields)
            .and_then(|token| self.accounts.find(token))
        {
            self.accounts.revoke(&account.user, &account.session);
        }
    }

    /// Who asks. The ticket is from before that was looked up: what is revoked later refuses it.
    fn authenticate(&self, fields: &HeaderMap) -> Result<(Ticket, Account), Refused> {
        let ticket = self.router.begin_authentication();
        let account = self
            .token(fields)
            .and_then(|token| self.accounts.find(token));
        Ok((ticket, account.ok_or(Refused::NotLoggedIn)?))
    }
}

async fn log_in(
    State(shared): State<Shared>,
    fields: HeaderMap,
    Json(request): Json<Value>,
) -> Result<Response, Refused> {
    let user = request
        .get("user")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if user.is_empty() || user.len() > MAX_USER_BYTES {
        return Err(Refused::Bad("user must have 1 to 100 bytes"));
    }
    let Some((token, account)) = shared.accounts.log_in(user) else {
        return Err(Refused::Full);
    };
    shared.forget(&fields);
    let body = json!({"user": account.user, "session": account.session});
    Ok((shared.set_cookie(&token, ""), Json(body)).into_response())
}

async fn log_out(State(shared): State<Shared>, fields: HeaderMap) -> Response {
    shared.forget(&fields);
    let cookie = shared.set_cookie("", "; Max-Age=0");
    (cookie, StatusCode::NO_CONTENT).into_response()
}

async fn session(State(shared): State<Shared>, fields: HeaderMap) -> Result<Json<Value>, Refused> {
    let (_, account) = shared.authenticate(&fields)?;
    Ok(Json(
        json!({"user": account.user, "session": account.session}),
    ))
}

async fn web_socket(
    State(shared): State<Shared>,
    fields: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    let (ticket, account) = shared.authenticate(&fields)?;
    let session = shared.router.open(ticket, &account.user, &account.session);
    let session = session.map_err(Refused::Open)?;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| streams::web_socket(socket, session, shared.signer)))
}

async fn server_sent(State(shared): State<Shared>, fields: HeaderMap) -> Result<Response, Refused> {
    let (ticket, account) = shared.authenticate(&fields)?;
    let session = shared.router.open(ticket, &account.user, &account.session);
    let session = session.map_err(Refused::Open)?;
    let stream = streams::server_sent(session, shared.signer);
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// How much a slow request has to do.
#[derive(Debug, serde::Deserialize)]
struct Work {
    steps: u32,
}

/// Does some steps, each of which takes a while and then has an effect: none has one after the
/// session was revoked.
async fn work(
    State(shared): State<Shared>,
    fields: HeaderMap,
    Query(work): Query<Work>,
) -> Result<Json<Value>, Refused> {
    if work.steps > MAX_STEPS {
        return Err(Refused::Bad("steps can be 100 at most"));
    }
    let (ticket, account) = shared.authenticate(&fields)?;
    let guard = shared.router.enter(ticket, &account.user, &account.session);
    let mut guard = guard.map_err(Refused::Open)?;
    for step in 0..work.steps {
        let ended = |refusal| Refused::Ended(refusal, step);
        guard.run(sleep(STEP)).await.map_err(ended)?;
        guard.check().map_err(ended)?;
        tracing::info!(user = account.user, step, "the effect of a step");
    }
    Ok(Json(json!({"steps": work.steps})))
}

async fn jwks(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.signer.jwks())
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let stats = shared.router.stats();
    let status = match stats.is_stale {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::OK,
    };
    let body = json!({"sessions": stats.sessions, "stale": stats.is_stale});
    (status, Json(body)).into_response()
}
