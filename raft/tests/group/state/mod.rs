//! What commands do, through restarts, changes of leader and new members.

mod deleted;
mod locks;
