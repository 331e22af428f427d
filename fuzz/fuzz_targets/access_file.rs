//! Any text as an access file, and any as the key set that it names: it is refused with one
//! line, or it is taken, and then asked about names of all kinds without a panic. What it
//! grants, it grants again after it is read again.

#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use galaxy_push::access::{
    AccessFile, Authenticator, ClientCertificate, Credentials, EventKinds, Identity, Peer,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The file, a zero byte, the key set.
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let keys = parts.next();
    let file = match AccessFile::parse(text, keys) {
        Ok(file) => file,
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            return;
        }
    };
    assert!(file.principals() > 0);
    let again = AccessFile::parse(text, keys).expect("it was taken before");
    assert_eq!(again.digest(), file.digest());
    assert!(!file.reload().expect("it is in no file"));

    let peer = Peer::Tcp(SocketAddr::from(([192, 0, 2, 1], 1)));
    // Words of the file are names that its patterns may match.
    for word in String::from_utf8_lossy(text)
        .split(['"', '\'', '\n'])
        .take(64)
    {
        let word = word.strip_prefix("dns:").unwrap_or(word);
        let name = word.replace(['{', '}', '*'], "x");
        for (uris, dns_names) in [(vec![name.clone()], vec![]), (vec![], vec![name.clone()])] {
            let certificate = Arc::new(certificate(uris, dns_names));
            let credentials = Credentials::of(peer).certificate(Some(&certificate));
            ask(&file, &again, &credentials, word);
        }
        let field = format!("Bearer {word}");
        let credentials = Credentials::of(peer).authorization(Some(field.as_bytes()));
        ask(&file, &again, &credentials, word);
        let uid = word.trim_start_matches("unix_uid = ").parse().ok();
        ask(&file, &again, &Credentials::of(Peer::Unix { uid }), word);
    }
});

fn certificate(uris: Vec<String>, dns_names: Vec<String>) -> ClientCertificate {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    ClientCertificate::new(uris, dns_names, now - hour, now + hour)
}

fn ask(file: &AccessFile, again: &AccessFile, credentials: &Credentials<'_>, word: &str) {
    let identity = match file.authenticate(credentials) {
        Ok(identity) => identity,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let rechecked = file.recheck(&identity).expect("nothing has changed");
    let elsewhere = again.recheck(&identity).expect("it says the same");
    assert_eq!(grants(&identity, word), grants(&rechecked, word));
    assert_eq!(grants(&identity, word), grants(&elsewhere, word));
    let permit = identity.open_stream();
    assert!(permit.is_ok(), "no limit is less than one");
    let _ = identity.take(u32::MAX, u64::MAX);
    let _ = identity.take(1, 1);
}

fn grants(identity: &Identity, word: &str) -> (String, bool, EventKinds) {
    let may_subscribe = identity.may_subscribe(word).is_ok();
    (
        identity.principal().to_string(),
        may_subscribe,
        identity.publishes(),
    )
}
