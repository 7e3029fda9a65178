//! The flags of `serve` about how nodes hear each other.

use clap::Args;
use fulmar_server::config::Sources;

// How a node hears the others. (Not a doc comment, for the same reason.)
#[derive(Args, Default)]
#[command(next_help_heading = "Several nodes")]
pub struct BackboneArgs {
    /// embedded, or redis to hear other nodes over it [default: embedded] [env: FULMAR_BACKBONE__KIND]
    #[arg(long, value_name = "KIND")]
    backbone: Option<String>,
    /// single, sentinel or cluster [default: what the other flags ask for] [env: FULMAR_BACKBONE__TOPOLOGY]
    #[arg(long, value_name = "TOPOLOGY")]
    backbone_topology: Option<String>,
    /// The Redis server, or some of a Redis Cluster, separated by commas [default: 127.0.0.1:6379] [env: FULMAR_BACKBONE__ADDRESSES]
    #[arg(long, value_name = "HOST:PORT,...")]
    backbone_addresses: Option<String>,
    /// All Sentinels, separated by commas [env: FULMAR_BACKBONE__SENTINELS]
    #[arg(long, value_name = "HOST:PORT,...")]
    backbone_sentinels: Option<String>,
    /// The groups by the names Sentinel has for them, separated by commas [env: FULMAR_BACKBONE__GROUPS]
    #[arg(long, value_name = "NAME,...")]
    backbone_groups: Option<String>,
    /// Beginning of all keys and channels in Redis [default: fulmar] [env: FULMAR_BACKBONE__DEPLOYMENT]
    #[arg(long, value_name = "NAME")]
    backbone_deployment: Option<String>,
    /// A file with the password of the Redis servers [env: FULMAR_BACKBONE__PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    backbone_password_file: Option<String>,
    /// Where other nodes reach this one [default: where it listens] [env: FULMAR_BACKBONE__ADVERTISE]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

impl BackboneArgs {
    pub fn over(self, sources: Sources) -> Sources {
        sources
            .with_flag("backbone.kind", self.backbone)
            .with_flag("backbone.topology", self.backbone_topology)
            .with_flag("backbone.addresses", self.backbone_addresses)
            .with_flag("backbone.sentinels", self.backbone_sentinels)
            .with_flag("backbone.groups", self.backbone_groups)
            .with_flag("backbone.deployment", self.backbone_deployment)
            .with_flag("backbone.password_file", self.backbone_password_file)
            .with_flag("backbone.advertise", self.advertise)
    }
}
