//! The broker and NameServer of FolioMQ.
