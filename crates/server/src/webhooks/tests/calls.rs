//! One call of an endpoint: what it looks like, what counts as taken, and every way to lead the node where it must not go.

use super::*;

/// Names are those of the test below.
const HOSTILE: &[&str] = &[
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "https://localhost:8443/x",
    "http://evil.example/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://instance-data/latest/",
    "http://six.example/",
    "http://mapped.example/",
    "http://nat64.example/",
    "http://both.example/",
    "http://127.0.0.1.nip.example/",
    "http://nobody.example/",
    "http://unknown.example/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0177.0.01/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0/",
    "http://0.0.0.0:6001/",
    "http://127.127.127.127/",
    "http://127.0.0.1:22/",
    "http://10.0.0.1/",
    "http://167772161/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://0251.0376.0251.0376/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://[fec0::1]/",
    "https://[::1]:443/",
];

/// HOOK-24: none of these is ever connected to, whatever it looks like.
#[tokio::test]
async fn urls_that_lead_where_only_the_node_can_go_are_refused() {
    let names = Names::of(&[
        ("localhost", &[&["127.0.0.1", "::1"]]),
        ("localhost.", &[&["127.0.0.1"]]),
        ("evil.example", &[&["127.0.0.1"]]),
        ("metadata.google.internal", &[&["169.254.169.254"]]),
        ("instance-data", &[&["169.254.169.254"]]),
        ("six.example", &[&["::1"]]),
        ("mapped.example", &[&["::ffff:10.0.0.7"]]),
        ("nat64.example", &[&["64:ff9b::a00:7"]]),
        ("both.example", &[&["192.168.0.1", "fe80::1"]]),
        ("127.0.0.1.nip.example", &[&["127.0.0.1"]]),
        ("nobody.example", &[&[]]),
    ]);
    let caller = caller(names);
    assert!(HOSTILE.len() >= 40, "{}", HOSTILE.len());
    for url in HOSTILE {
        let outcome = caller.attempt(&Webhooks::default(), &endpoint(url), &batch("{}"), 1).await;
        let refused = matches!(outcome, Err(AttemptError::Forbidden { .. } | AttemptError::Resolve { .. }));
        assert!(refused, "{url}: {outcome:?}");
    }
    for url in
        ["ftp://a/", "file:///etc/passwd", "http://a@127.0.0.1/", "http://a:1@b/", "gopher://b/", "http:///", "b"]
    {
        let outcome = caller.attempt(&anywhere(), &endpoint(url), &batch("{}"), 1).await;
        assert!(matches!(outcome, Err(AttemptError::Url(_))), "{url}: {outcome:?}");
    }
}

/// HOOK-24
#[tokio::test]
async fn a_name_that_changes_its_address_is_asked_once_and_judged_by_what_is_connected_to() {
    let (address, mut told) = receiver(vec![ok()]).await;
    let url = format!("http://rebinding.example:{}/", address.port());
    // Whoever asks twice, to judge the first answer and connect to the second, speaks to this machine.
    let table: &[&[&'static str]] = &[&["10.9.9.9"], &["127.0.0.1"]];
    let names = Names::of(&[("rebinding.example", table)]);
    let only_ten = Webhooks { allow_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Webhooks::default() };
    let to = super::address::destination(&url).unwrap();
    let allowed = caller(names.clone()).allowed_addresses(&only_ten, &to).await.unwrap();
    assert_eq!(allowed, [format!("10.9.9.9:{}", address.port()).parse().unwrap()]);
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    let outcome = caller(names).attempt(&only_ten, &endpoint(&url), &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Forbidden { .. })), "{outcome:?}");
    // Of several addresses, only those that may be spoken to are.
    let mixed: &[&[&'static str]] = &[&["127.0.0.1", "10.1.1.1"]];
    let names = Names::of(&[("rebinding.example", mixed)]);
    let allowed = caller(names.clone()).allowed_addresses(&only_ten, &to).await.unwrap();
    assert_eq!(allowed, [format!("10.1.1.1:{}", address.port()).parse().unwrap()]);
    assert!(told.try_recv().is_err(), "nobody was spoken to");
    // And where it is allowed, one question is enough for the whole attempt.
    let names = Names::of(&[("rebinding.example", &[&["127.0.0.1"]])]);
    let outcome = caller(names.clone()).attempt(&anywhere(), &endpoint(&url), &batch("{}"), 1).await;
    assert_eq!((outcome.unwrap(), names.asked.load(Ordering::SeqCst)), (200, 1));
}

/// HOOK-1, HOOK-2, HOOK-30, trap T-43
#[tokio::test]
async fn a_request_has_the_headers_that_libraries_look_for_and_those_of_the_endpoint() {
    let (address, mut told) = receiver(vec![ok()]).await;
    let mut to = endpoint(&format!("http://{address}/hook?a=b"));
    to.headers = vec![("Authorization".to_owned(), "Bearer t".to_owned()), ("X-Team".to_owned(), "a".to_owned())];
    let status = caller(Arc::new(Names::default())).attempt(&anywhere(), &to, &batch("{\"a\":\"é\"}"), 0xfe).await;
    assert_eq!(status.unwrap(), 200);
    let heard = told.recv().await.unwrap();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"a\":\"é\"}");
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("POST /hook?a=b HTTP/1.1"));
    let headers: Vec<&str> = lines.collect();
    for line in [
        &format!("Host: {address}"),
        "Content-Type: application/json",
        "X-Pusher-Key: k",
        "X-Pusher-Signature: s",
        "X-Fulmar-Webhook-Id: 00000000000000fe-7",
        "X-Fulmar-Event-Ids: 00000000000000fe-3,00000000000000fe-4",
        "Authorization: Bearer t",
        "X-Team: a",
        "Content-Length: 10",
    ] {
        assert!(headers.contains(&line), "{line} is not in {headers:#?}");
    }
}

/// HOOK-14, HOOK-28
#[tokio::test]
async fn any_2xx_is_success_and_nothing_else_is_redirects_least_of_all() {
    let (elsewhere, mut strayed) = receiver(vec![ok()]).await;
    for (status, line, succeeds) in [
        (200, "OK", true),
        (201, "Created", true),
        (204, "No Content", true),
        (299, "Odd", true),
        (301, "Moved", false),
        (302, "Found", false),
        (307, "Temporary", false),
        (308, "Permanent", false),
        (400, "Bad", false),
        (401, "No", false),
        (404, "None", false),
        (410, "Gone", false),
        (500, "Oops", false),
        (503, "Later", false),
    ] {
        let answer =
            format!("HTTP/1.1 {status} {line}\r\nLocation: http://{elsewhere}/stolen\r\nContent-Length: 0\r\n\r\n");
        let (address, mut told) = receiver(vec![answer.into_bytes()]).await;
        let to = endpoint(&format!("http://{address}/"));
        let outcome = caller(Arc::new(Names::default())).attempt(&anywhere(), &to, &batch("{}"), 1).await;
        match outcome {
            Ok(answered) => assert!(succeeds && answered == status, "{status}"),
            Err(AttemptError::Status(answered)) => assert!(!succeeds && answered == status, "{status}"),
            Err(other) => panic!("{status}: {other}"),
        }
        assert!(told.recv().await.is_some());
    }
    assert!(strayed.try_recv().is_err(), "no redirect was followed");
}

/// HOOK-28
#[tokio::test]
async fn an_answer_without_end_costs_nothing_and_nonsense_is_a_failure() {
    let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
    endless.resize(1 << 20, b'x');
    let (address, _told) = receiver(vec![endless]).await;
    let to = endpoint(&format!("http://{address}/"));
    let attempt = |to: Endpoint| async move {
        caller(Arc::new(Names::default())).attempt(&anywhere(), &to, &batch("{}"), 1).await
    };
    assert_eq!(attempt(to).await.unwrap(), 200);
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    head.resize(1 << 20, b'x');
    for nonsense in [b"SSH-2.0-x\r\n".to_vec(), b"".to_vec(), b"HTTP/1.1 2".to_vec(), head] {
        let (address, _told) = receiver(vec![nonsense]).await;
        let outcome = attempt(endpoint(&format!("http://{address}/"))).await;
        assert!(matches!(outcome, Err(AttemptError::Http(_))), "{outcome:?}");
    }
}

/// HOOK-14
#[tokio::test(start_paused = true)]
async fn whoever_does_not_answer_within_four_seconds_has_not_been_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = endpoint(&format!("http://{}/", listener.local_addr().unwrap()));
    let begun = tokio::time::Instant::now();
    let outcome = caller(Arc::new(Names::default())).attempt(&anywhere(), &to, &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Timeout)), "{outcome:?}");
    assert_eq!(begun.elapsed(), request::ATTEMPT_TIMEOUT);
}

/// What an endpoint does with one request.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answers,
    /// And closes, as servers do that keep nothing.
    AnswersAndCloses,
    /// It closes without a word, as servers do that were idle for too long just then.
    Closes,
}

/// An endpoint that does these things in turn, the last one again and again, on however many connections; what it heard, with
/// the number of the connection.
async fn keeping(does: &'static [Does]) -> (SocketAddr, mpsc::UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let turn = Arc::new(AtomicUsize::new(0));
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (tell, turn) = (tell.clone(), turn.clone());
            tokio::spawn(async move {
                let mut heard = Vec::new();
                let mut buffer = [0; 4_096];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(bytes) => heard.extend_from_slice(&buffer[..bytes]),
                    }
                    if !is_whole(&heard) {
                        continue;
                    }
                    let does = does[turn.fetch_add(1, Ordering::SeqCst).min(does.len() - 1)];
                    tell.send((number, String::from_utf8(std::mem::take(&mut heard)).unwrap())).unwrap();
                    if does == Does::Closes || (stream.write_all(&ok()).await.is_err()) || does != Does::Answers {
                        return;
                    }
                }
            });
        }
    });
    (address, told)
}

/// HOOK-33
#[tokio::test]
async fn one_connection_takes_one_request_after_the_other() {
    let (address, mut told) = keeping(&[Does::Answers]).await;
    let (caller, to) = (caller(Arc::new(Names::default())), endpoint(&format!("http://{address}/")));
    for n in 0..5 {
        let body = format!("{{\"n\":{n}}}");
        assert_eq!(caller.attempt(&anywhere(), &to, &batch(&body), 1).await.unwrap(), 200);
        let (number, heard) = told.recv().await.unwrap();
        assert!(number == 0 && heard.ends_with(&body) && !heard.contains("Connection:"), "{number}: {heard}");
    }
}

/// HOOK-33, HOOK-18
#[tokio::test]
async fn a_kept_connection_that_breaks_costs_no_attempt_loses_nothing_and_repeats_the_same_bytes() {
    let does = &[Does::Answers, Does::Closes, Does::AnswersAndCloses, Does::Answers];
    let (address, mut told) = keeping(does).await;
    let (caller, to) = (caller(Arc::new(Names::default())), endpoint(&format!("http://{address}/")));
    for body in ["\"one\"", "\"two\"", "\"three\""] {
        assert_eq!(caller.attempt(&anywhere(), &to, &batch(body), 1).await.unwrap(), 200, "{body}");
    }
    let mut heard = Vec::new();
    while heard.last().is_none_or(|(_, text): &(usize, String)| !text.ends_with("three\"")) {
        heard.push(told.recv().await.unwrap());
    }
    let twos: Vec<_> = heard.iter().filter(|(_, text)| text.ends_with("two\"")).collect();
    assert_eq!((twos.len(), &twos[0].1), (2, &twos[1].1), "heard and not answered, and then the same again");
    assert_ne!(twos[0].0, twos[1].0, "on a new connection");
    assert_eq!(heard.iter().filter(|(_, text)| text.ends_with("one\"")).count(), 1);
    // On a new connection it is the endpoint that is in trouble: that is an attempt that failed.
    let (address, mut told) = keeping(&[Does::Closes]).await;
    let outcome = caller.attempt(&anywhere(), &endpoint(&format!("http://{address}/")), &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Http(_))), "{outcome:?}");
    assert!(told.recv().await.is_some() && told.try_recv().is_err(), "asked once");
}

/// HOOK-33, HOOK-24
#[tokio::test]
async fn a_kept_connection_is_judged_anew_with_each_request() {
    let (address, mut told) = keeping(&[Does::Answers]).await;
    let names = Names::of(&[("moving.example", &[&["127.0.0.1"], &["127.0.0.1"], &["203.0.113.7"]])]);
    let (caller, to) = (caller(names), endpoint(&format!("http://moving.example:{}/", address.port())));
    assert_eq!(caller.attempt(&anywhere(), &to, &batch("{}"), 1).await.unwrap(), 200);
    assert!(told.recv().await.is_some());
    let outcome = caller.attempt(&Webhooks::default(), &to, &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Forbidden { .. })), "it is not allowed any more: {outcome:?}");
    let outcome = caller.attempt(&Webhooks::default(), &to, &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Forbidden { .. })), "the name leads elsewhere: {outcome:?}");
    assert!(told.try_recv().is_err());
}

/// HOOK-34
#[tokio::test]
async fn an_operator_confines_webhooks_to_ports_and_sends_them_through_a_proxy() {
    let (address, mut told) = keeping(&[Does::Answers]).await;
    let to = endpoint(&format!("http://hooks.example:{}/", address.port()));
    let names = || Names::of(&[("hooks.example", &[&["127.0.0.1"]])]);
    let only = |ports: &[u16]| caller(names()).within(Egress { ports: ports.to_vec(), proxy: None });
    let outcome = only(&[443]).attempt(&anywhere(), &to, &batch("{}"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Port(port)) if port == address.port()), "{outcome:?}");
    assert!(told.try_recv().is_err());
    assert_eq!(only(&[443, address.port()]).attempt(&anywhere(), &to, &batch("{}"), 1).await.unwrap(), 200);
    assert!(told.recv().await.is_some());

    // A proxy that lets one connection through and no more.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = proxy.local_addr().unwrap().to_string();
    let (tell, mut asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in ["HTTP/1.1 200 Go\r\nVia: x\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n"] {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            tell.send(String::from_utf8(head).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("200") {
                let mut onward = tokio::net::TcpStream::connect(address).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut onward).await });
            }
        }
    });
    let through = || caller(names()).within(Egress { ports: Vec::new(), proxy: Some(at.clone()) });
    let first = through();
    for body in ["1", "2"] {
        assert_eq!(first.attempt(&anywhere(), &to, &batch(body), 1).await.unwrap(), 200);
        assert!(told.recv().await.unwrap().1.ends_with(body));
    }
    let line = asked.recv().await.unwrap();
    assert!(line.starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\n", address.port())), "the address: {line}");
    let outcome = through().attempt(&anywhere(), &to, &batch("3"), 1).await;
    let Err(AttemptError::Proxy(error)) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("answered 403 to CONNECT 127.0.0.1:"), "{error}");
    let outcome = through().attempt(&Webhooks::default(), &to, &batch("4"), 1).await;
    assert!(matches!(outcome, Err(AttemptError::Forbidden { .. })), "judged before the proxy is asked: {outcome:?}");
    assert!(told.try_recv().is_err());
}

/// HOOK-29
#[tokio::test]
async fn an_https_endpoint_must_show_a_certificate_for_its_name_that_is_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["good.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut heard = [0; 4_096];
            let _ = stream.read(&mut heard).await;
            let _ = stream.write_all(&ok()).await;
            let _ = stream.shutdown().await;
        }
    });
    let names = Names::of(&[("good.example", &[&["127.0.0.1"]]), ("bad.example", &[&["127.0.0.1"]])]);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let trusting = Caller::trusting(names.clone(), roots);
    let to = |name: &str| endpoint(&format!("https://{name}:{port}/"));
    assert_eq!(trusting.attempt(&anywhere(), &to("good.example"), &batch("{}"), 1).await.unwrap(), 200);
    let wrong_name = trusting.attempt(&anywhere(), &to("bad.example"), &batch("{}"), 1).await;
    assert!(matches!(wrong_name, Err(AttemptError::Tls { .. })), "{wrong_name:?}");
    let untrusted = caller(names).attempt(&anywhere(), &to("good.example"), &batch("{}"), 1).await;
    assert!(matches!(untrusted, Err(AttemptError::Tls { .. })), "{untrusted:?}");
}
