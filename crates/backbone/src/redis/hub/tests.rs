//! Hubs held to what workers are promised, over a pretend store. See [`world`].

mod alone;
mod cached;
mod joins;
mod members;
mod promises;
mod users;
mod walk;
mod words;
mod world;
