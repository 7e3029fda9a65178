//! The table of all promises: which clause, in one sentence, and what checks it. Checks nothing itself.

use super::{Case, cases, members, outage, users};

/// Every promise, in the order of its clause.
pub const CASES: &[Case] = &[
    Case {
        clause: "DEL-1",
        promise: "a publication reaches every worker with subscriptions once, and nobody else",
        check: cases::reaches_every_worker_once,
    },
    Case {
        clause: "DEL-1",
        promise: "the excluded connection travels with the event, whoever published it",
        check: cases::carries_the_exclusion,
    },
    Case {
        clause: "DEL-2",
        promise: "all workers hear one order, whoever publishes at the same time",
        check: cases::keeps_one_order,
    },
    Case {
        clause: "DEL-3",
        promise: "a join hears all that is later than its position while others publish",
        check: cases::joins_at_a_position,
    },
    Case {
        clause: "DEL-3",
        promise: "the roster of a join is the edges up to its position, added up",
        check: members::adds_up_to_the_roster,
    },
    Case {
        clause: "DEL-4",
        promise: "users come and go once however many connections they have",
        check: members::tells_of_users_not_connections,
    },
    Case {
        clause: "DEL-4",
        promise: "edges alternate while one user comes and goes on several workers",
        check: members::alternates_edges,
    },
    Case {
        clause: "DEL-5",
        promise: "a publish that races with a join is seen as cached or live, never both, never neither",
        check: cases::joins_a_cache_at_a_position,
    },
    Case { clause: "DEL-6", promise: "a call is accepted in its order", check: cases::keeps_the_order_of_a_call },
    Case { clause: "DEL-9", promise: "a full inbox refuses the whole call", check: cases::refuses_as_a_whole },
    Case {
        clause: "DEL-10",
        promise: "one publisher's events arrive in its order",
        check: cases::keeps_a_publishers_order,
    },
    Case { clause: "DEL-13", promise: "apps do not meet", check: cases::keeps_apps_apart },
    Case {
        clause: "DEL-14",
        promise: "each change is counted, the newcomer hears its own, and the last count is the truth",
        check: members::counts_every_change,
    },
    Case { clause: "DEL-14", promise: "counts are true when all is quiet", check: members::counts_the_truth },
    Case { clause: "DEL-15", promise: "what everybody left is empty", check: cases::empties },
    Case {
        clause: "DEL-15",
        promise: "a leave that was never joined changes nothing",
        check: cases::survives_stray_leaves,
    },
    Case {
        clause: "DEL-15",
        promise: "the end of a sign-in that was never made changes nothing",
        check: users::survives_stray_sign_outs,
    },
    Case {
        clause: "DEL-13",
        promise: "users of different apps with one id are different users",
        check: users::keeps_apps_apart,
    },
    Case {
        clause: "DEL-17",
        promise: "a sign-in sees who is online and hears every later change of those it watches, and of nobody else",
        check: users::signs_in_at_a_position,
    },
    Case {
        clause: "DEL-17",
        promise: "what a sign-in saw and what it heard later add up while users come and go",
        check: users::adds_up_to_who_is_online,
    },
    Case {
        clause: "DEL-18",
        promise: "a user is online while any connection anywhere is signed in",
        check: users::is_online_on_any_connection,
    },
    Case {
        clause: "DEL-18",
        promise: "offline is told when the time is over, and not at all to whom the user came back in it",
        check: users::waits_before_offline,
    },
    Case {
        clause: "DEL-19",
        promise: "every worker with connections of a terminated user is told, and nobody else",
        check: users::terminates_everywhere,
    },
    Case {
        clause: "DEL-19",
        promise: "who signs in after a termination is not meant by it",
        check: users::spares_later_sign_ins,
    },
    Case {
        clause: "WS-81",
        promise: "a user's info is that of the first connection",
        check: members::keeps_the_first_info,
    },
    Case {
        clause: "WS-86",
        promise: "new users beyond the limit are refused and leave no trace",
        check: members::limits_members,
    },
    Case {
        clause: "WS-93",
        promise: "only what is published to be kept is kept",
        check: cases::keeps_what_is_to_be_kept,
    },
    Case {
        clause: "WS-94",
        promise: "a kept event is forgotten after its time; a new one starts anew",
        check: cases::forgets,
    },
    Case { clause: "HTTP-36", promise: "occupied channels are listed by prefix", check: cases::lists_channels },
    Case {
        clause: "HTTP-44",
        promise: "server-to-user channels are in no listing",
        check: cases::hides_server_to_user,
    },
    Case {
        clause: "RED-3",
        promise: "who publishes on and on over an outage is heard in its order: nothing is left out, nothing comes twice",
        check: outage::publications::keeps_the_order_over_both_its_ends,
    },
    Case {
        clause: "RED-17",
        promise: "a channel that was left a moment ago and is taken again in an outage hears all from its position on",
        check: outage::publications::interest_outlives_its_last_subscription,
    },
    Case {
        clause: "RED-21",
        promise: "what is accepted in an outage is heard once by all, and by then where there is another way; what is refused, never",
        check: outage::publications::loses_and_doubles_nothing,
    },
    Case {
        clause: "RED-24",
        promise: "who comes in an outage is let in, and everybody agrees afterwards on who is there",
        check: outage::members::lets_everybody_in,
    },
    Case {
        clause: "RED-24",
        promise: "who leaves in an outage is told to have gone once, and nobody stays who is not there",
        check: outage::members::tells_of_everybody_who_left,
    },
];
