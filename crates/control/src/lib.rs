//! What an operator's verbs decide, and nothing of what they do.
//!
//! [`observed`] holds what was seen of a group's processes, each fact with its age; [`health`] says what that means;
//! [`failover`], [`migrate`] and [`reconcile`] make a [`plan::Plan`] of it, or refuse with the guard that said no and its
//! figures; [`doctor`] looks at a whole deployment and names what is wrong with it. Nothing here opens anything, reads a clock or draws lots: the time is an argument, a [`std::time::Duration`] since
//! whatever moment the observer began to count.
//!
//! Three things hold for every plan: no action in it leaves fewer than two complete copies where there were two; it can be
//! abandoned between any two steps; and without fresh sight there is none.

mod check;
pub mod doctor;
pub mod failover;
mod guards;
pub mod health;
pub mod migrate;
pub mod observed;
pub mod plan;
pub mod reconcile;
pub mod sentinels;
