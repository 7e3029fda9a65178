//! What caps a primary's line: the kernel, in a network namespace of the lab's own, or the rig's proxy.
//!
//! Here it is decided which of them, once and before anything is started, and said. What the kernel needs for it is done in
//! `namespace`.

use fulmar_rig::{Link, Server};

use super::namespace::{self, Shaper};
use crate::faults::stage::{Done, Setting};
use crate::project::Failure;

/// What was asked for on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// A namespace where one can be had, else the proxy
    Auto,
    /// A network namespace of the lab's own, or nothing
    Namespace,
    /// The proxy
    Proxy,
}

/// What it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The kernel, in a network namespace.
    Namespace,
    /// The rig's proxy, and why.
    Proxy(String),
}

/// Decides. What stands in a namespace's way is looked for only where it matters: `is_any_capped` says whether a line is capped at all.
///
/// # Errors
/// A namespace was asked for and cannot be had.
pub fn decide(wanted: Wanted, is_any_capped: bool, obstacle: impl FnOnce() -> Option<String>) -> Result<Way, Failure> {
    match wanted {
        Wanted::Proxy => Ok(Way::Proxy("it was asked for".to_owned())),
        Wanted::Auto if !is_any_capped => Ok(Way::Proxy("none is capped".to_owned())),
        Wanted::Auto => Ok(obstacle().map_or(Way::Namespace, Way::Proxy)),
        Wanted::Namespace => match obstacle() {
            None => Ok(Way::Namespace),
            Some(why) => Err(Failure(format!("no line can be capped in a network namespace here: {why}"))),
        },
    }
}

impl Way {
    /// As the report says it.
    pub fn words(&self) -> String {
        match self {
            Self::Namespace => "lines are capped by the kernel, in a network namespace of the lab's own".to_owned(),
            Self::Proxy(why) => format!("lines are capped by a proxy, because {why}"),
        }
    }

    /// How servers are set up whose lines are to be capped this way.
    pub fn setting(&self) -> Setting {
        match self {
            Self::Namespace => Setting::SentinelWithSources,
            Self::Proxy(_) => Setting::SentinelWithLinks,
        }
    }
}

/// The lines of a day.
pub enum Lines {
    /// The kernel caps them.
    Shaped(Shaper),
    /// The wires that the servers are behind do.
    Linked,
}

impl Lines {
    /// All of them free.
    pub fn lay(way: &Way) -> Result<Self, Failure> {
        match way {
            Way::Namespace => Ok(Self::Shaped(Shaper::begin()?)),
            Way::Proxy(_) => Ok(Self::Linked),
        }
    }

    /// What a server's host sends, to all who connected together, is at most so much.
    pub fn cap(&mut self, server: &Server, bytes_per_s: u64) -> Done {
        match self {
            Self::Shaped(shaper) => shaper.cap(server.addr().port(), bytes_per_s),
            Self::Linked => link(server).map(|link| link.limit_line(bytes_per_s)),
        }
    }

    /// What it sends to its replicas is at most so much for each. The kernel knows all of them together, as `replicas` times that.
    pub fn cap_replication(&mut self, server: &Server, bytes_per_s: u64, replicas: u64) -> Done {
        match self {
            Self::Shaped(shaper) => shaper.cap_replication(server.addr().port(), bytes_per_s * replicas.max(1)),
            Self::Linked => link(server).map(|link| link.limit_replication(bytes_per_s)),
        }
    }

    /// They are free again.
    pub fn free(&mut self, servers: &[Server]) -> Done {
        match self {
            Self::Shaped(shaper) => servers.iter().try_for_each(|server| shaper.free(server.addr().port())),
            Self::Linked => {
                servers.iter().filter_map(|server| server.link.as_ref()).for_each(Link::mend);
                Ok(())
            }
        }
    }
}

fn link(server: &Server) -> Result<&Link, Failure> {
    server.link.as_ref().ok_or_else(|| Failure("the day says that there are wires".to_owned()))
}

/// Whether a namespace can be had here; if not, why.
pub fn obstacle() -> Option<String> {
    namespace::obstacle(crate::project::is_root(), crate::project::is_installed, namespace::try_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(wanted: Wanted, is_any_capped: bool, obstacle: Option<&str>) -> Result<Way, String> {
        decide(wanted, is_any_capped, || obstacle.map(str::to_owned)).map_err(|Failure(why)| why)
    }

    #[test]
    fn the_kernel_caps_lines_where_it_can_and_the_proxy_where_not() {
        assert_eq!(decided(Wanted::Auto, true, None), Ok(Way::Namespace));
        assert_eq!(decided(Wanted::Auto, true, Some("no root")), Ok(Way::Proxy("no root".to_owned())));
        let way = Way::Proxy("no root".to_owned());
        assert_eq!(way.words(), "lines are capped by a proxy, because no root");
    }

    #[test]
    fn nothing_is_tried_where_no_line_is_capped_or_the_proxy_was_asked_for() {
        let never = || panic!("nobody needs to know");
        for (wanted, is_any_capped) in [(Wanted::Auto, false), (Wanted::Proxy, true)] {
            let decided = decide(wanted, is_any_capped, never).map_err(|Failure(why)| why);
            assert!(matches!(decided, Ok(Way::Proxy(_))), "{decided:?}");
        }
    }

    #[test]
    fn a_namespace_that_was_asked_for_and_cannot_be_had_is_refused_with_the_reason() {
        let refused = decided(Wanted::Namespace, true, Some("no root")).unwrap_err();
        assert_eq!(refused, "no line can be capped in a network namespace here: no root");
        assert_eq!(decided(Wanted::Namespace, false, None), Ok(Way::Namespace));
    }
}
