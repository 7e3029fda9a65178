//! The records of a group, on a real Redis server.

mod damage;
mod death;
mod edges;
mod walk;
mod world;
