//! The test bed, tested on its own parts: a system test is worth what its parts are worth. Nothing here starts the
//! product. Needs what `tests/prepare` installs, and root.

// Addresses are handed out once.
mod address;
// When a value is dropped, or the whole process killed, nothing is left running.
mod cleanup;
// The real confctl writes what the others read.
mod conftool;
// Both interfaces, TLS, passwords, members that die and freeze.
mod etcd;
// A host boots, runs commands, is turned off, loses its power, and keeps its files.
mod host;
// Lost requests are counted, and only lost ones.
mod load;
// Slots are given, freeze with the daemon, and end with it.
mod poolcounterd;
// The stand-in answers, paces and fails as it is meant to.
mod pybal;
// All together: traffic follows conftool, and requests in flight survive.
mod site;
