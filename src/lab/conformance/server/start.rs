//! Where a stream starts: `push-resume`, `push-resume-reason`, `push-start-cursor`.

use super::kit::{Kit, Witness, expect, same};
use super::stream::Subscribe;
use crate::contract::metadata::PUSH_RESUME;
use crate::contract::start::{Reason, Resume};
use crate::cursor::{Cursor, Epoch, Seq};
use crate::lab::conformance::promise::{Judged, broken, ensure};

pub(super) async fn headers_at_once(kit: &mut Kit) -> Judged {
    // Nobody publishes: headers that wait for an event do not come.
    kit.fresh().await?;
    Ok(())
}

pub(super) async fn announced(kit: &mut Kit) -> Judged {
    let stream = kit.fresh().await?;
    let resume = stream.header("push-resume")?;
    ensure!(
        Resume::from_value(resume).is_some(),
        "push-resume is {resume:?}, neither \"resumed\" nor \"fresh\""
    );
    let reason = stream.header("push-resume-reason")?;
    ensure!(
        !matches!(Reason::from_value(reason), Reason::Other(_)),
        "push-resume-reason is {reason:?}, which is none of the contract's"
    );
    stream.start_cursor()?;
    Ok(())
}

pub(super) async fn fresh_after_head(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    kit.publish_some(&mut witness, 5).await?;
    let mut stream = kit.fresh().await?;
    stream.expect_fresh("no-cursor", witness.head)?;
    let next = kit.publish_some(&mut witness, 3).await?;
    same(&mut stream, &next).await
}

pub(super) async fn resumes(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let mut events = kit.publish_some(&mut witness, 20).await?;
    for processed in [0, 9, 18] {
        let cursor = events[processed].cursor;
        let mut stream = kit.subscribe(cursor).await?;
        stream.expect("resumed", "requested")?;
        let start = stream.start_cursor()?;
        ensure!(
            start == cursor,
            "resumed from {cursor}, and push-start-cursor is {start}"
        );
        same(&mut stream, &events[processed + 1..]).await?;
        let next = kit.publish_some(&mut witness, 2).await?;
        same(&mut stream, &next).await?;
        events.extend(next);
    }
    Ok(())
}

pub(super) async fn resumes_while_away(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let mut cursor = witness.head;
    for _ in 0..5 {
        let mut stream = kit.open(&Subscribe::new(&*id, cursor.to_string())).await?;
        stream.expect("resumed", "requested")?;
        let here = kit.publish_some(&mut witness, 7).await?;
        same(&mut stream, &here[..4]).await?;
        cursor = here[3].cursor;
        drop(stream);
        // Three of the last, and these, come with the next stream.
        let away = kit.publish_some(&mut witness, 3).await?;
        let mut stream = kit.open(&Subscribe::new(&*id, cursor.to_string())).await?;
        same(&mut stream, &here[4..]).await?;
        same(&mut stream, &away).await?;
        cursor = away[2].cursor;
    }
    Ok(())
}

pub(super) async fn resumes_at_head(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    kit.publish_some(&mut witness, 3).await?;
    let mut stream = kit.subscribe(witness.head).await?;
    stream.expect("resumed", "requested")?;
    let next = kit.publish_some(&mut witness, 2).await?;
    same(&mut stream, &next).await
}

pub(super) async fn resumes_from_start_cursor(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let start = kit.fresh().await?.start_cursor()?;
    let missed = kit.publish_some(&mut witness, 4).await?;
    let mut stream = kit.subscribe(start).await?;
    stream.expect("resumed", "requested")?;
    same(&mut stream, &missed).await
}

pub(super) async fn ahead(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let head = witness.head;
    for beyond in [1, 1000, Seq::MAX.number() - head.seq().number()] {
        let Some(seq) = Seq::checked_new(head.seq().number() + beyond) else {
            return broken(format!("the cursor {head} leaves no later one"));
        };
        let cursor = Cursor::new(head.epoch(), seq);
        let stream = kit.subscribe(cursor).await?;
        stream.expect_fresh("ahead", head)?;
    }
    let mut stream = kit.subscribe(Cursor::new(head.epoch(), Seq::MAX)).await?;
    let next = kit.publish_some(&mut witness, 2).await?;
    same(&mut stream, &next).await
}

pub(super) async fn other_epoch(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    kit.publish_some(&mut witness, 3).await?;
    let head = witness.head;
    let number = head.epoch().number();
    let others = [
        number.checked_sub(1),
        number.checked_add(1),
        number.checked_sub(60_000 << 18),
        Some(0),
        Some(Epoch::MAX.number()),
    ];
    for epoch in others.into_iter().flatten().filter_map(Epoch::from_number) {
        if epoch == head.epoch() {
            continue;
        }
        // A position that this stream has as well.
        let cursor = Cursor::new(epoch, Seq::new(1));
        let mut stream = kit.subscribe(cursor).await?;
        stream.expect_fresh("other-epoch", witness.head)?;
        let next = kit.publish_some(&mut witness, 1).await?;
        same(&mut stream, &next).await?;
    }
    Ok(())
}

pub(super) async fn malformed(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let events = kit.publish_some(&mut witness, 3).await?;
    // One that would resume, so that whoever reads too much in it is found out.
    let good = events[0].cursor.to_string();
    let mut texts = vec![
        good.to_lowercase(),
        good.replace('0', "O"),
        good.replace('0', "o"),
        good[..23].to_owned(),
        format!("{good}0"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}\0"),
        good.replace('-', "_"),
        good.replace('-', ""),
        good.replacen('0', "U", 1),
        good.replacen('0', "*", 1),
        good.replacen('0', "٠", 1),
        // The form with ten and thirteen characters.
        "0000000001-0000000000001".to_owned(),
        "42".to_owned(),
        "-1".to_owned(),
        "latest".to_owned(),
        "\u{1f4a5}".repeat(6),
        "0".repeat(4000),
    ];
    if good.contains('1') {
        texts.push(good.replace('1', "I"));
        texts.push(good.replace('1', "l"));
    }
    for text in texts.into_iter().filter(|text| *text != good) {
        let stream = kit.subscribe(&text).await?;
        let judged = stream.expect_fresh("malformed", witness.head);
        if let Err(super::Unkept::Broken(seen)) = judged {
            return broken(format!("with the cursor {text:?}: {seen}"));
        }
    }
    let mut stream = kit.subscribe("malformed").await?;
    let next = kit.publish_some(&mut witness, 1).await?;
    same(&mut stream, &next).await
}

pub(super) async fn expired(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let old = kit.publish_some(&mut witness, 1).await?[0].cursor;
    kit.turn_ring(&mut witness).await?;
    let mut stream = kit.subscribe(old).await?;
    stream.expect_fresh("expired", witness.head)?;
    let missed = stream.missed()?;
    let lost = witness.head.seq().number() - old.seq().number();
    ensure!(
        missed == lost,
        "push-missed is {missed}, and {lost} events lie between {old} and {}",
        witness.head
    );
    let events = kit.events(2);
    kit.publish(&mut witness, &events).await?;
    expect(&mut stream, &events).await?;
    drop(stream);
    ring_edge(kit, &mut witness).await
}

/// Wherever the ring ends, a cursor resumes with the event after it, or is told how many it missed.
async fn ring_edge(kit: &mut Kit, witness: &mut Witness) -> Judged {
    let head = witness.head;
    // What is kept begins somewhere between these two: found by halving.
    let (mut gone, mut kept) = (1, head.seq().number());
    while kept - gone > 1 {
        let middle = gone + (kept - gone) / 2;
        match resumes_at(kit, head, middle).await? {
            true => kept = middle,
            false => gone = middle,
        }
    }
    // Around it, one by one.
    for number in gone.saturating_sub(3).max(1)..=(kept + 3).min(head.seq().number()) {
        resumes_at(kit, head, number).await?;
    }
    Ok(())
}

/// Whether this sequence resumes. What is said has to be true.
async fn resumes_at(kit: &mut Kit, head: Cursor, number: u64) -> Judged<bool> {
    let cursor = Cursor::new(head.epoch(), Seq::new(number));
    let mut stream = kit.subscribe(cursor).await?;
    if stream.header(PUSH_RESUME)? != "resumed" {
        stream.expect_fresh("expired", head)?;
        let (missed, lost) = (stream.missed()?, head.seq().number() - number);
        ensure!(
            missed == lost,
            "push-missed is {missed}, and {lost} events lie between {cursor} and {head}"
        );
        return Ok(false);
    }
    if cursor != head {
        let next = stream.next().await?;
        ensure!(
            next.cursor.seq().number() == number + 1,
            "resumed from {cursor}, and the first event is {}: those between are lost silently",
            next.cursor
        );
    }
    Ok(true)
}
