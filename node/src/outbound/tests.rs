//! What is dialled and what is not, with a server on loopback.

use std::net::TcpListener;

use super::*;

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[tokio::test]
async fn nothing_is_asked_of_an_address_that_is_not_public_by_number_or_by_name() {
    // Whoever connects is noticed: nobody may.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let web = Web::new(Reach::default(), None).unwrap();
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "2130706433",
        "0x7f.1",
    ] {
        let asked = web
            .get::<()>(url(&format!("https://{host}:{port}/")), 100)
            .await;
        let refused = matches!(asked, Err(WebError::NotAllowed(ip)) if ip.is_loopback() || ip.to_canonical().is_loopback());
        assert!(refused, "{host}: {asked:?}");
    }
    assert!(listener.accept().is_err());
}

#[tokio::test]
async fn what_is_allowed_is_dialled_and_must_prove_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = std::thread::spawn(move || listener.accept().map(drop));
    let reach = Reach::public_and(vec!["127.0.0.0/8".parse().unwrap()]);
    let web = Web::new(reach, None).unwrap();
    let asked = web
        .get::<()>(url(&format!("https://127.0.0.1:{port}/")), 100)
        .await;
    assert!(matches!(asked, Err(WebError::Unreachable(_))), "{asked:?}");
    accepted.join().unwrap().unwrap();
}

#[tokio::test]
async fn plain_http_is_not_spoken() {
    let web = Web::new(Reach::anywhere(), None).unwrap();
    let asked = web.get::<()>(url("http://127.0.0.1:9/"), 100).await;
    assert!(matches!(asked, Err(WebError::Unreachable(_))), "{asked:?}");
}

#[test]
fn a_file_of_roots_that_cannot_be_used_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    for content in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Web::new(Reach::default(), Some(&path)).unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
    let error = Web::new(Reach::default(), Some(Path::new("/nonexistent.pem"))).unwrap_err();
    assert!(matches!(error, RootsError::Read { .. }));
}
