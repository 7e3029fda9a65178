//! A call over several groups of which one has no way in time: it is said which channels were not accepted, and a repeat under its
//! key publishes to those alone.

mod ears;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::settings::{Credentials, Limits, Settings, Topology};
use fulmar_backbone::redis::topic::Topic;
use fulmar_backbone::{Backbone, PublishError, Terms};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Join, Publication, Question, Ticket};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{RedisOptions, SentinelDeployment, SentinelOptions};

use ears::Ears;

const GROUPS: [&str; 2] = ["g1", "g2"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Whoever may listen to the bus and not speak there has no way past a primary.
const USER: &str = "node on >pw ~* &* +@all -publish (+publish &partly:t:* &partly:pulse)";

/// Two channels of each group: slots go round the groups.
fn channels(app: &AppId) -> [ChannelName; 4] {
    let of = |group: usize| {
        let names = (0..).map(|number| ChannelName::parse(&format!("room-{number}"), 200).expect("a valid name"));
        names.filter(move |name| usize::from(Topic::channel(app, name).slot().0) % GROUPS.len() == group).take(2)
    };
    let names: Vec<_> = of(0).chain(of(1)).collect();
    names.try_into().expect("two of each")
}

/// RED-15
#[test]
fn what_one_group_could_not_take_is_named_and_a_repeat_reaches_each_channel_once() {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return;
    }
    let redis = RedisOptions { users: vec![USER.to_owned()], ..RedisOptions::default() };
    let options = SentinelOptions { redis, down_after_ms: 30_000, wants_replica: false, ..SentinelOptions::default() };
    let servers = SentinelDeployment::start(&GROUPS.map(|group| (group, 0)), 1, &options).expect("the servers start");
    let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
    let topology = Topology::Sentinel { sentinels, groups: GROUPS.map(str::to_owned).into() };
    let credentials = Credentials { user: Some("node".to_owned()), password: Some("pw".to_owned()) };
    let limits = Limits { publish_timeout: Duration::from_secs(2), ..Limits::default() };
    let node = RedisBackbone::start(Settings { credentials, limits, ..Settings::new("partly", topology) }, 1, None);
    let node = node.expect("a node starts");
    let deadline = Instant::now() + PATIENCE;
    while !(node.figures().groups.len() == 2 && node.figures().groups.iter().all(|group| group.hears)) {
        assert!(Instant::now() < deadline, "the groups are not heard: {:?}", node.figures());
        std::thread::yield_now();
    }

    let app = AppId::new("app");
    let rooms = channels(&app);
    let (say, heard) = channel();
    let worker = node.attach(Arc::new(Ears(say)));
    for (number, room) in (1_u32..).zip(&rooms) {
        let ticket = Ticket { session: number, number: number.into() };
        let (member, members_max, counted) = (None, 0, false);
        let join = Join { ticket, app: app.clone(), channel: room.clone(), member, members_max, counted };
        assert!(node.ask(worker, Question::Join(join)).is_none());
        assert_eq!(heard.recv_timeout(PATIENCE).as_deref(), Ok(""), "it is subscribed");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let publish = |rooms: &[ChannelName], text: &str, once: Option<u64>| {
        let publication = |room: &ChannelName| Publication {
            app: app.clone(),
            channel: room.clone(),
            frame: Frame::new(&format!("{text} {}", room.as_str())),
            except: None,
            cache_for: None,
        };
        runtime.block_on(node.publish(rooms.iter().map(publication).collect(), Terms { once, ..Terms::default() }))
    };
    let texts = |count: usize| {
        let mut texts: Vec<_> = (0..count).map(|_| heard.recv_timeout(PATIENCE).expect("an event")).collect();
        texts.sort_unstable();
        texts
    };
    let all = |text: &str| {
        let mut texts = rooms.clone().map(|room| format!("{text} {}", room.as_str()));
        texts.sort_unstable();
        texts
    };

    assert_eq!(publish(&rooms, "well", None), Ok(()));
    assert_eq!(texts(4), all("well"));

    let away = &servers.primary_of("g2").expect("a primary").redis;
    away.stop();
    let mut left = rooms[2..].to_vec();
    left.sort_unstable();
    assert_eq!(publish(&rooms, "once", Some(7)), Err(PublishError::Unknown { left: left.clone() }));
    away.resume();
    assert_eq!(publish(&rooms, "once", Some(7)), Ok(()), "the same call again");
    // What was on its way to the server that hung may have been published after all: by either try, but once.
    assert_eq!(texts(4), all("once"));
    assert_eq!(publish(&rooms, "end", None), Ok(()));
    assert_eq!(texts(4), all("end"), "nothing came twice");
}
