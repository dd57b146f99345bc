//! What somebody tries who may do a little and wants more.

mod decision_ids;
mod directories;
mod doors;
mod executors;
mod groups;
mod health;
mod helpers;
mod importing;
mod journal_growth;
mod keyring;
mod lengths;
<<<<<<< HEAD
mod plans;
mod relay_bomb;
mod variables;
=======
mod request_ids;
>>>>>>> db7639e (broker: an id binds its whole request, and a step its registration)
