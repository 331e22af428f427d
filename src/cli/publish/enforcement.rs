//! `--wait-enforced`: waits until no gateway serves a session that was revoked.

use std::time::Duration;

use tonic::Request;

use crate::client::{self, Connection};
use crate::command::{Failure, stderr, text, value};
use crate::contract::publisher::publisher_client::PublisherClient;
use crate::contract::publisher::{
    MissingGateway, WaitEnforcedRequest, WaitEnforcedResponse, missing_gateway::Reason,
};

/// No server waits for longer.
const MAX: Duration = Duration::from_secs(10 * 60);

/// How long to wait.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match value::duration(text)? {
        timeout if timeout > MAX => Err("longer than 10 minutes".to_owned()),
        timeout => Ok(timeout),
    }
}

/// What the answer may take beyond the time that the server waits.
const WAY_BACK: Duration = Duration::from_secs(10);

/// Waits for so long at most, for all up to the cursor. What comes of it goes to standard error.
pub(super) async fn wait(
    mut client: PublisherClient<Connection>,
    cursor: String,
    timeout: Duration,
) -> Result<(), Failure> {
    let mut request = Request::new(WaitEnforcedRequest {
        cursor,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    });
    request.set_timeout(timeout.saturating_add(WAY_BACK));
    let answer = client.wait_enforced(request).await.map_err(|status| {
        Failure::failed(format!(
            "published, and not waited for: {}",
            client::status_line(&status)
        ))
    })?;
    let answer = answer.into_inner();
    let text = describe(&answer, timeout);
    match answer.proven {
        true => {
            stderr::say(&text);
            Ok(())
        }
        false => Err(Failure::failed(text)),
    }
}

fn describe(answer: &WaitEnforcedResponse, timeout: Duration) -> String {
    let counts = format!(
        "{} of {} gateways have enforced it, {} refuse everything",
        answer.enforced, answer.gateways, answer.fenced
    );
    if answer.proven {
        return format!("proven: {counts}");
    }
    let mut why: Vec<String> = answer.missing.iter().map(missing).collect();
    let all = answer.gateways - (answer.enforced + answer.fenced).min(answer.gateways);
    let named = u32::try_from(why.len()).unwrap_or(u32::MAX);
    if all > named {
        why.push(format!("{} more", all - named));
    }
    if answer.unknown_ms > 0 {
        let unknown = Duration::from_millis(answer.unknown_ms.into());
        why.push(format!(
            "for {} the server does not know who else was there before its start",
            value::duration_text(unknown)
        ));
    }
    if why.is_empty() {
        why.push("the server cannot read it yet".to_owned());
    }
    format!(
        "published, and not proven within {}: {counts}; {}",
        value::duration_text(timeout),
        why.join("; ")
    )
}

fn missing(gateway: &MissingGateway) -> String {
    let what = match gateway.reason() {
        Reason::Behind => "has not enforced it yet",
        Reason::NoReports => "sends no reports",
        Reason::Left => "sent no reports, and has left",
        Reason::Unspecified => "is missing",
    };
    let id = text::visible(&gateway.gateway_client_id);
    match &*gateway.instance {
        "" => format!("{id} {what}"),
        instance => format!("{id} ({}) {what}", text::visible(instance)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_is_named() {
        let missing = |id: &str, instance: &str, reason: Reason| MissingGateway {
            gateway_client_id: id.to_owned(),
            instance: instance.to_owned(),
            reason: reason.into(),
        };
        let answer = WaitEnforcedResponse {
            proven: false,
            gateways: 9,
            enforced: 3,
            fenced: 1,
            missing: vec![
                missing("a", "pod-1", Reason::Behind),
                missing("b\n", "", Reason::NoReports),
                missing("c", "", Reason::Left),
            ],
            unknown_ms: 2500,
        };
        assert_eq!(
            describe(&answer, Duration::from_secs(5)),
            "published, and not proven within 5s: 3 of 9 gateways have enforced it, 1 refuse \
             everything; a (pod-1) has not enforced it yet; b\\n sends no reports; c sent no \
             reports, and has left; 2 more; for 2s 500ms the server does not know who else was there \
             before its start"
        );
        let proven = WaitEnforcedResponse {
            proven: true,
            gateways: 2,
            enforced: 2,
            ..WaitEnforcedResponse::default()
        };
        assert_eq!(
            describe(&proven, Duration::ZERO),
            "proven: 2 of 2 gateways have enforced it, 0 refuse everything"
        );
    }
}
