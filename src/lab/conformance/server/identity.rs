//! One subscription for each id, and what an id may be.

use tonic::Code;

use super::kit::{Kit, same};
use super::stream::{Stream, Subscribe};
use crate::client::status_line;
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

pub(super) async fn ends_older(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let mut older = kit.open(&Subscribe::new(&*id, "")).await?;
    let first = kit.publish_some(&mut witness, 3).await?;
    same(&mut older, &first).await?;
    let mut newer = kit.open(&Subscribe::new(&*id, "")).await?;
    let (rest, status) = older.end().await?;
    ensure!(
        rest.is_empty(),
        "nothing was published, and the older stream brought {} more events",
        rest.len()
    );
    ensure!(
        status.code() == Code::Aborted,
        "the older stream ended with {}, expected ABORTED",
        status_line(&status)
    );
    let next = kit.publish_some(&mut witness, 3).await?;
    same(&mut newer, &next).await
}

pub(super) async fn exact(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let mut older = kit.open(&Subscribe::new(&*id, "")).await?;
    for _ in 0..5 {
        let before = kit.publish_some(&mut witness, 8).await?;
        let cursor = before[3].cursor;
        let mut newer = kit.open(&Subscribe::new(&*id, cursor.to_string())).await?;
        // The newer one's headers are here: nothing from now on is for the older one.
        let after = kit.publish_some(&mut witness, 24).await?;
        let mut at = 0;
        loop {
            match older.any().await? {
                Ok(received) => {
                    ensure!(
                        before
                            .get(at)
                            .is_some_and(|wanted| wanted.bytes == received.bytes),
                        "the older stream brought {}, which was published after the newer one's headers had come",
                        received.cursor
                    );
                    at += 1;
                }
                Err(status) => {
                    ensure!(
                        status.code() == Code::Aborted,
                        "the older stream ended with {}, expected ABORTED",
                        status_line(&status)
                    );
                    break;
                }
            }
        }
        same(&mut newer, &before[4..]).await?;
        same(&mut newer, &after).await?;
        older = newer;
    }
    Ok(())
}

pub(super) async fn of_a_stuck_one(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    // It has read nothing, and takes no more.
    let stuck = kit.open(&Subscribe::new(&*id, "")).await?;
    kit.fill_window(&mut witness).await?;
    let mut newer = kit.open(&Subscribe::new(&*id, "")).await?;
    let next = kit.publish_some(&mut witness, 2).await?;
    same(&mut newer, &next).await?;
    drop(stuck);
    Ok(())
}

pub(super) async fn leaves_others(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    // Ids that a careless comparison takes for the same.
    let mut others = Vec::new();
    for other in [
        format!("{id}0"),
        id.to_uppercase(),
        format!(" {id}"),
        format!("{id}/{id}"),
    ] {
        others.push(kit.open(&Subscribe::new(other, "")).await?);
    }
    let _older = kit.open(&Subscribe::new(&*id, "")).await?;
    let _newer = kit.open(&Subscribe::new(&*id, "")).await?;
    let published = kit.publish_some(&mut witness, 3).await?;
    for stream in &mut others {
        same(stream, &published).await?;
    }
    Ok(())
}

pub(super) async fn again_after_end(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    for _ in 0..5 {
        let mut stream = kit.open(&Subscribe::new(&*id, "")).await?;
        let published = kit.publish_some(&mut witness, 1).await?;
        same(&mut stream, &published).await?;
    }
    Ok(())
}

pub(super) async fn rules(kit: &mut Kit) -> Judged {
    for id in [
        String::new(),
        "x".repeat(257),
        // 258 bytes in 129 characters.
        "\u{e9}".repeat(129),
        "a\nb".to_owned(),
        "a\0b".to_owned(),
        "a\u{7f}b".to_owned(),
        "a\u{85}b".to_owned(),
    ] {
        let status = match kit.ask(&Subscribe::new(&*id, "")).await? {
            Err(status) => status,
            Ok(mut stream) => match stream.any().await {
                Ok(Err(status)) => status,
                _ => return broken(format!("the id {} was accepted", shown(&id))),
            },
        };
        ensure!(
            status.code() == Code::InvalidArgument,
            "the id {} was refused with {}, expected INVALID_ARGUMENT",
            shown(&id),
            status_line(&status)
        );
        ensure!(
            status.message().contains("gateway_client_id"),
            "the refusal of the id {} does not name the field gateway_client_id: {:?}",
            shown(&id),
            status.message()
        );
    }
    Ok(())
}

pub(super) async fn credential(kit: &mut Kit) -> Judged {
    let Some(strangers) = kit.strangers.clone() else {
        return skipped("it needs a server that wants credentials, and --token-file");
    };
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let mut stream = kit.open(&Subscribe::new(&*id, "")).await?;
    let connection = match strangers.connect().await {
        Ok(connection) => connection,
        // The server wants a certificate, too.
        Err(error) => return broken(format!("no connection without the token: {error}")),
    };
    let asked = Stream::open(connection, &Subscribe::new(&*id, ""), kit.patience).await?;
    let status = match asked {
        Err(status) => status,
        Ok(mut stream) => match stream.any().await? {
            Err(status) => status,
            Ok(_) => return broken("without a credential, a subscription was accepted"),
        },
    };
    ensure!(
        status.code() == Code::Unauthenticated,
        "without a credential, a subscription was refused with {}, expected UNAUTHENTICATED",
        status_line(&status)
    );
    let published = kit.publish_some(&mut witness, 2).await?;
    same(&mut stream, &published).await
}

fn shown(id: &str) -> String {
    if id.len() > 100 {
        format!("of {} bytes", id.len())
    } else {
        format!("{id:?}")
    }
}

pub(super) async fn allowed(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let run = kit.run.clone();
    let longest = format!("{run}{}", "x".repeat(256 - run.len()));
    for id in [
        longest,
        format!("{run} with spaces, and \u{201e}\u{e9}\u{1f9ff}\u{201c}"),
        format!("{run}/../%2f?a=b&c#d"),
        format!("{run}*"),
    ] {
        let mut stream = kit.open(&Subscribe::new(id, "")).await?;
        let published = kit.publish_some(&mut witness, 1).await?;
        same(&mut stream, &published).await?;
    }
    Ok(())
}
