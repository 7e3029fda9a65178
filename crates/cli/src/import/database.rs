//! The apps that stand in a table of PostgreSQL or MySQL, read with that database's own command-line client.
//!
//! Programs and no drivers, because this is run once, and not by the node. The clients (`psql`, `mariadb` or `mysql`) know
//! every way to authenticate and to encrypt that their servers have (peer, SCRAM, GSSAPI, `caching_sha2_password`, client
//! certificates, `~/.pgpass`, `~/.my.cnf`), and are kept by those who keep the servers. `tokio-postgres` and `mysql_async`
//! would bring some 90 crates, without TLS, into a program of 170, and their advisories with them. Who has no
//! client is told exactly what to install. Passwords go to them in their environment, never on their command line. Nothing
//! is written: the session is read-only.

use std::io;
use std::process::{Command, Stdio};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::client::Failure;

/// Tables of the servers whose apps can be read, where no table is named.
const TABLES: [&str; 3] = ["apps", "applications", "websockets_apps"];
/// Seconds to reach a database, and for one answer.
const PATIENCE_S: u32 = 30;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    MySql,
}

/// Where a database is.
#[derive(Debug, PartialEq, Eq)]
pub struct Database {
    kind: Kind,
    host: String,
    port: Option<u16>,
    user: String,
    password: String,
    name: String,
    /// Of PostgreSQL: `sslmode`.
    tls: Option<String>,
}

impl Database {
    /// A URL such as `postgres://user:password@host:5432/database`; `None` when it is no database's.
    ///
    /// # Errors
    /// When it begins like one and goes on unlike one. The text is not repeated: it holds a password.
    pub fn of(url: &str) -> Result<Option<Self>, Failure> {
        let (kind, rest) = match url.split_once("://") {
            Some(("postgres" | "postgresql" | "pgsql", rest)) => (Kind::Postgres, rest),
            Some(("mysql" | "mariadb", rest)) => (Kind::MySql, rest),
            _ => return Ok(None),
        };
        let wrong =
            || Failure::usage("a database is named like postgres://USER:PASSWORD@HOST:5432/DATABASE or mysql://...");
        let plain = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| wrong());
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = rest.split_once('/').ok_or_else(wrong)?;
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| wrong())?)),
            _ => (address, None),
        };
        if name.is_empty() || name.contains('/') {
            return Err(wrong());
        }
        let tls = query.split('&').find_map(|pair| pair.strip_prefix("sslmode=")).map(str::to_owned);
        Ok(Some(Self {
            kind,
            host: plain(host.trim_matches(['[', ']']))?,
            port,
            user: plain(user)?,
            password: plain(password)?,
            name: plain(name)?,
            tls,
        }))
    }

    /// The rows of the table of apps, and the table's name.
    ///
    /// # Errors
    /// When the client is missing, or says no.
    pub fn rows(&self, table: Option<&str>) -> Result<(String, Vec<Map<String, Value>>), Failure> {
        let table = match table {
            Some(table) => table.to_owned(),
            None => self.find_table()?,
        };
        let text = match self.kind {
            Kind::Postgres => {
                let from = quoted(&table, '"');
                self.ask(&format!("SELECT coalesce(json_agg(t), '[]') FROM (SELECT * FROM {from}) t"))?
            }
            Kind::MySql => self.ask(&self.mysql_rows(&table)?)?,
        };
        let unlike =
            |e: serde_json::Error| Failure::from(format!("{table}: the client's answer is not understood: {e}"));
        let rows = match self.kind {
            Kind::Postgres => serde_json::from_str(&text).map_err(unlike)?,
            Kind::MySql => text.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(unlike)?,
        };
        Ok((table, rows))
    }

    /// The one table of a known name that has keys and secrets.
    fn find_table(&self) -> Result<String, Failure> {
        let names = TABLES.map(|name| format!("'{name}'")).join(", ");
        let schema = match self.kind {
            Kind::Postgres => "ANY(current_schemas(false))",
            Kind::MySql => "database()",
        };
        let found = self.ask(&format!(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = {schema} AND table_name IN ({names}) \
             AND column_name IN ('id', 'key', 'secret') GROUP BY table_name HAVING count(*) = 3"
        ))?;
        let found: Vec<&str> = found.lines().collect();
        match found[..] {
            [table] => Ok(table.to_owned()),
            [] => {
                Err(format!("no table of apps is there (looked for {}): name it with --table", TABLES.join(", "))
                    .into())
            }
            _ => Err(Failure::usage(format!("there are {}: say which with --table", found.join(" and ")))),
        }
    }

    /// MySQL writes a row as JSON only when told every column.
    fn mysql_rows(&self, table: &str) -> Result<String, Failure> {
        let (schema, name) = table.split_once('.').map_or(("database()".to_owned(), table), |(schema, name)| {
            (format!("'{}'", schema.replace('\'', "''")), name)
        });
        let columns = self.ask(&format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = {schema} AND table_name = '{}' AND \
             data_type NOT LIKE '%blob' AND data_type NOT LIKE '%binary'",
            name.replace('\'', "''")
        ))?;
        let pairs: Vec<String> =
            columns.lines().map(|c| format!("'{}', {}", c.replace('\'', "''"), quoted_word(c, '`'))).collect();
        if pairs.is_empty() {
            return Err(format!("there is no table {table}").into());
        }
        Ok(format!("SELECT json_object({}) FROM {}", pairs.join(", "), quoted(table, '`')))
    }

    fn ask(&self, sql: &str) -> Result<String, Failure> {
        let clients: &[&str] = match self.kind {
            Kind::Postgres => &["psql"],
            Kind::MySql => &["mariadb", "mysql"],
        };
        for client in clients {
            let mut command = self.command(client, sql);
            let output = match command.stdin(Stdio::null()).output() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| format!("{client}: {error}"))?,
            };
            if !output.status.success() {
                return Err(format!("{client}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
            }
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(missing(self.kind).into())
    }

    fn command(&self, client: &str, sql: &str) -> Command {
        let mut command = Command::new(client);
        match self.kind {
            Kind::Postgres => {
                command.args([
                    "--no-psqlrc",
                    "--quiet",
                    "--tuples-only",
                    "--no-align",
                    "--no-password",
                    "--command",
                    sql,
                ]);
                command.env("PGOPTIONS", "-c default_transaction_read_only=on");
                command.env("PGCONNECT_TIMEOUT", PATIENCE_S.to_string()).env("PGCLIENTENCODING", "UTF8");
                let port = self.port.map(|port| port.to_string());
                let known = [
                    ("PGHOST", Some(&self.host)),
                    ("PGPORT", port.as_ref()),
                    ("PGUSER", Some(&self.user)),
                    ("PGPASSWORD", Some(&self.password)),
                    ("PGDATABASE", Some(&self.name)),
                    ("PGSSLMODE", self.tls.as_ref()),
                ];
                command.envs(known.into_iter().filter_map(|(n, v)| Some((n, v.filter(|v| !v.is_empty())?))));
            }
            Kind::MySql => {
                command.args(["--batch", "--raw", "--skip-column-names", "--default-character-set=utf8mb4"]);
                command.arg(format!("--connect-timeout={PATIENCE_S}"));
                command.arg("--init-command=SET SESSION TRANSACTION READ ONLY");
                for (flag, value) in [("host", &self.host), ("user", &self.user)] {
                    if !value.is_empty() {
                        command.arg(format!("--{flag}={value}"));
                    }
                }
                // A port means the network: otherwise "localhost" would mean a socket.
                command.args(self.port.map(|port| format!("--port={port}")));
                command.args(self.port.map(|_| "--protocol=tcp"));
                command.arg(format!("--execute={sql}")).arg(format!("--database={}", self.name));
                if !self.password.is_empty() {
                    command.env("MYSQL_PWD", &self.password);
                }
            }
        }
        command
    }
}

/// What to do where no client is found.
fn missing(kind: Kind) -> String {
    let (clients, apt, apk, dnf, brew) = match kind {
        Kind::Postgres => ("psql is not", "postgresql-client", "postgresql-client", "postgresql", "libpq"),
        Kind::MySql => {
            ("neither mariadb nor mysql is", "default-mysql-client", "mariadb-client", "mariadb", "mysql-client")
        }
    };
    format!(
        "{clients} in PATH, and the database is read with that program. Install it:\n  \
         Debian, Ubuntu  apt-get install {apt}\n  \
         Alpine          apk add {apk}\n  \
         Fedora, RHEL    dnf install {dnf}\n  \
         macOS           brew install {brew}, which says what to add to PATH\n\
         Or run it where it is, and pipe the rows as JSON into `fulmar app import -` (see --help)"
    )
}

/// A table's name, with its schema if it has one, as SQL takes any name.
fn quoted(name: &str, quote: char) -> String {
    name.split('.').map(|word| quoted_word(word, quote)).collect::<Vec<_>>().join(".")
}

fn quoted_word(word: &str, quote: char) -> String {
    format!("{quote}{}{quote}", word.replace(quote, &format!("{quote}{quote}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-36
    #[test]
    fn a_database_is_named_as_its_own_tools_name_it_and_a_password_is_never_repeated() {
        let database = Database::of("postgres://ann:p%40ss@db.example:5433/soketi?sslmode=require").unwrap().unwrap();
        assert_eq!((database.host.as_str(), database.port, database.user.as_str()), ("db.example", Some(5433), "ann"));
        assert_eq!((database.password.as_str(), database.name.as_str()), ("p@ss", "soketi"));
        let command = database.command("psql", "SELECT 1");
        assert!(
            !command.get_args().any(|arg| arg.to_string_lossy().contains("p@ss")),
            "everybody on a machine sees those"
        );
        let database = Database::of("mysql://root@[::1]/apps").unwrap().unwrap();
        assert_eq!((database.kind, database.host.as_str(), database.port), (Kind::MySql, "::1", None));
        assert_eq!(Database::of("soketi.json").unwrap(), None);
        for wrong in ["postgres://ann:hush@db", "mysql://ann:hush@db:port/x", "postgres://ann:hush@db/"] {
            let failure = Database::of(wrong).unwrap_err().to_string();
            assert!(!failure.contains("hush"), "{failure}");
        }
        assert_eq!(quoted("a.b\"c", '"'), "\"a\".\"b\"\"c\"");
    }
}
