//! `fulmar app import` from a real PostgreSQL and a real MariaDB, each started for the test on a port and in a folder of its
//! own. Where the programs are not installed, the test says so and passes: `cargo xtask setup` installs them.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fulmar_rig::free_port;
use serde_json::{Value, json};

/// soketi's table, as its documentation has it, for PostgreSQL.
const SOKETI: &str = r#"
    CREATE TABLE apps (
        id varchar(255) PRIMARY KEY, key varchar(255) NOT NULL, secret varchar(255) NOT NULL,
        max_connections integer NOT NULL, enable_client_messages boolean NOT NULL, enabled boolean NOT NULL,
        max_backend_events_per_sec integer NOT NULL, max_client_events_per_sec integer NOT NULL,
        max_read_req_per_sec integer NOT NULL, webhooks json, max_presence_members_per_channel integer,
        max_presence_member_size_in_kb integer, max_channel_name_length integer, max_event_channels_at_once integer,
        max_event_name_length integer, max_event_payload_in_kb integer, max_event_batch_size integer,
        enable_user_authentication boolean NOT NULL
    );
    INSERT INTO apps VALUES
        ('41', 'key-41', 'se''cret "41" ü', -1, true, true, -1, -1, -1, '[]', null, null, null, null, null, null, null, false),
        ('42', 'key-42', 'secret-42', 500, false, false, 100, 20, 5,
         '[{"url": "https://a.example/hook", "event_types": ["channel_occupied", "member_added"]}]',
         300, 4, 100, 50, 150, 20, 5, true),
        ('no id', 'key-43', 'secret-43', -1, true, true, -1, -1, -1, null, null, null, null, null, null, null, null, false);
"#;

/// sockudo's table and that of Laravel WebSockets, for MariaDB.
const SOCKUDO: &str = r"
    CREATE TABLE applications (
        id VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255) UNIQUE NOT NULL, secret VARCHAR(255) NOT NULL,
        max_connections INT UNSIGNED NOT NULL, enable_client_messages BOOLEAN NOT NULL DEFAULT FALSE,
        enabled BOOLEAN NOT NULL DEFAULT TRUE, max_backend_events_per_second INT UNSIGNED NULL,
        max_client_events_per_second INT UNSIGNED NOT NULL, max_read_requests_per_second INT UNSIGNED NULL,
        max_event_payload_in_kb INT UNSIGNED NULL, enable_watchlist_events BOOLEAN NULL, policy JSON NULL,
        webhooks JSON NULL, allowed_origins JSON NULL, logo BLOB NULL,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
    );
    INSERT INTO applications (id, `key`, secret, max_connections, enable_client_messages, max_client_events_per_second,
        max_event_payload_in_kb, enable_watchlist_events, webhooks, allowed_origins, logo) VALUES
        ('51', 'key-51', 'se''cret \\ü', 1000, TRUE, 100, 200, TRUE, JSON_ARRAY(),
         JSON_ARRAY('https://a.example', '*.b.example'), x'00ff');
";
const LARAVEL: &str = r"
    CREATE TABLE websockets_apps (
        id VARCHAR(255) NOT NULL, `key` VARCHAR(255) NOT NULL, secret VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL,
        host VARCHAR(255) NULL, path VARCHAR(255) NULL, enable_client_messages TINYINT(1) NOT NULL DEFAULT 0,
        enable_statistics TINYINT(1) NOT NULL DEFAULT 1, capacity INT UNSIGNED NULL, allowed_origins VARCHAR(255) NOT NULL,
        created_at TIMESTAMP NULL, updated_at TIMESTAMP NULL
    );
    INSERT INTO websockets_apps VALUES
        ('61', 'key-61', 'secret-61', 'Shop', NULL, NULL, 1, 1, 50, 'shop.example,www.shop.example', NULL, NULL);
";
const PASSWORD: &str = "p@ss:w/rd";
const PASSWORD_IN_URL: &str = "p%40ss%3Aw%2Frd";

/// A process that is ended with the test, in a folder that goes with it.
struct Server {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL refuses to run as root, so that it runs as whoever Debian made for it.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder of its own for a server.
fn folder(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("fulmar-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The program, from the path or from where Debian keeps it.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let missing: Vec<&str> = names.into_iter().filter(|name| program(name).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("!! SKIPPED: {} is not installed; `cargo xtask setup` does it", missing.join(", "));
        return None;
    }
    Some(names.map(|name| program(name).unwrap()))
}

/// Asks until it answers.
fn wait_for(server: &mut Server, mut ready: impl FnMut() -> bool) {
    for _ in 0..600 {
        if ready() {
            return;
        }
        assert!(server.process.try_wait().unwrap().is_none(), "the database ended; see {}", server.folder.display());
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the database did not come up");
}

fn postgres(test: &str) -> Option<Server> {
    let [initdb, postgres, psql] = programs(["initdb", "postgres", "psql"])?;
    let (folder, port) = (folder(test), free_port().unwrap());
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(&folder));
    }
    let data = folder.join("data");
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    run(as_postgres(&initdb)
        .args(["--username=ann", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--pwfile"])
        .arg(&password)
        .arg(&data));
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = as_postgres(&postgres);
    command
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "fsync=off", "-D"])
        .arg(&data)
        .arg("-k")
        .arg(&folder);
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut server = Server { process, folder, port };
    let ask = |sql: &str| {
        let mut command = Command::new(&psql);
        command.args(["-X", "-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "ann", "-c", sql, "postgres"]);
        command.env("PGPASSWORD", PASSWORD);
        command
    };
    wait_for(&mut server, || ask("SELECT 1").output().unwrap().status.success());
    run(&mut ask(SOKETI));
    Some(server)
}

fn mariadb(test: &str) -> Option<Server> {
    let [install, mariadbd, client] = programs(["mariadb-install-db", "mariadbd", "mariadb"])?;
    let (folder, port) = (folder(test), free_port().unwrap());
    let user = format!("--user={}", run(Command::new("id").arg("-un")).trim());
    let data = folder.join("data");
    run(Command::new(&install)
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &user])
        .arg(format!("--datadir={}", data.display())));
    let start = folder.join("start.sql");
    std::fs::write(&start, format!("ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';\nCREATE DATABASE shop;\n"))
        .unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new(&mariadbd);
    command
        .args(["--no-defaults", &user, "--bind-address=127.0.0.1", "--port", &port.to_string(), "--init-file"])
        .arg(&start);
    command.arg("--datadir").arg(&data).arg("--socket").arg(folder.join("s"));
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut server = Server { process, folder, port };
    let ask = |sql: &str| {
        let mut command = Command::new(&client);
        command.args([
            "--no-defaults",
            "--host=127.0.0.1",
            &format!("--port={port}"),
            "--user=root",
            "--database=shop",
        ]);
        command.args(["--default-character-set=utf8mb4", "--execute", sql]).env("MYSQL_PWD", PASSWORD);
        command
    };
    wait_for(&mut server, || ask("SELECT 1").output().unwrap().status.success());
    run(&mut ask(SOCKUDO));
    run(&mut ask(LARAVEL));
    Some(server)
}

/// A node to import into.
struct Node {
    process: Child,
    port: String,
    home: PathBuf,
}

impl Node {
    fn start(test: &str) -> Self {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("databases-{test}"));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["serve", "--port", "0", "--set", "admin.port=0"]).env_clear().env("HOME", &home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a node says where it listens").unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.to_owned();
        thread::spawn(move || lines.for_each(drop));
        let node = Self { process, port, home };
        let up = (0..2_000).any(|_| node.run(&["app", "list"]).0);
        assert!(up, "the admin API did not come up");
        node
    }

    /// Whether it succeeded, what was printed, and what was said beside it.
    fn run(&self, args: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(args).env_clear().env("HOME", &self.home).env("PATH", std::env::var_os("PATH").unwrap());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Whether the node takes what is signed with this app's secret.
    fn takes(&self, app: &str) -> bool {
        self.run(&["channels", "--port", &self.port, "--app", app]).0
    }

    fn settings(&self, id: &str) -> Value {
        let (_, out, said) = self.run(&["app", "show", id, "--json"]);
        serde_json::from_str::<Value>(&out).unwrap_or_else(|_| panic!("{said}"))["settings"].take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// OPS-36
#[test]
fn whoever_has_no_client_is_told_what_to_install() {
    for (url, install) in [
        ("postgres://ann:hush@127.0.0.1/x", "apt-get install postgresql-client"),
        ("mysql://ann:hush@127.0.0.1/x", "apt-get install default-mysql-client"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["app", "import", url, "--dry-run"]).env_clear().env("PATH", "/nowhere");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(install) && !said.contains("hush"), "{said}");
    }
}

/// OPS-36
#[test]
fn soketi_s_apps_come_out_of_postgresql_with_all_they_mean() {
    let Some(server) = postgres("import-postgres") else { return };
    let node = Node::start("postgres");
    let url = format!("postgres://ann:{PASSWORD_IN_URL}@127.0.0.1:{}/postgres", server.port);
    let (ok, out, _) = node.run(&["app", "import", &url, "--dry-run"]);
    assert!(ok && out.contains("would add 42") && !out.contains("secret-42"), "{out}");
    assert!(!node.run(&["app", "list"]).1.contains("key-42"), "a dry run adds nothing");

    let (ok, out, said) = node.run(&["app", "import", &url]);
    assert!(!ok && out == "added 2, left as they are 0, refused 1\n", "{out} {said}");
    assert!(said.contains("app no id: apps.id must be") && said.contains("maxreadreqpersec of app 42"), "{said}");
    let settings = node.settings("42");
    for (name, value) in [
        ("key", json!("key-42")),
        ("enabled", json!(false)),
        ("client_events", json!(false)),
        ("authorized_connections", json!(true)),
        ("subscription_counts", json!(true)),
        ("max_connections", json!(500)),
        ("publishes_per_s_max", json!(100)),
        ("client_events_per_s_max", json!(20)),
        ("presence_members_max", json!(300)),
        ("presence_user_info_bytes_max", json!(4_096)),
        ("channel_name_max", json!(100)),
        ("publish_channels_max", json!(50)),
        ("event_name_max", json!(150)),
        ("event_data_bytes_max", json!(20_480)),
        ("batch_events_max", json!(5)),
    ] {
        assert_eq!(settings[name], value, "{name}: {settings}");
    }
    assert!(settings["webhooks"].to_string().contains("https://a.example/hook"), "{settings}");
    let settings = node.settings("41");
    assert_eq!((&settings["max_connections"], &settings["event_data_bytes_max"]), (&json!(0), &json!(102_400)));
    assert_eq!(settings["publishes_per_s_max"], json!(0), "-1 there is no limit");

    assert!(node.takes("41:key-41:se'cret \"41\" ü") && !node.takes("41:key-41:secret"));

    let (_, out, _) = node.run(&["app", "import", &url, "--table", "public.apps"]);
    assert_eq!(out, "added 0, left as they are 2, refused 1\n", "it can be run again");
    let wrong = format!("postgres://ann:wrong-password@127.0.0.1:{}/postgres", server.port);
    for (args, said) in
        [(&["app", "import", &wrong][..], "psql: "), (&["app", "import", &url, "--table", "none"], "none")]
    {
        let (ok, _, error) = node.run(args);
        assert!(!ok && error.contains(said) && !error.contains("wrong-password") && !error.contains("p@ss"), "{error}");
    }
    let rows = node.home.join("rows.json");
    std::fs::write(
        &rows,
        "{\"id\":\"71\",\"key\":\"k71\",\"secret\":\"s\"}\n{\"id\":72,\"key\":\"k72\",\"secret\":\"s\"}\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.args(["app", "import", "-"]).env_clear().env("HOME", &node.home).stdin(std::fs::File::open(&rows).unwrap());
    assert_eq!(
        String::from_utf8(command.output().unwrap().stdout).unwrap(),
        "added 2, left as they are 0, refused 0\n"
    );
}

/// OPS-36
#[test]
fn sockudo_s_and_laravel_s_apps_come_out_of_mariadb_with_all_they_mean() {
    let Some(server) = mariadb("import-mariadb") else { return };
    let node = Node::start("mariadb");
    let url = format!("mysql://root:{PASSWORD_IN_URL}@127.0.0.1:{}/shop", server.port);
    let (ok, _, said) = node.run(&["app", "import", &url]);
    assert!(!ok && said.contains("applications and websockets_apps") && said.contains("--table"), "{said}");
    let (ok, out, said) = node.run(&["app", "import", &url, "--table", "applications"]);
    assert!(ok && out == "added 1, left as they are 0, refused 0\n", "{out} {said}");
    let settings = node.settings("51");
    for (name, value) in [
        ("client_events", json!(true)),
        ("watchlist", json!(true)),
        ("max_connections", json!(1_000)),
        ("client_events_per_s_max", json!(100)),
        ("event_data_bytes_max", json!(204_800)),
        ("allowed_origins", json!(["https://a.example", "*.b.example"])),
    ] {
        assert_eq!(settings[name], value, "{name}: {settings}");
    }
    assert!(node.takes("51:key-51:se'cret \\ü"));
    let (ok, out, said) = node.run(&["app", "import", &url, "--table", "shop.websockets_apps"]);
    assert!(ok && out == "added 1, left as they are 0, refused 0\n", "{out} {said}");
    let settings = node.settings("61");
    assert_eq!(settings["allowed_origins"], json!(["shop.example", "www.shop.example"]));
    assert_eq!((&settings["client_events"], &settings["max_connections"]), (&json!(true), &json!(50)));
    let wrong = format!("mysql://root:wrong-password@127.0.0.1:{}/shop", server.port);
    let (ok, _, error) = node.run(&["app", "import", &wrong]);
    assert!(!ok && error.contains("mariadb: ") && !error.contains("wrong-password"), "{error}");
}
