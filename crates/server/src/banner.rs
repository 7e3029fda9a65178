//! What a node prints once it serves: where, and what to paste.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use fulmar_protocol::app::App;

/// The text for standard output. `demo` is the app whose secret is public anyway.
pub(crate) fn banner(plain: SocketAddr, tls: Option<SocketAddr>, is_tls_shared: bool, demo: Option<&App>) -> String {
    let host = host_to_show(plain.ip());
    let port = plain.port();
    let mut text = format!("Fulmar {} listens on http://{host}:{port}", env!("CARGO_PKG_VERSION"));
    if is_tls_shared {
        let _ = write!(text, " and https://{host}:{port}");
    }
    if let Some(tls) = tls {
        let _ = write!(text, " and https://{}:{}", host_to_show(tls.ip()), tls.port());
    }
    text.push('\n');
    let Some(demo) = demo else { return text };
    let (id, key) = (&demo.id, &demo.key);
    let secret = String::from_utf8_lossy(demo.secret.expose());
    let _ = write!(
        text,
        r#"
  See it work:  open http://{host}:{port}/ in a browser and press the button.
  Demo app:     id {id}, key {key}, secret {secret}

  In the browser (npm install pusher-js):

    const pusher = new Pusher("{key}", {{
      cluster: "", wsHost: "{host}", wsPort: {port}, forceTLS: false, enabledTransports: ["ws", "wss"],
    }});
    pusher.subscribe("my-channel").bind("my-event", (data) => console.log(data));

  On your server (npm install pusher):

    const pusher = new Pusher({{
      appId: "{id}", key: "{key}", secret: "{secret}", host: "{host}", port: "{port}", useTLS: false,
    }});
    await pusher.trigger("my-channel", "my-event", {{ message: "hello" }});

  Or from another terminal:

    fulmar subscribe my-channel
    fulmar trigger my-channel my-event '{{"message":"hello"}}'

"#
    );
    text
}

/// "All addresses" is nothing to connect to.
fn host_to_show(ip: IpAddr) -> String {
    match ip {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}
